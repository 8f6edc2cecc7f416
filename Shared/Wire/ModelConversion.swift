import CWire
import ClusterCore

extension ImageSize: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__ImageSize>) {
    qwenimage__v1__image_size__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) { try fields.size(self) }

  func fill(_ message: inout Qwenimage__V1__ImageSize, _ arena: CArena) {
    message.width_px = UInt32(widthPx)
    message.height_px = UInt32(heightPx)
  }

  init(_ message: Qwenimage__V1__ImageSize, _ fields: FieldCheck) {
    self.init(widthPx: Int(message.width_px), heightPx: Int(message.height_px))
  }
}

extension GenerationDefaults: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__GenerationDefaults>) {
    qwenimage__v1__generation_defaults__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try size.check(fields.inside("size"))
    try fields.range("steps", steps, 1...FieldCheck.maxSteps)
    try fields.finite("true_cfg_scale", trueCFGScale)
    try fields.text("negative_prompt", negativePrompt)
  }

  func fill(_ message: inout Qwenimage__V1__GenerationDefaults, _ arena: CArena) {
    message.size = size.pointer(arena)
    message.steps = UInt32(steps)
    message.true_cfg_scale = trueCFGScale
    message.negative_prompt = arena.text(negativePrompt)
  }

  init(_ message: Qwenimage__V1__GenerationDefaults, _ fields: FieldCheck) throws(WireError) {
    self.init(
      size: try .required(message.size, "size", of: fields), steps: Int(message.steps),
      trueCFGScale: message.true_cfg_scale,
      negativePrompt: String(field: message.negative_prompt))
  }
}

extension LatentGeometry: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__LatentGeometry>) {
    qwenimage__v1__latent_geometry__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.range("channels", channels, 1...4096)
    try fields.range("downscale", downscale, 1...256)
    try fields.range("patch", patch, 1...256)
  }

  func fill(_ message: inout Qwenimage__V1__LatentGeometry, _ arena: CArena) {
    message.channels = UInt32(channels)
    message.downscale = UInt32(downscale)
    message.patch = UInt32(patch)
  }

  init(_ message: Qwenimage__V1__LatentGeometry, _ fields: FieldCheck) {
    self.init(channels: Int(message.channels), downscale: Int(message.downscale), patch: Int(message.patch))
  }
}

