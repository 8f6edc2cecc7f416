import ClusterCore
import GatewayAPI
import GatewayDispatch
import Hummingbird
import Scheduling
import Wire

/// `GET /v1/models` and `/v1/models/{id}`.
struct ModelsRoutes: Sendable {
  let dispatcher: Dispatcher
  let aliases: ModelAliases

  struct Model: Encodable {
    struct Pipeline: Encodable {
      var name: String
      var ready: Bool
    }
    struct Limits: Encodable {
      var sizeMultiple: Int
      var minSide: Int
      var maxSide: Int
      var maxPixels: Int
      var maxSteps: Int
      var maxPromptBytes: Int
      var maxPromptTokens: Int
    }
    struct Defaults: Encodable {
      var size: ImageSize
      var steps: Int
      var trueCfgScale: Double
      var negativePrompt: String
    }
    var id: String
    var object = "model"
    var created: Int
    var ownedBy = "qwen-image-cluster"
    /// The model that this is a further name of.
    var aliasOf: String?
    var pipeline: String
    var pipelines: [Pipeline]
    var fingerprint: String
    /// By its SPDX identifier or its name; absent: unknown.
    var license: String?
    /// Whether images have an alpha channel.
    var transparency: Bool
    /// Most images that a prompt may speak of.
    var maxReferences: Int
    /// Whether requests may ask for their prompts to be rewritten.
    var enhancePrompt: Bool
    /// The adapters that requests may name, by their names.
    var loras: [AdapterItem] = []
    /// Values that belong together, for distilled models and adapters.
    var presets: [ModelPreset] = []
    /// Whether the denoisers serve step caches.
    var stepCaches: Bool
    /// The steps of a distilled model's schedule, whatever a request asks for.
    var scheduleSteps: Int?
    /// What requests may name.
    var samplers: [String]
    var schedules: [String]
    var ready: Bool
    var limits: Limits
    var defaults: Defaults
    var recommendedSizes: [ImageSize]
  }

  struct List: Encodable {
    var object = "list"
    var data: [Model]
  }

  func add(to router: Router<GatewayContext>) {
    router.serve("/v1/models", [(.get, { _, _ in try .json(List(data: await models())) })])
    // Ids have slashes: "Qwen/Qwen-Image", which clients send as such or as %2F.
    router.serve(
      "/v1/models/**",
      [
        (
          .get,
          { _, context in
            let id = context.parameters.getCatchAll().joined(separator: "/").removingPercentEncoding() ?? ""
            guard let model = await models().first(where: { $0.id == id }) else {
              throw APIError(.modelNotFound, "the model \"\(id.prefix(80))\" does not exist", param: "model")
            }
            return try .json(model)
          }
        )
      ])
  }

  private func models() async -> [Model] {
    let catalog = await dispatcher.catalog
    let status = await dispatcher.status
    var models: [Model] = []
    for id in catalog.modelIDs {
      guard let card = try? catalog.card(named: id, status: status) else { continue }
      var model = Model(
        card, created: catalog.createdUnix(id), ready: catalog.readyPipelines(of: card, status),
        enhancesPrompts: dispatcher.enhancesPrompts)
      model.loras = await dispatcher.adapters(of: card.model).entries.map { AdapterItem($0) }
      model.presets = ModelPreset.presets(of: card, adapters: model.loras.map(\.name))
      models.append(model)
    }
    // Clients look there for the name that they are going to use.
    let further = aliases.names.compactMap { name -> Model? in
      let id = aliases.model(named: name, known: catalog.modelIDs)
      guard id != name, var model = models.first(where: { $0.id == id }) else { return nil }
      (model.id, model.aliasOf) = (name, id)
      return model
    }
    return models + further
  }
}

extension ModelsRoutes.Model {
  init(_ card: ModelCard, created: Int, ready: [PipelineName], enhancesPrompts: Bool) {
    id = card.model.id
    self.created = created
    pipeline = card.pipelineClass
    pipelines = card.pipelines.map { .init(name: $0.text, ready: ready.contains($0)) }
    fingerprint = card.model.fingerprint
    license = card.license.isEmpty ? nil : card.license
    transparency = card.hasTransparency
    maxReferences = card.references.maxCount
    enhancePrompt = enhancesPrompts
    stepCaches = card.limits.denoiserBlocks != nil
    scheduleSteps = card.limits.scheduleSteps
    (samplers, schedules) = (card.samplers.map(\.rawValue), card.schedules.map(\.rawValue))
    self.ready = !ready.isEmpty
    limits = .init(
      sizeMultiple: card.limits.sizeMultiplePx, minSide: card.limits.minSidePx, maxSide: card.limits.maxSidePx,
      maxPixels: card.limits.maxPixels, maxSteps: card.limits.maxSteps, maxPromptBytes: card.limits.maxPromptBytes,
      maxPromptTokens: card.limits.maxPromptTokens)
    defaults = .init(
      size: card.defaults.size, steps: card.defaults.steps, trueCfgScale: card.defaults.trueCFGScale,
      negativePrompt: card.defaults.negativePrompt)
    recommendedSizes = card.recommendedSizes
  }
}

extension String {
  /// The text with `%XX` resolved; nil when that is not UTF-8.
  fileprivate func removingPercentEncoding() -> String? {
    var bytes: [UInt8] = []
    var rest = utf8[...]
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "%") else {
        bytes.append(byte)
        continue
      }
      guard rest.count >= 2, let value = UInt8(Substring(rest.prefix(2)), radix: 16) else { return nil }
      bytes.append(value)
      rest = rest.dropFirst(2)
    }
    return String(validating: bytes, as: UTF8.self)
  }
}
