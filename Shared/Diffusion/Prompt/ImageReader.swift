import Hashing
import ImageCodec
import TensorCore

/// Images in, rows for the language model out: preprocessing and the vision tower. Rows of images that were read last
/// are kept: a prompt and its negative prompt come with the same images.
public struct ImageReader: Sendable {
  /// SHA-256 of size and pixels, which identifies an image.
  package typealias Digest = [UInt8]

  private let tower: any ImageTower
  private let preprocessor: ImagePreprocessor
  private let recent: RecentValues<Digest, PromptImageRows>

  /// Most patches of a pass of the tower, unless one image has more: bounds its memory.
  private static let passPatchesMax = 8192

  /// Combines the two.
  ///
  /// - Parameter recentBytesMax: of the rows that are kept.
  package init(tower: any ImageTower, preprocessor: ImagePreprocessor, recentBytesMax: Int = 64 << 20) {
    self.tower = tower
    self.preprocessor = preprocessor
    recent = RecentValues(byteCountMax: recentBytesMax)
  }

  /// Bytes of packed weights that are parts of mapped files.
  package var mappedByteCount: Int { tower.mappedByteCount }

  /// Pixels of a merged token along each side.
  package var tokenEdgePx: Int { tower.geometry.tokenEdgePx }

  /// Refuses images that cannot be read; `field` is what the request calls the image.
  package func check(_ image: RasterImage, field: String) throws(PipelineError) {
    try preprocessor.check(image, field: field)
  }

  /// The grid of an image's rows.
  package func grid(of image: RasterImage) -> TokenGrid {
    let patches = preprocessor.grid(ofWidth: image.width, height: image.height), merge = tower.geometry.mergeSize
    return TokenGrid(height: patches.height / merge, width: patches.width / merge)
  }

  static func digest(_ image: RasterImage) -> Digest {
    var hash = SHA256()
    hash.update("\(image.width) \(image.height) \(image.channels)\n".utf8)
    hash.update(image.pixels)
    return hash.finalize()
  }

  /// The rows of several images; equal images are read once.
  func rows(of images: [RasterImage]) -> [PromptImageRows] {
    let digests = images.map(Self.digest)
    var found: [Digest: PromptImageRows] = [:], missing: [(digest: Digest, image: PatchedImage)] = []
    for (digest, image) in zip(digests, images) where found[digest] == nil {
      if let rows = recent[digest] {
        found[digest] = rows
      } else if !missing.contains(where: { $0.digest == digest }) {
        missing.append((digest, preprocessor(image)))
      }
    }
    while !missing.isEmpty {
      var patches = 0
      let fitting = missing.prefix {
        patches += $0.image.grid.tokenCount
        return patches <= Self.passPatchesMax
      }
      let pass = missing.prefix(max(fitting.count, 1))
      missing.removeFirst(pass.count)
      for (part, rows) in zip(pass, tower.read(pass.map(\.image), probe: .none)) {
        // A copy, since rows of one pass share their memory.
        let own = rows.copied()
        recent.insert(own, for: part.digest, byteCount: own.byteCount)
        found[part.digest] = own
      }
    }
    return digests.compactMap { found[$0] }
  }

  /// The rows of several images, computed in one pass.
  ///
  /// - Parameter probe: receives intermediates under the reference's names.
  func rows(of images: [RasterImage], probe: Probe) -> [PromptImageRows] {
    let patched = images.map { preprocessor($0) }
    probe.record("pixel_values", Tensor.stacking(patched.map(\.patches)))
    let grids: [Float] = patched.flatMap { [1, Float($0.grid.height), Float($0.grid.width)] }
    probe.record("image_grid_thw", Tensor(grids, shape: [images.count, 3]))
    return tower.read(patched, probe: probe.scoped("vis"))
  }
}
