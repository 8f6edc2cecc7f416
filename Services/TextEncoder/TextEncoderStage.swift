import ClusterCore
import Diffusion
import Kernels
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
  private let conditioner: any PromptConditioner
  /// Nil for prompts that are not wanted any more.
  private let encode: Batcher<(PromptTokens, TaskContext), PromptConditioning?>

  init(_ loading: StageLoading) throws {
    card = loading.card
    // Two encoders agree only if they split prompts alike too.
    componentFingerprint =
      try loading.model.componentFingerprint(.textEncoder) + "+" + loading.model.componentFingerprint(.tokenizer)
    tasksAtATime = loading.batch.maxItems
    let conditioner = try loading.model.family.conditioner(
      of: loading.model, loading: loading.weights, pool: loading.pool, limits: card.limits,
      readsImages: card.pipelines.contains { $0.showsImagesToEncoder })
    numericsClass = conditioner.numericsClass
    self.conditioner = conditioner
    encode = Batcher(loading.batch) { waiting in
      let wanted = waiting.map { !$0.1.isCancelled }
      var encoded = conditioner.encode(zip(waiting, wanted).filter(\.1).map(\.0.0))[...]
      return wanted.map { $0 ? encoded.removeFirst() : nil }
    }
  }

  func run(_ task: StageTask, context: TaskContext) throws -> StageOutput {
    guard case .encodeRequest(let request) = task.request else {
      throw Status(.unimplemented, "a text encoder does not answer \(task.request.name)")
    }
    let start = ContinuousClock.now
    try context.checkCancelled()
    var input = PromptInput(request.prompt, template: PromptInput.Template(request.template))
    for image in request.images { input.images.append(try task.image(image)) }
    let tokens = try reportingStatus { try conditioner.tokens(input, field: "prompt") }
    guard let conditioning = encode((tokens, context), weight: tokens.count) else {
      try context.checkCancelled()
      throw Status(.cancelled, "the prompt is not wanted any more")
    }
    let embeds = conditioning.marked
    let response = EncodeResponse(
      promptTokens: embeds.shape[0], computeSeconds: (ContinuousClock.now - start) / .seconds(1))
    return StageOutput(.encodeResponse(response), tensors: [WireTensor(TensorName.promptEmbeds, embeds)])
  }
}

extension PromptInput.Template {
  fileprivate init(_ template: PromptTemplate) {
    switch template {
    case .textToImage: self = .textToImage
    case .edit: self = .edit
    case .editPlus: self = .editPlus
    }
  }
}
