import ClusterCore
import Diffusion
import Kernels
import TensorCore
import Weights

/// The denoising network of Qwen-Image: a multimodal diffusion transformer that predicts the velocity of flow matching
/// (diffusers `QwenImageTransformer2DModel`).
public struct MMDiT: Sendable {
  /// The checkpoint's configuration.
  public let configuration: TransformerConfiguration
  /// The arithmetic the network runs on.
  public let compute: Compute
  private let imageIn: Linear
  private let textNorm: Tensor
  private let textIn: Linear
  private let timestep: TimestepModulation
  private let blocks: [TransformerBlock]
  private let out: Linear
  /// For weights that do not all fit into memory; nil: they do.
  public let streaming: WeightStreaming?

  /// Reads and prepares the weights of `transformer/`.
  ///
  /// - Parameter residentMax: bytes of mapped weights that may stay in memory; nil: all.
  /// - Throws: `WeightsError` naming the file and tensor that is missing, misshapen or unexpected.
  public init(
    _ weights: ComponentWeights, configuration: TransformerConfiguration, compute: Compute, residentMax: Int? = nil
  ) throws(WeightsError) {
    let reader = ModuleReader(weights, compute: compute, layers: QwenImageFamily.layers)
    let dim = configuration.innerDim
    self.configuration = configuration
    self.compute = compute
    imageIn = try reader.linear("img_in", input: configuration.inChannels, output: dim)
    textNorm = try reader.tensor("txt_norm.weight", [configuration.jointAttentionDim])
    textIn = try reader.linear("txt_in", input: configuration.jointAttentionDim, output: dim)
    timestep = try TimestepModulation(reader, configuration)
    var blocks: [TransformerBlock] = []
    for index in 0..<configuration.layerCount { blocks.append(try TransformerBlock(index, reader, configuration)) }
    self.blocks = blocks
    out = try reader.linear(
      "proj_out", input: dim, output: configuration.patchSize * configuration.patchSize * configuration.outChannels)
    streaming = residentMax.flatMap { max in
      WeightStreaming(blocks.indices.map { reader.mapped(prefix: "transformer_blocks.\($0).") }, residentMax: max)
    }
    try reader.finish()
  }
  /// What a prompt contributes to every step: its tokens after `txt_in`, and the rotary tables of the joint sequence.
  public struct Conditioning: Sendable {
    /// [L, inner], fp32.
    let text: Tensor
    let rotary: RotaryTable
    /// [L, jointAttentionDim]: the embeddings this was made from.
    let promptEmbeds: Tensor
  }

  /// Prepares a prompt's embeddings [L, jointAttentionDim] for images of `grid` tokens.
  public func condition(promptEmbeds: Tensor, grid: TokenGrid) -> Conditioning {
    let rotary = JointRotary.table(
      axes: configuration.ropeAxes, grids: [.init(frame: 0, height: grid.height, width: grid.width)],
      textCount: promptEmbeds.shape[0])
    let text = compute.linear(normalised(promptEmbeds), textIn, output: .fp32)
    return Conditioning(text: text, rotary: rotary, promptEmbeds: promptEmbeds)
  }

  /// Computes the modulation vectors of all steps; `times` are the steps' sigmas.
  public func modulation(times: [Float]) -> ModulationTable {
    timestep.table(times: times, compute: compute, isMemoryShort: streaming != nil)
  }

  /// What a velocity is predicted from.
  public struct Branch: Sendable {
    /// Packed latents [N, inChannels], fp32.
    public var latents: Tensor
    /// The prompt.
    public var conditioning: Conditioning
    /// The vectors of the schedule.
    public var modulation: ModulationTable
    /// Row of `modulation`.
    public var step: Int

    /// See the properties.
    public init(latents: Tensor, conditioning: Conditioning, modulation: ModulationTable, step: Int) {
      self.latents = latents
      self.conditioning = conditioning
      self.modulation = modulation
      self.step = step
    }

    /// Tokens of image and text.
    public var tokenCount: Int { latents.shape[0] + conditioning.text.shape[0] }
  }

  /// Predicts the velocity at one step.
  ///
  /// - Returns: velocity [N, patch² × outChannels], fp32.
  public func callAsFunction(_ branch: Branch, probe: Probe = .none) -> Tensor {
    var streams = streams([branch])
    recordInputs(branch, x: streams.image, probe)
    runBlocks(&streams, [branch], updatesLastText: probe.isActive, probe: probe)
    let velocity = velocities(streams.image, [branch], probe: probe)[0]
    probe.record("out", velocity)
    return velocity
  }

