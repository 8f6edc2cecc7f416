import Kernels
import TensorCore
import Weights

/// conv2(silu(norm2(conv1(silu(norm1(x)))))) + shortcut(x), channels last (diffusers `QwenImageResidualBlock`,
/// `QwenImage21ResidualBlock`).
package struct ResidualBlock: Sendable {
  private let norm1: Tensor
  private let conv1: Convolution
  private let norm2: Tensor
  private let conv2: Convolution
  private let shortcut: Convolution?

  /// Reads the block's tensors.
  ///
  /// - Parameter hasTimeAxis: whether convolutions are stored with a time axis, of as many taps as they have in space.
  package init(
    _ name: String, _ reader: ModuleReader, input: Int, output: Int, hasTimeAxis: Bool
  ) throws(WeightsError) {
    func convolution(_ part: String, input: Int, kernel: Int) throws(WeightsError) -> Convolution {
      try reader.convolution(
        "\(name).\(part)", input: input, output: output, kernel: kernel, storedTimeTaps: hasTimeAxis ? kernel : nil)
    }
    norm1 = try reader.tensor("\(name).norm1.gamma", [input, 1, 1, 1])
    conv1 = try convolution("conv1", input: input, kernel: 3)
    norm2 = try reader.tensor("\(name).norm2.gamma", [output, 1, 1, 1])
    conv2 = try convolution("conv2", input: output, kernel: 3)
    shortcut = input == output ? nil : try convolution("conv_shortcut", input: input, kernel: 1)
  }

  /// The block over `source` [H, W, input], whose rows it uses up. The result [H, W, output] takes their place if the
  /// extents agree.
  package func stream(_ source: any ImageStream, band: BandHeight, compute: Compute) -> any ImageStream {
    ResidualImage(self, source, band: band, compute: compute)
  }

  /// The image after the block, row by row.
  private final class ResidualImage: ImageStream {
    let window: RowWindow
    private let block: ResidualBlock
    private let source: any ImageStream
    private let hidden: ConvolvedImage
    private let normed: RowWindow
    private let band: BandHeight
    private let compute: Compute
    private var done = 0
    private var normedRows = 0

    init(_ block: ResidualBlock, _ source: any ImageStream, band: BandHeight, compute: Compute) {
      self.block = block
      self.source = source
      self.band = band
      self.compute = compute
      let input = source.window
      hidden = ConvolvedImage(
        source, keepingSource: true, norm: block.norm1, block.conv1, band: BandHeight(pixels: 0), compute: compute)
      normed = hidden.window
      window =
        block.shortcut == nil
        ? input : RowWindow(height: input.height, width: input.width, channels: block.conv2.outChannels)
    }

    func produce(through row: Int) {
      guard done < row else { return }
      let end = band.end(after: done, through: row, window)
      let needed = min(window.height, end + 1)
      hidden.produce(through: needed)
      let hiddenRows = hidden.window.held.upperBound
      compute.channelNorm(normed, rows: normedRows..<hiddenRows, gamma: block.norm2)
      normedRows = hiddenRows
      if let shortcut = block.shortcut {
        window.extend(through: end)
        window.write { compute.convolution(source.window.rows, shortcut, rows: done..<end, into: &$0) }
        source.window.release(before: end)
      }
      window.write { compute.convolution(normed.rows, block.conv2, rows: done..<end, into: &$0, adds: true) }
      normed.release(before: end - 1)
      done = end
    }
  }
}

/// Single-head self-attention over all positions of a frame (diffusers `QwenImageAttentionBlock`,
/// `QwenImage21AttentionBlock`).
package struct AttentionBlock: Sendable {
  private let channels: Int
  private let norm: Tensor
  private let query: Linear
  private let key: Linear
  private let value: Linear
  private let projection: Linear

  package init(_ name: String, _ reader: ModuleReader, channels: Int) throws(WeightsError) {
    self.channels = channels
    norm = try reader.tensor("\(name).norm.gamma", [channels, 1, 1])
    let weight = try reader.tensor("\(name).to_qkv.weight", [3 * channels, channels, 1, 1]).reshaped([
      3 * channels, channels,
    ])
    let bias = try reader.tensor("\(name).to_qkv.bias", [3 * channels])
    func part(_ index: Int) -> Linear {
      let rows = index * channels..<(index + 1) * channels
      return reader.compute.prepareLinear(weight: weight.rows(rows), bias: bias.rows(rows))
    }
    (query, key, value) = (part(0), part(1), part(2))
    projection = reader.compute.prepareLinear(
      weight: try reader.tensor("\(name).proj.weight", [channels, channels, 1, 1]).reshaped([channels, channels]),
      bias: try reader.tensor("\(name).proj.bias", [channels]))
  }

  /// [H, W, C] → [H, W, C], fp32.
  package func callAsFunction(_ x: Tensor, _ compute: Compute) -> Tensor {
    let tokens: Shape = [x.shape[0] * x.shape[1], channels]
    let input = compute.channelRMSNorm(x, gamma: norm, silu: false).reshaped(tokens)
    let attended = compute.attention(
      q: compute.linear(input, query), k: compute.linear(input, key), v: compute.linear(input, value), heads: 1,
      kvHeads: 1,
      headDim: channels, causal: false)
    var y = x.reshaped(tokens)
    compute.linear(attended, projection, addingTo: &y)
    return y.reshaped(x.shape)
  }
}
