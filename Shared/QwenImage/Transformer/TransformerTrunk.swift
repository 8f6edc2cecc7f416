import Diffusion
import Kernels
import TensorCore
import Weights

/// What the denoising network and its control networks have in common: latents, prompts and times on their way to the
/// width of the residual streams, and the blocks.
struct TransformerTrunk: Sendable {
  let configuration: TransformerConfiguration
  let compute: Compute
  let blockCount: Int
  private var imageIn: Linear
  private let textNorm: Tensor
  private var textIn: Linear
  private var timestep: TimestepModulation
  private var blocks: [TransformerBlock]

  /// - Parameter hasOutputNorm: whether the network ends in `norm_out`, as control networks do not.
  init(
    _ reader: ModuleReader, _ configuration: TransformerConfiguration, hasOutputNorm: Bool
  ) throws(WeightsError) {
    let dim = configuration.innerDim
    self.configuration = configuration
    compute = reader.compute
    imageIn = try reader.linear(Self.imageInName, input: configuration.inChannels, output: dim)
    textNorm = try reader.tensor("txt_norm.weight", [configuration.jointAttentionDim])
    textIn = try reader.linear(Self.textInName, input: configuration.jointAttentionDim, output: dim)
    timestep = try TimestepModulation(reader, configuration, hasOutputNorm: hasOutputNorm)
    var blocks: [TransformerBlock] = []
    for index in 0..<configuration.layerCount { blocks.append(try TransformerBlock(index, reader, configuration)) }
    self.blocks = blocks
    blockCount = blocks.count
  }

  private static let imageInName = "img_in"
  private static let textInName = "txt_in"

  /// The same with what adapters add to the layers.
  func updated(by updates: LayerUpdates) -> TransformerTrunk {
    var trunk = self
    trunk.imageIn = updates(Self.imageInName, imageIn)
    trunk.textIn = updates(Self.textInName, textIn)
    trunk.timestep = timestep.updated(by: updates)
    trunk.blocks = blocks.map { $0.updated(by: updates) }
    return trunk
  }

  // MARK: - Inputs

  /// Packed latents [N, inChannels] → image tokens [N, inner], fp32.
  func imageTokens(_ latents: Tensor) -> Tensor { compute.linear(latents, imageIn, output: .fp32) }

  /// Adds packed latents [N, inChannels] to image tokens [N, inner], fp32.
  func add(_ latents: Tensor, to tokens: inout Tensor) { compute.linear(latents, imageIn, addingTo: &tokens) }

  /// Prompt embeddings [L, jointAttentionDim] after `txt_norm`.
  func normalised(_ promptEmbeds: Tensor) -> Tensor {
    compute.rmsNorm(promptEmbeds, weight: textNorm, epsilon: TransformerBlock.normEpsilon)
  }

  /// Prompt embeddings [L, jointAttentionDim] → text tokens [L, inner], fp32.
  func textTokens(_ promptEmbeds: Tensor) -> Tensor {
    compute.linear(normalised(promptEmbeds), textIn, output: .fp32)
  }

  /// The rotary tables of `textCount` text tokens and the tokens of `images`.
  func rotary(images: [TokenGrid], textCount: Int) -> RotaryTable {
    JointRotary.table(
      axes: configuration.ropeAxes, images: images, frames: configuration.useLayer3DRope ? .layered : .numbered,
      textCount: textCount)
  }

  /// The modulation vectors of all steps; `times` are the steps' sigmas.
  func modulation(times: [Float], isMemoryShort: Bool) -> ModulationTable {
    timestep.table(times: times, compute: compute, isMemoryShort: isMemoryShort)
  }

  // MARK: - Blocks

  /// One of the predictions that share a pass.
  struct Branch {
    /// Tokens of all images, and those of image number 0 among them, which come first.
    let imageTokens, firstImageTokens: Int
    let textTokens: Int
    /// Tables of the joint sequence, text first.
    let rotary: RotaryTable
    let modulation: ModulationTable
    /// Row of `modulation`.
    let step: Int
  }

  /// Runs the blocks of `range`.
  ///
  /// - Parameters:
  ///   - updatesLastText: whether the text behind the last block is needed, as by recordings and benchmarks.
  ///   - afterBlock: called with the number of a block and what it leaves in the image stream.
  func run(
    _ streams: inout MMDiT.Streams, _ branches: [Branch], range: Range<Int>, updatesLastText: Bool, probe: Probe,
    afterBlock: (_ index: Int, _ image: inout Tensor) -> Void
  ) {
    let (image, text) = (consecutiveRows(branches.map(\.imageTokens)), consecutiveRows(branches.map(\.textTokens)))
    for index in range {
      let parts = branches.indices.map { branch in
        let modulation = branches[branch].modulation.block(index, step: branches[branch].step)
        return TransformerBlock.Branch(
          imageRows: image[branch], textRows: text[branch],
          imageModulation: Self.imageModulation(modulation, image[branch], branches[branch].firstImageTokens),
          textModulation: modulation.text, rotary: branches[branch].rotary)
      }
      blocks[index](
        image: &streams.image, text: &streams.text, branches: parts,
        updatesText: index + 1 < blockCount || updatesLastText, compute: compute, probe: probe)
      afterBlock(index, &streams.image)
    }
  }

  /// The vectors of a branch's image tokens: those of condition images, which are all but the first, may have their
  /// own.
  private static func imageModulation(
    _ modulation: BlockModulation, _ rows: Range<Int>, _ firstImageTokens: Int
  ) -> [(rows: Range<Int>, vectors: StreamModulation)] {
    let end = rows.lowerBound + firstImageTokens
    guard let conditionImages = modulation.conditionImages, end < rows.upperBound else {
      return [(rows, modulation.image)]
    }
    return [(rows.lowerBound..<end, modulation.image), (end..<rows.upperBound, conditionImages)]
  }
}
