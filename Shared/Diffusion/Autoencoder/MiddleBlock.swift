import Kernels
import TensorCore
import Weights

/// What both halves have where the image is smallest: a residual block, attention, a residual block (diffusers
/// `QwenImageMidBlock`, `QwenImage21MidBlock`).
package struct MiddleBlock: Sendable {
  private let first: ResidualBlock
  private let attention: AttentionBlock
  private let last: ResidualBlock

  /// Reads the block's tensors.
  ///
  /// - Parameter hasTimeAxis: as ``ResidualBlock`` takes it.
  package init(
    _ name: String, _ reader: ModuleReader, channels: Int, hasTimeAxis: Bool
  ) throws(WeightsError) {
    func residual(_ index: Int) throws(WeightsError) -> ResidualBlock {
      try ResidualBlock(
        "\(name).resnets.\(index)", reader, input: channels, output: channels, hasTimeAxis: hasTimeAxis)
    }
    first = try residual(0)
    attention = try AttentionBlock("\(name).attentions.0", reader, channels: channels)
    last = try residual(1)
  }

  /// [H, W, C] → [H, W, C], fp32. Records `mid_attn` and `mid`.
  package func callAsFunction(
    _ image: consuming Tensor, band: BandHeight, compute: Compute, probe: Probe
  ) -> Tensor {
    var x = first.stream(StoredImage(image), band: band, compute: compute).collect(band: band)
    x = attention(x, compute)
    probe.record("mid_attn", channelsFirst(x))
    x = last.stream(StoredImage(consume x), band: band, compute: compute).collect(band: band)
    probe.record("mid", channelsFirst(x))
    return x
  }
}
