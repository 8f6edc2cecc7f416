import ClusterCore
import TensorCore

/// The noise an image starts from.
public enum InitialNoise {
  /// Packed noise [gh·gw, channels·patch²] of the numbers a torch CPU generator with `seed` draws for a tensor of shape
  /// [1, 1, channels, patch·gh, patch·gw]: the same seed gives the reference's noise.
  public static func torchCPU(
    seed: UInt64, grid: TokenGrid, _ geometry: LatentGeometry, precedingDraws: Int = 0, probe: Probe = .none
  ) -> Tensor {
    var generator = TorchCPUGenerator(seed: seed)
    for _ in 0..<precedingDraws { _ = draw(&generator, grid, geometry, draw: 0) }
    let packed = draw(&generator, grid, geometry, probe: probe, draw: 0)
    probe.record("prepare_latents.0", packed)
    return packed
  }

  /// Packed noise of the numbers that `generator` draws next.
  ///
  /// - Parameter draw: number of the draw, for the name of the recorded tensor.
  public static func draw(
    _ generator: inout TorchCPUGenerator, _ grid: TokenGrid, _ geometry: LatentGeometry, probe: Probe = .none, draw: Int
  ) -> Tensor {
    let patch = geometry.patch
    let planes = generator.normal([geometry.channels, grid.height * patch, grid.width * patch])
    probe.record("draw.\(draw)", planes)
    return LatentPacking.pack(planes, patch: patch)
  }
}
