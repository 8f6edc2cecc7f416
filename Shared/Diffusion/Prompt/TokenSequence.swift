import Kernels
import TensorCore

/// What the language model reads: token ids, their positions, and the rows that images have in place of embeddings.
package struct TokenSequence: Sendable {
  /// A token's place on the axes of M-RoPE.
  package struct Position: Sendable, Equatable {
    /// Grows from token to token of a text, and from image to image.
    package var time: Int
    /// Grows within an image too.
    package var row: Int
    /// Grows within an image too.
    package var column: Int

    /// The place on one axis: 0 is time, 1 the row, 2 the column.
    package subscript(axis: Int) -> Int { axis == 0 ? time : axis == 1 ? row : column }
  }

  /// The ids of all tokens; one of each image's tokens for each of its rows.
  package let ids: [Int]
  /// The position of each token.
  package let positions: [Position]
  /// The rows of images, and where they begin.
  package private(set) var images: [(start: Int, rows: PromptImageRows)] = []
  private let places: [(start: Int, grid: TokenGrid)]

  /// Text, whose first token has the position `start`.
  package init(_ ids: [Int], from start: Int = 0) {
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
  package init(_ ids: [Int], places: [(start: Int, grid: TokenGrid)]) {
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
  package mutating func setRows(_ rows: [PromptImageRows]) {
    precondition(
      rows.map(\.tokenCount) == places.map(\.grid.tokenCount), "rows \(rows.map(\.tokenCount)) for \(places)")
    images = zip(places, rows).map { ($0.start, $1) }
  }

  private init(_ whole: TokenSequence, _ range: Range<Int>) {
    ids = Array(whole.ids[range])
    positions = Array(whole.positions[range])
    places = []
    images = whole.images.filter { range.contains($0.start) }.map { ($0.start - range.lowerBound, $0.rows) }
    precondition(images.allSatisfy { $0.start + $0.rows.tokenCount <= range.count }, "a part of an image in \(range)")
  }

  /// The tokens `range`, which holds each image as a whole or not at all.
  package subscript(range: Range<Int>) -> TokenSequence { TokenSequence(self, range) }

  /// Positions as the reference has them: [3, n].
  package static func tensor(of positions: [Position]) -> Tensor {
    Tensor((0..<3).flatMap { axis in positions.map { Float($0[axis]) } }, shape: [3, positions.count])
  }
}
