import Diffusion
import Kernels
import TensorCore

extension MMDiT: VelocityPredictor {
  /// Names everything that results depend on besides weights and inputs.
  public var numericsClass: String { QwenImageFamily.layers.numericsClass(compute) }

  /// Most tokens of a pass that branches share: few tokens wait for weights; more keep the processor busy by themselves
  /// (Tests/Benchmarks/PERFORMANCE-LOG.md).
  public static let sharedTokensMax = 512

  /// What every step has in common: the prompt, and the modulation vectors of the schedule.
  public struct Prepared: Sendable {
    let conditioning: Conditioning
    let modulation: ModulationTable
  }

  /// Projects the prompts and computes the modulation vectors of the whole schedule.
  public func prepare(_ image: DenoisingInput, times: [Float]) throws(PipelineError) -> [Prepared] {
    try validate(image)
    let modulation = modulation(times: times)
    return image.prompts.map { prompt in
      Prepared(conditioning: condition(promptEmbeds: prompt.embeds, grid: image.grid), modulation: modulation)
    }
  }

  /// Tokens of image and text.
  public func tokenCount(_ call: VelocityCall<Prepared>) -> Int { Branch(call).tokenCount }

  /// Predicts one velocity [N, patch² × outChannels], fp32.
  public func velocity(_ call: VelocityCall<Prepared>, probe: Probe) -> Tensor { self(Branch(call), probe: probe) }

  /// Predicts several velocities: every weight is read once for all that share a pass.
  public func velocities(_ calls: [VelocityCall<Prepared>]) -> [Tensor] {
    var passes: [[Branch]] = [], tokens = 0
    for branch in calls.map(Branch.init) {
      if passes.isEmpty || tokens + branch.tokenCount > Self.sharedTokensMax {
        passes.append([])
        tokens = 0
      }
      passes[passes.count - 1].append(branch)
      tokens += branch.tokenCount
    }
    return passes.flatMap { self($0) }
  }

  private func validate(_ image: DenoisingInput) throws(PipelineError) {
    for (field, prompt) in zip(["prompt_embeds", "negative_prompt_embeds"], image.prompts) {
      let embeds = prompt.embeds, width = configuration.jointAttentionDim
      guard embeds.shape.rank == 2, embeds.shape[0] > 0, embeds.shape[1] == width, embeds.dtype == .fp32 else {
        throw .invalidRequest(
          field: field, reason: "is \(embeds.dtype) \(embeds.shape); expected F32 [tokens, \(width)]")
      }
    }
    let latents = image.latents, expected: Shape = [image.grid.tokenCount, configuration.inChannels]
    guard latents.shape == expected, latents.dtype == .fp32 else {
      throw .invalidRequest(field: "latents", reason: "is \(latents.dtype) \(latents.shape); expected F32 \(expected)")
    }
  }
}

extension MMDiT.Branch {
  init(_ call: VelocityCall<MMDiT.Prepared>) {
    self.init(
      latents: call.latents, conditioning: call.branch.conditioning, modulation: call.branch.modulation, step: call.step
    )
  }
}
