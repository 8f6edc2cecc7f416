import CWire
import ClusterCore

extension RunRequest: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__RunRequest>) {
    qwenimage__v1__run_request__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("model_id", modelID)
    try fields.list("parameters", parameters) { (element, parameter) throws(WireError) in try parameter.check(element) }
    try fields.range("steps", steps, 0...FieldCheck.maxSteps)
    try fields.range("first_step", firstStep, 0...steps)
    try fields.seconds("checkpoint_interval_seconds", checkpointIntervalSeconds)
  }

  func fill(_ message: inout Qwenimage__V1__RunRequest, _ arena: CArena) {
    message.stage = arena.text(stage.text)
    message.model_id = arena.text(modelID)
    message.n_parameters = parameters.count
    message.parameters = arena.array(parameters.map { $0.pointer(arena) })
    message.steps = UInt32(steps)
    message.first_step = UInt32(firstStep)
    message.checkpoint_interval_seconds = checkpointIntervalSeconds
  }

  init(_ message: Qwenimage__V1__RunRequest, _ fields: FieldCheck) throws(WireError) {
    let text = String(field: message.stage)
    guard let stage = StageName(text) else { throw .notAName(field: fields.name("stage"), value: text) }
    self.init(
      stage: stage, modelID: String(field: message.model_id),
      parameters: try Parameter.list(message.parameters, message.n_parameters, "parameters", of: fields),
      steps: Int(message.steps),
      firstStep: Int(message.first_step), checkpointIntervalSeconds: message.checkpoint_interval_seconds)
  }
}

extension RunResponse: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__RunResponse>) {
    qwenimage__v1__run_response__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.list("parameters", parameters) { (element, parameter) throws(WireError) in try parameter.check(element) }
    try fields.seconds("compute_seconds", computeSeconds)
  }

  func fill(_ message: inout Qwenimage__V1__RunResponse, _ arena: CArena) {
    message.n_parameters = parameters.count
    message.parameters = arena.array(parameters.map { $0.pointer(arena) })
    message.compute_seconds = computeSeconds
  }

  init(_ message: Qwenimage__V1__RunResponse, _ fields: FieldCheck) throws(WireError) {
    self.init(
      parameters: try Parameter.list(message.parameters, message.n_parameters, "parameters", of: fields),
      computeSeconds: message.compute_seconds)
  }
}

extension EncodeRequest: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__EncodeRequest>) {
    qwenimage__v1__encode_request__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("model_id", modelID)
    try fields.text("prompt", prompt)
    try fields.list("parameters", parameters) { (element, parameter) throws(WireError) in try parameter.check(element) }
    try fields.list("images", images) { (element, image) throws(WireError) in try image.check(element) }
  }

  func fill(_ message: inout Qwenimage__V1__EncodeRequest, _ arena: CArena) {
    message.model_id = arena.text(modelID)
    message.prompt = arena.text(prompt)
    message.n_parameters = parameters.count
    message.parameters = arena.array(parameters.map { $0.pointer(arena) })
    message.template_ = Qwenimage__V1__PromptTemplate(rawValue: UInt32(template.rawValue))
    message.n_images = images.count
    message.images = arena.array(images.map { $0.pointer(arena) })
  }

  init(_ message: Qwenimage__V1__EncodeRequest, _ fields: FieldCheck) throws(WireError) {
    self.init(
      modelID: String(field: message.model_id), prompt: String(field: message.prompt),
      parameters: try Parameter.list(message.parameters, message.n_parameters, "parameters", of: fields),
      template: try enumeration(message.template_.rawValue, "template", of: fields),
      images: try PreparedImage.list(message.images, message.n_images, "images", of: fields))
  }
}

extension EncodeResponse: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__EncodeResponse>) {
    qwenimage__v1__encode_response__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.range("prompt_tokens", promptTokens, 0...1_000_000)
    try fields.seconds("compute_seconds", computeSeconds)
  }

  func fill(_ message: inout Qwenimage__V1__EncodeResponse, _ arena: CArena) {
    message.prompt_tokens = UInt32(promptTokens)
    message.compute_seconds = computeSeconds
  }

  init(_ message: Qwenimage__V1__EncodeResponse, _ fields: FieldCheck) {
    self.init(
      promptTokens: Int(message.prompt_tokens), computeSeconds: message.compute_seconds)
  }
}

