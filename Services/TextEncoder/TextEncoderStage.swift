import Kernels
import QwenImage
import StageRuntime
import StageSupport
import Wire

/// Prompt → prompt embeddings.
struct TextEncoderStage: Stage {
  let kind = StageKind.textEncoder
  let card: ModelCard
  let componentFingerprint: String
  let numericsClass: String
  private let encoder: PromptEncoder

  init(_ loading: StageLoading) throws {
    card = ModelCard(loading.model, loading.profile)
    // Two encoders agree only if they split prompts alike too.
    componentFingerprint =
      try loading.model.componentFingerprint(.textEncoder) + "+" + loading.model.componentFingerprint(.tokenizer)
    encoder = try PromptEncoder(
      model: loading.model, loading: loading.weights, pool: loading.pool, maxPromptTokens: loading.profile.limits.maxPromptTokens)
    numericsClass = encoder.numericsClass
  }

  func run(_ task: StageTask, context: TaskContext) throws -> StageOutput {
    guard case .encodeRequest(let request) = task.request else {
      throw Status(.unimplemented, "a text encoder does not answer \(task.request.name)")
    }
    let start = ContinuousClock.now
    try context.checkCancelled()
    let embeds = try reportingStatus { try encoder.encode(request.prompt) }
    let response = EncodeResponse(promptTokens: embeds.shape[0], computeSeconds: (ContinuousClock.now - start) / .seconds(1))
    return StageOutput(.encodeResponse(response), tensors: [WireTensor(TensorName.promptEmbeds, embeds)])
  }
}
