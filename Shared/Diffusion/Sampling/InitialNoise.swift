import ClusterCore
import TensorCore

/// The noise an image starts from.
public enum InitialNoise {
  /// Packed noise [gh·gw, channels·patch²] of the numbers a torch CPU generator with `seed` draws for a tensor of shape
  /// [1, 1, channels, patch·gh, patch·gw]: the same seed gives the reference's noise.
  public static func torchCPU(seed: UInt64, grid: TokenGrid, _ geometry: LatentGeometry, probe: Probe = .none) -> Tensor
  {
    let patch = geometry.patch
    var generator = TorchCPUGenerator(seed: seed)
    let planes = generator.normal([geometry.channels, grid.height * patch, grid.width * patch])
    probe.record("draw.0", planes)
    let packed = LatentPacking.pack(planes, patch: patch)
    probe.record("prepare_latents.0", packed)
    return packed
  }
}