extension DenoiseRequest: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__DenoiseRequest>) {
    qwenimage__v1__denoise_request__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("model_id", modelID)
    try fields.size(size)
    try fields.range("steps", steps, 1...FieldCheck.maxSteps)
    try fields.finite("true_cfg_scale", trueCFGScale)
    try fields.range("start_step", startStep, 0...(steps - 1))
    try fields.range("first_step", firstStep, 0...(steps - startStep - 1))
    try fields.seconds("checkpoint_interval_seconds", checkpointIntervalSeconds)
    try fields.list("parameters", parameters) { (element, parameter) throws(WireError) in try parameter.check(element) }
    try fields.list("references", references) { (element, size) throws(WireError) in try size.check(element) }
    try fields.range("preceding_draws", precedingDraws, 0...FieldCheck.maxDraws)
    try mask?.check(fields.inside("mask"))
    try fields.list("controls", controls) { (element, control) throws(WireError) in try control.check(element) }
    try fields.range("layers", layers, 0...FieldCheck.maxLayers)
    try fields.range("branch", branch, 0...1)
    try fields.list("sigmas", sigmas) { (_, _) throws(WireError) in }
    for (index, sigma) in sigmas.enumerated() where !(sigma > 0 && sigma <= 1) {
      throw .outOfRange(
        field: fields.name("sigmas[\(index)]"), value: "\(sigma)", allowed: "above 0 and at most 1")
    }
    try fields.list("adapters", adapters) { (element, adapter) throws(WireError) in try adapter.check(element) }
    try sampling.check(fields.inside("sampling"), steps: steps, hasSigmas: !sigmas.isEmpty)
    guard noise == requiredNoise else {
      throw .outOfRange(field: fields.name("noise"), value: "\(noise)", allowed: "\(requiredNoise)")
    }
    try cache?.check(fields.inside("cache"))
    guard sigmas.isEmpty || sigmas.count == steps else {
      throw .outOfRange(field: fields.name("sigmas"), value: "\(sigmas.count) numbers", allowed: "\(steps), like steps")
    }
  }

  func fill(_ message: inout Qwenimage__V1__DenoiseRequest, _ arena: CArena) {
    message.model_id = arena.text(modelID)
    message.width_px = UInt32(size.widthPx)
    message.height_px = UInt32(size.heightPx)
    message.steps = UInt32(steps)
    message.true_cfg_scale = trueCFGScale
    message.seed = seed
    message.noise = Qwenimage__V1__NoiseKind(rawValue: UInt32(noise.rawValue))
    message.first_step = UInt32(firstStep)
    message.checkpoint_interval_seconds = checkpointIntervalSeconds
    message.n_parameters = parameters.count
    message.parameters = arena.array(parameters.map { $0.pointer(arena) })
    message.n_references = references.count
    message.references = arena.array(references.map { $0.pointer(arena) })
    message.start_step = UInt32(startStep)
    message.preceding_draws = UInt32(precedingDraws)
    message.mask = mask?.pointer(arena)
    message.n_controls = controls.count
    message.controls = arena.array(controls.map { $0.pointer(arena) })
    message.layers = UInt32(layers)
    message.n_sigmas = sigmas.count
    message.sigmas = arena.array(sigmas)
    message.n_adapters = adapters.count
    message.adapters = arena.array(adapters.map { $0.pointer(arena) })
    if sampling != .standard { message.sampling = sampling.pointer(arena) }
    message.branch = UInt32(branch)
    message.cache = cache?.pointer(arena)
  }

  init(_ message: Qwenimage__V1__DenoiseRequest, _ fields: FieldCheck) throws(WireError) {
    self.init(
      modelID: String(field: message.model_id),
      size: ImageSize(widthPx: Int(message.width_px), heightPx: Int(message.height_px)),
      steps: Int(message.steps), trueCFGScale: message.true_cfg_scale, seed: message.seed,
      noise: try enumeration(message.noise.rawValue, "noise", of: fields), firstStep: Int(message.first_step),
      checkpointIntervalSeconds: message.checkpoint_interval_seconds,
      parameters: try Parameter.list(message.parameters, message.n_parameters, "parameters", of: fields))
    references = try ImageSize.list(message.references, message.n_references, "references", of: fields)
    startStep = Int(message.start_step)
    precedingDraws = Int(message.preceding_draws)
    mask = try .optional(message.mask, "mask", of: fields)
    controls = try ControlReference.list(message.controls, message.n_controls, "controls", of: fields)
    layers = Int(message.layers)
    sigmas = (0..<message.n_sigmas).map { message.sigmas[$0] }
    cache = try message.cache.map { cache throws(WireError) in
      try StepCache.required(cache, "cache", of: fields)
    }
    adapters = try ChosenAdapter.list(message.adapters, message.n_adapters, "adapters", of: fields)
    if let pointer = message.sampling { sampling = try .required(pointer, "sampling", of: fields) }
    branch = Int(message.branch)
  }
}

extension Exchange: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__Exchange>) {
    qwenimage__v1__exchange__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    let isNumbered = kind == .state || kind == .velocity
    try fields.range("call", call, isNumbered ? 1...Int(UInt32.max) : 0...0)
    try fields.range("step", step, 0...(kind == .state ? FieldCheck.maxSteps : 0))
  }

  func fill(_ message: inout Qwenimage__V1__Exchange, _ arena: CArena) {
    message.kind = Qwenimage__V1__ExchangeKind(rawValue: UInt32(kind.rawValue))
    message.call = UInt32(call)
    message.step = UInt32(step)
  }

  init(_ message: Qwenimage__V1__Exchange, _ fields: FieldCheck) throws(WireError) {
    self.init(
      try enumeration(message.kind.rawValue, "kind", of: fields), call: Int(message.call), step: Int(message.step))
  }
}

