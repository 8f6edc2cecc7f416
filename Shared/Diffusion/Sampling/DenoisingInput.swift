import TensorCore

/// What the denoising loop starts from.
public struct DenoisingInput: Sendable {
  /// The conditioning of every branch of guidance: the prompt's and, unless guidance is off, the negative prompt's.
  public var prompts: [PromptConditioning]
  /// Packed latents [N, channels · patch²] before step `firstStep`, fp32: noise, or the checkpoint of an earlier
  /// attempt.
  public var latents: Tensor
  /// The grid of image tokens.
  public var grid: TokenGrid
  /// Number of steps of the whole schedule.
  public var steps: Int
  /// Steps already done.
  public var firstStep: Int
  /// Guidance strength.
  public var trueCFGScale: Double

  /// See the properties.
  public init(
    prompt: PromptConditioning, negativePrompt: PromptConditioning?, latents: Tensor, grid: TokenGrid, steps: Int,
    firstStep: Int = 0, trueCFGScale: Double
  ) {
    prompts = [prompt] + (negativePrompt.map { [$0] } ?? [])
    self.latents = latents
    self.grid = grid
    self.steps = steps
    self.firstStep = firstStep
    self.trueCFGScale = trueCFGScale
  }
}