extension ModelCard: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__ModelCard>) {
    qwenimage__v1__model_card__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("model_id", model.id)
    try fields.identifier("pipeline_class", pipelineClass)
    try fields.identifier("model_fingerprint", model.fingerprint)
    try limits.check(fields)
    try fields.list("recommended_sizes", recommendedSizes) { (element, size) throws(WireError) in
      try size.check(element)
    }
    try defaults.check(fields.inside("defaults"))
    try latents.check(fields.inside("latents"))
    try fields.list("pipelines", pipelines) { (_, _) throws(WireError) in }
    try fields.range("reference_area_px", references.referencePx, 1...FieldCheck.maxSidePx * FieldCheck.maxSidePx)
    try fields.range("condition_area_px", references.conditionPx, 1...FieldCheck.maxSidePx * FieldCheck.maxSidePx)
    try fields.range("max_references", references.maxCount, 1...fields.limits.maxListElements)
    try fields.label("license", license)
    try fields.list("samplers", samplers) { (_, _) throws(WireError) in }
    try fields.list("schedules", schedules) { (_, _) throws(WireError) in }
  }

  func fill(_ message: inout Qwenimage__V1__ModelCard, _ arena: CArena) {
    message.model_id = arena.text(model.id)
    message.pipeline_class = arena.text(pipelineClass)
    message.model_fingerprint = arena.text(model.fingerprint)
    limits.fill(&message)
    message.n_recommended_sizes = recommendedSizes.count
    message.recommended_sizes = arena.array(recommendedSizes.map { $0.pointer(arena) })
    message.defaults = defaults.pointer(arena)
    message.latents = latents.pointer(arena)
    message.n_pipelines = pipelines.count
    message.pipelines = arena.array(pipelines.map { arena.text($0.text) })
    message.reference_area_px = UInt64(references.referencePx)
    message.condition_area_px = UInt64(references.conditionPx)
    message.max_references = references.maxCount == ReferenceAreas.standardMaxCount ? 0 : UInt32(references.maxCount)
    message.license = arena.text(license)
    message.has_transparency = hasTransparency ? 1 : 0
    message.n_samplers = samplers.count
    message.samplers = arena.array(samplers.map { arena.text($0.rawValue) })
    message.n_schedules = schedules.count
    message.schedules = arena.array(schedules.map { arena.text($0.rawValue) })
  }

  init(_ message: Qwenimage__V1__ModelCard, _ fields: FieldCheck) throws(WireError) {
    self.init(
      model: ModelIdentity(id: String(field: message.model_id), fingerprint: String(field: message.model_fingerprint)),
      pipelineClass: String(field: message.pipeline_class), pipelines: try Self.pipelines(message, fields),
      limits: ModelLimits(message), defaults: try .required(message.defaults, "defaults", of: fields),
      recommendedSizes: try ImageSize.list(
        message.recommended_sizes, message.n_recommended_sizes, "recommended_sizes", of: fields),
      latents: try .required(message.latents, "latents", of: fields), references: ReferenceAreas(message))
    license = String(field: message.license)
    hasTransparency = message.has_transparency != 0
    readSampling(message)
  }

  /// Workers of 0.1 list none: they serve text-to-image.
  private static func pipelines(_ message: Qwenimage__V1__ModelCard, _ fields: FieldCheck) throws(WireError)
    -> [PipelineName]
  {
    guard message.n_pipelines > 0 else { return [.textToImage] }
    var pipelines: [PipelineName] = []
    for index in 0..<message.n_pipelines {
      let text = String(field: message.pipelines[index])
      guard let name = PipelineName(text) else {
        throw .notAName(field: fields.name("pipelines[\(index)]"), value: text)
      }
      pipelines.append(name)
    }
    return pipelines
  }
}

extension ReferenceAreas {
  /// Workers before 0.2 send none.
  fileprivate init(_ message: Qwenimage__V1__ModelCard) {
    func area(_ value: UInt64, _ published: Int) -> Int { value == 0 ? published : Int(clamping: value) }
    self.init(
      referencePx: area(message.reference_area_px, Self.published.referencePx),
      conditionPx: area(message.condition_area_px, Self.published.conditionPx),
      maxCount: message.max_references == 0 ? Self.standardMaxCount : Int(message.max_references))
  }
}

extension ModelLimits {
  fileprivate func check(_ fields: FieldCheck) throws(WireError) {
    try fields.range("size_multiple_px", sizeMultiplePx, 1...FieldCheck.maxSidePx)
    try fields.range("max_side_px", maxSidePx, 1...FieldCheck.maxSidePx)
    try fields.range("min_side_px", minSidePx, 1...maxSidePx)
    try fields.range("max_pixels", maxPixels, 1...FieldCheck.maxSidePx * FieldCheck.maxSidePx)
    try fields.range("max_steps", maxSteps, 1...FieldCheck.maxSteps)
    if let scheduleSteps { try fields.range("schedule_steps", scheduleSteps, 1...FieldCheck.maxSteps) }
    if let maxReferenceTokens { try fields.range("max_reference_tokens", maxReferenceTokens, 1...Int(Int32.max)) }
    if let denoiserBlocks { try fields.range("denoiser_blocks", denoiserBlocks, 1...FieldCheck.maxBlocks) }
    try fields.range("max_prompt_tokens", maxPromptTokens, 1...1_000_000)
    try fields.range("max_prompt_bytes", maxPromptBytes, 1...fields.limits.maxTextBytes)
  }

