import Diffusion
import Kernels

/// The one sequence of tokens that the network works on: the prompt's text, in which each reference stands in the place
/// of the text encoder's rows for it, and behind it the image that is made.
///
/// What comes before the latter, the prefix, never sees it: text sees what precedes it, an image sees that and itself.
struct JointSequence: Sendable {
  /// Tokens that are of one kind and follow one another.
  struct Part: Sendable {
    enum Kind: Sendable, Equatable {
      /// These rows of the prompt's embeddings.
      case text(Range<Int>)
      /// A reference, by its number, or with the next number the image that is made.
      case image(Int)
    }

    let kind: Kind
    /// The tokens' places in the sequence.
    let rows: Range<Int>

    /// Whether each token sees those before it only.
    var isCausal: Bool { if case .text = kind { true } else { false } }
  }

  /// All parts; the last one is the image that is made.
  let parts: [Part]
  /// Frame, row and column of every token.
  let positions: [SIMD3<Float>]

  /// The tokens of the image that is made.
  var target: Range<Int> { parts[parts.count - 1].rows }
  /// Number of tokens before it.
  var prefixCount: Int { target.lowerBound }
  /// The parts before it.
  var prefix: ArraySlice<Part> { parts.dropLast() }

  /// - Parameters:
  ///   - textCount: rows of the prompt's embeddings.
  ///   - places: for each reference, how many of these come before it.
  ///   - references: their grids.
  ///   - target: the grid of the image that is made.
  init(textCount: Int, places: [Int], references: [TokenGrid], target: TokenGrid) {
    var walk = Walk(), text = 0
    for (number, (place, grid)) in zip(places, references).enumerated() {
      walk.addText(text..<place)
      walk.addImage(number, grid)
      text = place
    }
    walk.addText(text..<textCount)
    walk.addImage(references.count, target)
    parts = walk.parts
    positions = walk.positions
  }

  /// Counts positions along the sequence: a text token advances all axes by one, an image by its longer side.
  private struct Walk {
    var parts: [Part] = []
    var positions: [SIMD3<Float>] = []
    var position = 0

    mutating func addText(_ rows: Range<Int>) {
      guard !rows.isEmpty else { return }
      add(.text(rows), rows.map { SIMD3(repeating: Float(position + $0 - rows.lowerBound)) })
      position += rows.count
    }

    mutating func addImage(_ number: Int, _ grid: TokenGrid) {
      add(.image(number), AxialRotary.positions(of: grid, frame: position))
      position += max(grid.height, grid.width)
    }

    private mutating func add(_ kind: Part.Kind, _ added: [SIMD3<Float>]) {
      parts.append(Part(kind: kind, rows: positions.count..<positions.count + added.count))
      positions += added
    }
  }
}
