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

  /// Reads and prepares the weights of `transformer/`.
  ///
  /// - Throws: `WeightsError` naming the file and tensor that is missing, misshapen or unexpected.
  public init(_ weights: ComponentWeights, configuration: TransformerConfiguration, compute: Compute) throws(WeightsError) {
    let reader = ModuleReader(weights, compute: compute)
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
    out = try reader.linear("proj_out", input: dim, output: configuration.patchSize * configuration.patchSize * configuration.outChannels)
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

  /// Prepares a prompt's embeddings [L, jointAttentionDim] for pictures of `grid` tokens.
  public func condition(promptEmbeds: Tensor, grid: TokenGrid) -> Conditioning {
    let rotary = JointRotary.table(
      axes: configuration.ropeAxes, grids: [.init(frame: 0, height: grid.height, width: grid.width)], textCount: promptEmbeds.shape[0])
    let text = compute.linear(normalised(promptEmbeds), textIn, output: .fp32)
    return Conditioning(text: text, rotary: rotary, promptEmbeds: promptEmbeds)
  }

  /// Computes the modulation vectors of all steps; `times` are the steps' sigmas.
  public func modulation(times: [Float]) -> ModulationTable { timestep.table(times: times, compute: compute) }

  /// Predicts the velocity at one step.
  ///
  /// - Parameters:
  ///   - latents: packed latents [N, inChannels], fp32.
  ///   - step: row of `modulation`.
  /// - Returns: velocity [N, patch² × outChannels], fp32.
  public func callAsFunction(
    _ latents: Tensor, _ conditioning: Conditioning, _ modulation: ModulationTable, step: Int, probe: Probe = .none
  ) -> Tensor {
    var x = compute.linear(latents, imageIn, output: .fp32)
    var c = conditioning.text.copied()
    recordInputs(latents, conditioning, modulation, step: step, x: x, probe)
    for (index, block) in blocks.enumerated() {
      block(
        image: &x, text: &c, modulation: modulation.block(index, step: step), rotary: conditioning.rotary,
        updatesText: index + 1 < blocks.count || probe.isActive, compute: compute, probe: probe)
    }
    let (scale, shift) = modulation.finalScaleAndShift(step: step)
    let y = compute.layerNormModulate(x, shift: shift, scale: scale, epsilon: TransformerBlock.normEpsilon)
    probe.record("norm_out", y)
    let velocity = compute.linear(y, out, output: .fp32)
    probe.record("out", velocity)
    return velocity
  }

  private func normalised(_ promptEmbeds: Tensor) -> Tensor {
    compute.rmsNorm(promptEmbeds, weight: textNorm, epsilon: TransformerBlock.normEpsilon)
  }

  private func recordInputs(
    _ latents: Tensor, _ conditioning: Conditioning, _ modulation: ModulationTable, step: Int, x: Tensor, _ probe: Probe
  ) {
    guard probe.isActive else { return }
    let textRows = 0..<conditioning.text.shape[0]
    let imageRows = textRows.upperBound..<conditioning.rotary.cos.shape[0]
    probe.record("in.hidden_states", latents.copied())
    probe.record("in.encoder_hidden_states", conditioning.promptEmbeds)
    probe.record("in.timestep", Tensor([modulation.times[step]], shape: [1]))
    probe.record("img_in", x.copied())
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