  fileprivate func fill(_ message: inout Qwenimage__V1__ModelCard) {
    message.size_multiple_px = UInt32(sizeMultiplePx)
    message.min_side_px = UInt32(minSidePx)
    message.max_side_px = UInt32(maxSidePx)
    message.max_pixels = UInt64(maxPixels)
    message.max_steps = UInt32(maxSteps)
    message.schedule_steps = UInt32(scheduleSteps ?? 0)
    message.max_reference_tokens = UInt32(maxReferenceTokens ?? 0)
    message.denoiser_blocks = UInt32(denoiserBlocks ?? 0)
    message.max_prompt_tokens = UInt32(maxPromptTokens)
    message.max_prompt_bytes = UInt32(maxPromptBytes)
  }

  fileprivate init(_ message: Qwenimage__V1__ModelCard) {
    self.init(
      sizeMultiplePx: Int(message.size_multiple_px), minSidePx: Int(message.min_side_px),
      maxSidePx: Int(message.max_side_px),
      maxPixels: Int(clamping: message.max_pixels), maxSteps: Int(message.max_steps),
      maxPromptTokens: Int(message.max_prompt_tokens), maxPromptBytes: Int(message.max_prompt_bytes),
      scheduleSteps: message.schedule_steps == 0 ? nil : Int(message.schedule_steps))
    maxReferenceTokens = message.max_reference_tokens == 0 ? nil : Int(message.max_reference_tokens)
    denoiserBlocks = message.denoiser_blocks == 0 ? nil : Int(message.denoiser_blocks)
  }
}

extension Parameter: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__Parameter>) {
    qwenimage__v1__parameter__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("name", name)
    switch value {
    case .number(let number): try fields.finite("number", number)
    case .text(let text): try fields.text("text", text)
    case .integer, .flag: break
    }
  }

  func fill(_ message: inout Qwenimage__V1__Parameter, _ arena: CArena) {
    message.name = arena.text(name)
    switch value {
    case .number(let number):
      message.value_case = QWENIMAGE__V1__PARAMETER__VALUE_NUMBER
      message.number = number
    case .integer(let integer):
      message.value_case = QWENIMAGE__V1__PARAMETER__VALUE_INTEGER
      message.integer = integer
    case .text(let text):
      message.value_case = QWENIMAGE__V1__PARAMETER__VALUE_TEXT
      message.text = arena.text(text)
    case .flag(let flag):
      message.value_case = QWENIMAGE__V1__PARAMETER__VALUE_FLAG
      message.flag = flag ? 1 : 0
    }
  }

  init(_ message: Qwenimage__V1__Parameter, _ fields: FieldCheck) throws(WireError) {
    let value: Value
    switch message.value_case {
    case QWENIMAGE__V1__PARAMETER__VALUE_NUMBER: value = .number(message.number)
    case QWENIMAGE__V1__PARAMETER__VALUE_INTEGER: value = .integer(message.integer)
    case QWENIMAGE__V1__PARAMETER__VALUE_TEXT: value = .text(String(field: message.text))
    case QWENIMAGE__V1__PARAMETER__VALUE_FLAG: value = .flag(message.flag != 0)
    default: throw .missing(field: fields.name("value"))
    }
    self.init(String(field: message.name), value)
  }
}

extension Status: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__Status>) {
    qwenimage__v1__status__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    guard code != .ok else { throw .outOfRange(field: fields.name("code"), value: "OK", allowed: "an error code") }
    try fields.reason("message", message)
    try fields.label("field", field ?? "")
  }

  func fill(_ message: inout Qwenimage__V1__Status, _ arena: CArena) {
    message.code = Qwenimage__V1__StatusCode(rawValue: UInt32(code.rawValue))
    message.message = arena.text(self.message)
    message.field = arena.text(field ?? "")
  }

  init(_ message: Qwenimage__V1__Status, _ fields: FieldCheck) throws(WireError) {
    let field = String(field: message.field)
    self.init(
      try enumeration(message.code.rawValue, "code", of: fields), String(field: message.message),
      field: field.isEmpty ? nil : field)
  }
}