  /// Predicts several velocities, of any steps and sizes, in one pass: every weight is read once for all of them.
  ///
  /// - Returns: per branch the same bytes as alone.
  public func callAsFunction(_ branches: [Branch]) -> [Tensor] {
    if branches.isEmpty { return [] }
    var streams = streams(branches)
    runBlocks(&streams, branches, updatesLastText: false)
    return velocities(streams.image, branches, probe: .none)
  }

  /// The residual streams of a pass, the branches one after the other, fp32.
  @_spi(Benchmarks) public struct Streams {
    /// [ΣN, inner].
    public var image: Tensor
    /// [ΣL, inner].
    public var text: Tensor
  }

  /// The streams before the first block.
  @_spi(Benchmarks) public func streams(_ branches: [Branch]) -> Streams {
    Streams(
      image: compute.linear(Tensor.stacking(branches.map(\.latents)), imageIn, output: .fp32),
      text: Tensor.stacking(branches.map(\.conditioning.text)))
  }

  /// Runs all blocks, or those of `range`; the text behind the last one is needed by recordings and
  /// benchmarks.
  @_spi(Benchmarks) public func runBlocks(
    _ streams: inout Streams, _ branches: [Branch], range: Range<Int>? = nil, updatesLastText: Bool,
    probe: Probe = .none
  ) {
    let (image, text) = (
      Self.rows(branches.map { $0.latents.shape[0] }), Self.rows(branches.map { $0.conditioning.text.shape[0] })
    )
    for index in range ?? blocks.indices {
      let parts = branches.indices.map {
        TransformerBlock.Branch(
          imageRows: image[$0], textRows: text[$0],
          modulation: branches[$0].modulation.block(index, step: branches[$0].step),
          rotary: branches[$0].conditioning.rotary)
      }
      blocks[index](
        image: &streams.image, text: &streams.text, branches: parts,
        updatesText: index + 1 < blocks.count || updatesLastText,
        compute: compute, probe: probe)
      streaming?.ended(index)
    }
  }

  private func velocities(_ x: Tensor, _ branches: [Branch], probe: Probe) -> [Tensor] {
    let rows = Self.rows(branches.map { $0.latents.shape[0] })
    var normed = MutableTensor(uninitialized: x.shape, compute.activationDType)
    for (branch, rows) in zip(branches, rows) {
      let (scale, shift) = branch.modulation.finalScaleAndShift(step: branch.step)
      compute.layerNormModulate(
        x.rows(rows), shift: shift, scale: scale, epsilon: TransformerBlock.normEpsilon, into: &normed,
        rowsFrom: rows.lowerBound)
    }
    let y = normed.finish()
    probe.record("norm_out", y)
    let velocity = compute.linear(y, out, output: .fp32)
    return rows.map { velocity.rows($0) }
  }

  /// The rows of parts of `counts` rows, one after the other.
  private static func rows(_ counts: [Int]) -> [Range<Int>] {
    var end = 0
    return counts.map { count in
      end += count
      return end - count..<end
    }
  }

  private func normalised(_ promptEmbeds: Tensor) -> Tensor {
    compute.rmsNorm(promptEmbeds, weight: textNorm, epsilon: TransformerBlock.normEpsilon)
  }

  private func recordInputs(_ branch: Branch, x: Tensor, _ probe: Probe) {
    guard probe.isActive else { return }
    let (conditioning, modulation, step) = (branch.conditioning, branch.modulation, branch.step)
    let textRows = 0..<conditioning.text.shape[0]
    let imageRows = textRows.upperBound..<conditioning.rotary.cos.shape[0]
    probe.record("in.hidden_states", branch.latents)
    probe.record("in.encoder_hidden_states", conditioning.promptEmbeds)
    probe.record("in.timestep", Tensor([modulation.times[step]], shape: [1]))
    probe.record("img_in", x)
    probe.record("txt_norm", normalised(conditioning.promptEmbeds))
    probe.record("txt_in", conditioning.text)
    probe.record("temb", modulation.timeEmbedding.rows(step..<step + 1))
    probe.record("block.0.img_mod", modulation.image[0].rows(step..<step + 1))
    probe.record("block.0.txt_mod", modulation.text[0].rows(step..<step + 1))
    for (name, rows) in [("img", imageRows), ("txt", textRows)] {
      probe.record("rope.\(name).cos", conditioning.rotary.cos.rows(rows))
      probe.record("rope.\(name).sin", conditioning.rotary.sin.rows(rows))
    }
  }
}