extension Progress: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__Progress>) {
    qwenimage__v1__progress__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.range("steps", steps, 1...FieldCheck.maxSteps)
    try fields.range("completed_steps", completedSteps, 1...steps)
    try fields.range("checkpoint_steps", checkpointSteps, 0...completedSteps)
    try fields.seconds("step_seconds", stepSeconds)
  }

  func fill(_ message: inout Qwenimage__V1__Progress, _ arena: CArena) {
    message.completed_steps = UInt32(completedSteps)
    message.steps = UInt32(steps)
    message.step_seconds = stepSeconds
    message.checkpoint_steps = UInt32(checkpointSteps)
  }

  init(_ message: Qwenimage__V1__Progress, _ fields: FieldCheck) {
    self.init(
      completedSteps: Int(message.completed_steps), steps: Int(message.steps), stepSeconds: message.step_seconds)
    checkpointSteps = Int(message.checkpoint_steps)
  }
}

extension DenoiseResponse: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__DenoiseResponse>) {
    qwenimage__v1__denoise_response__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.range("steps", steps, 1...FieldCheck.maxSteps)
    try fields.seconds("compute_seconds", computeSeconds)
  }

  func fill(_ message: inout Qwenimage__V1__DenoiseResponse, _ arena: CArena) {
    message.steps = UInt32(steps)
    message.compute_seconds = computeSeconds
  }

  init(_ message: Qwenimage__V1__DenoiseResponse, _ fields: FieldCheck) {
    self.init(steps: Int(message.steps), computeSeconds: message.compute_seconds)
  }
}

extension TextEntry: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__TextEntry>) {
    qwenimage__v1__text_entry__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("keyword", keyword)
    try fields.text("keyword", keyword, maxBytes: 79)
    try fields.text("text", text)
  }

  func fill(_ message: inout Qwenimage__V1__TextEntry, _ arena: CArena) {
    message.keyword = arena.text(keyword)
    message.text = arena.text(text)
  }

  init(_ message: Qwenimage__V1__TextEntry, _ fields: FieldCheck) {
    self.init(keyword: String(field: message.keyword), text: String(field: message.text))
  }
}

extension DecodeRequest: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__DecodeRequest>) {
    qwenimage__v1__decode_request__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("model_id", modelID)
    try fields.size(size)
    try fields.list("text_entries", textEntries) { (element, entry) throws(WireError) in try entry.check(element) }
    try fields.list("parameters", parameters) { (element, parameter) throws(WireError) in try parameter.check(element) }
    try overlay?.check(fields.inside("overlay"))
    try fields.range("layers", layers, 0...FieldCheck.maxLayers)
    try fields.range("quality", quality, 0...FieldCheck.maxQuality)
  }

  func fill(_ message: inout Qwenimage__V1__DecodeRequest, _ arena: CArena) {
    message.model_id = arena.text(modelID)
    message.width_px = UInt32(size.widthPx)
    message.height_px = UInt32(size.heightPx)
    message.format = Qwenimage__V1__ImageFormat(rawValue: UInt32(format.rawValue))
    message.n_text_entries = textEntries.count
    message.text_entries = arena.array(textEntries.map { $0.pointer(arena) })
    message.n_parameters = parameters.count
    message.parameters = arena.array(parameters.map { $0.pointer(arena) })
    message.overlay = overlay?.pointer(arena)
    message.layers = UInt32(layers)
    message.background = Qwenimage__V1__Background(rawValue: UInt32(background.rawValue))
    message.quality = UInt32(quality)
  }

  init(_ message: Qwenimage__V1__DecodeRequest, _ fields: FieldCheck) throws(WireError) {
    self.init(
      modelID: String(field: message.model_id),
      size: ImageSize(widthPx: Int(message.width_px), heightPx: Int(message.height_px)),
      format: try enumeration(message.format.rawValue, "format", of: fields),
      textEntries: try TextEntry.list(message.text_entries, message.n_text_entries, "text_entries", of: fields),
      parameters: try Parameter.list(message.parameters, message.n_parameters, "parameters", of: fields))
    overlay = try message.overlay.map { overlay throws(WireError) in
      try Overlay.required(overlay, "overlay", of: fields)
    }
    layers = Int(message.layers)
    background = try enumeration(message.background.rawValue, "background", of: fields)
    quality = Int(message.quality)
  }
}

extension DecodeResponse: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__DecodeResponse>) {
    qwenimage__v1__decode_response__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("media_type", mediaType)
    try fields.size(size)
    try fields.seconds("compute_seconds", computeSeconds)
  }

  func fill(_ message: inout Qwenimage__V1__DecodeResponse, _ arena: CArena) {
    message.media_type = arena.text(mediaType)
    message.width_px = UInt32(size.widthPx)
    message.height_px = UInt32(size.heightPx)
    message.compute_seconds = computeSeconds
  }

  init(_ message: Qwenimage__V1__DecodeResponse, _ fields: FieldCheck) {
    self.init(
      mediaType: String(field: message.media_type),
      size: ImageSize(widthPx: Int(message.width_px), heightPx: Int(message.height_px)),
      computeSeconds: message.compute_seconds)
  }
}
