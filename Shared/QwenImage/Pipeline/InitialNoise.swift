import TensorCore

/// The noise a picture starts from.
public enum InitialNoise {
  /// Packed noise [gh·gw, channels·4] of the numbers a torch CPU generator with `seed` draws for a tensor of shape
  /// [1, 1, channels, 2·gh, 2·gw]: the same seed gives the reference's noise.
  public static func torchCPU(seed: UInt64, grid: TokenGrid, latentChannels: Int, probe: Probe = .none) -> Tensor {
    let shape: Shape = [latentChannels, grid.height * LatentPacking.patch, grid.width * LatentPacking.patch]
    var generator = TorchCPUGenerator(seed: seed)
    let planes = generator.normal(shape)
    probe.record("draw.0", planes)
    let packed = LatentPacking.pack(planes)
    probe.record("prepare_latents.0", packed)
    return packed
  }
}
