import Diffusion
import Kernels
import TensorCore
import Weights

/// What both halves have where the image is smallest: a residual block, attention, a residual block (diffusers
/// `QwenImageMidBlock`).
struct MiddleBlock: Sendable {
  private let first: ResidualBlock
  private let attention: AttentionBlock
  private let last: ResidualBlock

  init(_ name: String, _ reader: ModuleReader, channels: Int) throws(WeightsError) {
    first = try ResidualBlock("\(name).resnets.0", reader, input: channels, output: channels)
    attention = try AttentionBlock("\(name).attentions.0", reader, channels: channels)
    last = try ResidualBlock("\(name).resnets.1", reader, input: channels, output: channels)
  }

  /// [H, W, C] → [H, W, C], fp32. Records `mid_attn` and `mid`.
  func callAsFunction(_ image: consuming Tensor, band: BandHeight, compute: Compute, probe: Probe) -> Tensor {
    var x = first.stream(StoredImage(image), band: band, compute: compute).collect(band: band)
    x = attention(x, compute)
    probe.record("mid_attn", channelsFirst(x))
    x = last.stream(StoredImage(consume x), band: band, compute: compute).collect(band: band)
    probe.record("mid", channelsFirst(x))
    return x
  }
}
