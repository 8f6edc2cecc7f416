import Diffusion
import TensorCore

/// What the language model reads: token ids, their positions, and the rows that images have in place of embeddings.
struct TokenSequence: Sendable {
  /// A token's place on the axes of M-RoPE.
  struct Position: Sendable, Equatable {
    var time: Int
    var row: Int
    var column: Int

    /// The place on one axis: 0 is time, 1 the row, 2 the column.
    subscript(axis: Int) -> Int { axis == 0 ? time : axis == 1 ? row : column }
  }

  /// The ids of all tokens; one of each image's tokens for each of its rows.
  let ids: [Int]
  /// The position of each token.
  let positions: [Position]
  /// The rows of images [tokens, hidden], fp32, and where they begin.
  private(set) var images: [(start: Int, rows: Tensor)] = []
  private let places: [(start: Int, grid: TokenGrid)]

  /// Text, whose first token has the position `start`.
  init(_ ids: [Int], from start: Int = 0) {
    self.ids = ids
    positions = (start..<start + ids.count).map { Position(time: $0, row: $0, column: $0) }
    places = []
  }

  /// Text with images, whose rows are yet to be set (transformers `get_rope_index`). Text continues where the axis ends
  /// that an image is longest on: transformers 5 leaves that out when diffusers calls it, but the model was trained so.
  ///
  /// - Parameters:
  ///   - ids: of all tokens.
  ///   - places: where the tokens of each image begin, in order, and its grid of merged tokens.
  init(_ ids: [Int], places: [(start: Int, grid: TokenGrid)]) {
    var positions: [Position] = [], next = 0
    positions.reserveCapacity(ids.count)
    func addText(to end: Int) {
      for _ in positions.count..<end {
        positions.append(Position(time: next, row: next, column: next))
        next += 1
      }
    }
    for place in places {
      addText(to: place.start)
      for row in 0..<place.grid.height {
        for column in 0..<place.grid.width {
          positions.append(Position(time: next, row: next + row, column: next + column))
        }
      }
      next += max(place.grid.height, place.grid.width)
    }
    addText(to: ids.count)
    (self.ids, self.positions, self.places) = (ids, positions, places)
  }

  /// Puts the rows of all images, in order, in their places.
  mutating func setRows(_ rows: [Tensor]) {
    precondition(
      rows.map { $0.shape[0] } == places.map(\.grid.tokenCount), "rows \(rows.map(\.shape)) for \(places)")
    images = zip(places, rows).map { ($0.start, $1) }
  }

  private init(_ whole: TokenSequence, _ range: Range<Int>) {
    ids = Array(whole.ids[range])
    positions = Array(whole.positions[range])
    places = []
    images = whole.images.filter { range.contains($0.start) }.map { ($0.start - range.lowerBound, $0.rows) }
    precondition(images.allSatisfy { $0.start + $0.rows.shape[0] <= range.count }, "a part of an image in \(range)")
  }

  /// The tokens `range`, which holds each image as a whole or not at all.
  subscript(range: Range<Int>) -> TokenSequence { TokenSequence(self, range) }

  /// Positions as the reference has them: [3, n].
  static func tensor(of positions: [Position]) -> Tensor {
    Tensor((0..<3).flatMap { axis in positions.map { Float($0[axis]) } }, shape: [3, positions.count])
  }
}
