import ClusterCore
import TensorCore

/// The normal numbers that an image is made with, in the order in which the reference draws them from one torch CPU
/// generator: those that sample the posteriors of encoded images come first, then the noise that the image starts from.
public enum InitialNoise {
  /// Packed noise [layers·gh·gw, channels·patch²] of the numbers a torch CPU generator with `seed` draws for a tensor
  /// of shape [1, layers, channels, patch·gh, patch·gw]: the same seed gives the reference's noise.
  ///
  /// - Parameter sampled: grids of the images whose posteriors were sampled with the same seed before.
  public static func torchCPU(
    seed: UInt64, grid: TokenGrid, _ geometry: LatentGeometry, layers: Int = 1, after sampled: [TokenGrid] = [],
    probe: Probe = .none
  ) -> Tensor {
    var generator = TorchCPUGenerator(seed: seed)
    for grid in sampled { _ = generator.normal(geometry.planes(grid)) }
    let plane = geometry.planes(grid).dimensions
    let planes = generator.normal(Shape([layers * plane[0], plane[1], plane[2]]))
    probe.record("draw.\(sampled.count)", planes)
    return Tensor.stacking(
      (0..<layers).map {
        LatentPacking.pack(planes.rows($0 * plane[0]..<($0 + 1) * plane[0]), patch: geometry.patch)
      })
  }

  /// The normal numbers [channels, patch·gh, patch·gw] that sample the posteriors of images with these grids, in their
  /// order.
  public static func posteriors(seed: UInt64, grids: [TokenGrid], _ geometry: LatentGeometry) -> [Tensor] {
    var generator = TorchCPUGenerator(seed: seed)
    return grids.map { generator.normal(geometry.planes($0)) }
  }
}

extension LatentGeometry {
  /// The shape of an image's latents before they are packed.
  fileprivate func planes(_ grid: TokenGrid) -> Shape { [channels, grid.height * patch, grid.width * patch] }
}
