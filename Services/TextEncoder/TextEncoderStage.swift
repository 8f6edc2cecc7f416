import ClusterCore
import Kernels
import QwenImage
import StageRuntime
import StageSupport
import TensorCore
import Wire

/// Prompt → prompt embeddings. Prompts that wait at the same time are encoded in one pass.
struct TextEncoderStage: Stage {
  let name = StageName.textEncoder
  let card: ModelCard
  let componentFingerprint: String
  let numericsClass: String
  let tasksAtATime: Int
  private let encoder: PromptEncoder
  /// Nil for prompts that nobody wants any more.
  private let encode: Batcher<(PromptEncoder.Tokens, TaskContext), Tensor?>

  init(_ loading: StageLoading) throws {
    card = ModelCard(loading.model, loading.profile)
    // Two encoders agree only if they split prompts alike too.
    componentFingerprint =
      try loading.model.componentFingerprint(.textEncoder) + "+" + loading.model.componentFingerprint(.tokenizer)
    tasksAtATime = loading.batch.maxItems
    let encoder = try PromptEncoder(
      model: loading.model, loading: loading.weights, pool: loading.pool,
      maxPromptTokens: loading.profile.limits.maxPromptTokens)
    numericsClass = encoder.numericsClass
    self.encoder = encoder
    encode = Batcher(loading.batch) { waiting in
      let wanted = waiting.map { !$0.1.isCancelled }
      var embeds = encoder.encode(zip(waiting, wanted).filter(\.1).map(\.0.0))[...]
      return wanted.map { $0 ? embeds.removeFirst() : nil }
    }
  }

  func run(_ task: StageTask, context: TaskContext) throws -> StageOutput {
    guard case .encodeRequest(let request) = task.request else {
      throw Status(.unimplemented, "a text encoder does not answer \(task.request.name)")
    }
    let start = ContinuousClock.now
    try context.checkCancelled()
    let tokens = try reportingStatus { try encoder.tokens(request.prompt) }
    guard let embeds = encode((tokens, context), weight: tokens.count) else {
      try context.checkCancelled()
      throw Status(.cancelled, "the prompt is not wanted any more")
    }
    let response = EncodeResponse(
      promptTokens: embeds.shape[0], computeSeconds: (ContinuousClock.now - start) / .seconds(1))
    return StageOutput(.encodeResponse(response), tensors: [WireTensor(TensorName.promptEmbeds, embeds)])
  }
}
