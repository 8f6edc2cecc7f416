import TensorCore

/// What a language model has of an image in place of embeddings.
package struct PromptImageRows: Sendable {
  /// [merged tokens, hidden], fp32: the rows that take the place of embeddings, row by row of the image.
  package let rows: Tensor
  /// Like ``rows``: what is added to them after each of the first layers.
  package let levels: [Tensor]

  /// See the properties.
  package init(rows: Tensor, levels: [Tensor] = []) {
    self.rows = rows
    self.levels = levels
  }

  /// Merged tokens.
  package var tokenCount: Int { rows.shape[0] }
  /// Size in memory.
  package var byteCount: Int { levels.reduce(rows.byteCount) { $0 + $1.byteCount } }

  /// A copy that shares no memory.
  func copied() -> PromptImageRows { PromptImageRows(rows: rows.copied(), levels: levels.map { $0.copied() }) }
}

/// A vision tower: the network that turns the images of a prompt into rows for a language model.
package protocol ImageTower: Sendable {
  /// How images are cut into patches.
  var geometry: PatchGeometry { get }
  /// Bytes of packed weights that are parts of mapped files.
  var mappedByteCount: Int { get }

  /// Reads several images in one pass.
  ///
  /// - Parameter probe: receives intermediates of all images, one after the other, under the reference's names.
  /// - Returns: per image the same bytes as if it were read alone.
  func read(_ images: [PatchedImage], probe: Probe) -> [PromptImageRows]
}
