import StrictJSON

extension Template.Slot {
  init(_ member: TemplateNode.Member) throws(TemplateError) {
    name = member.key
    // A slot of which nothing is said.
    if member.value.value == .null {
      isRequired = true
      return
    }
    var fields = try TemplateFields(member.value, "slots.\(member.key)")
    if let text = try fields.text("kind", length: 0...64) {
      guard let kind = Kind(rawValue: text) else {
        throw fields.failure("kind", "it is \(text.quoted), but must be text or file")
      }
      self.kind = kind
    }
    maxLength = try fields.integer("max_length", in: 1...TemplateLimits.textLength) ?? TemplateLimits.textLength
    allowed = try fields.texts("allowed", maxCount: TemplateLimits.words, length: 1...TemplateLimits.textLength)
    standard = try fields.text("default", length: 0...TemplateLimits.textLength)
    isRequired = try fields.bool("required") ?? (standard == nil)
    summary = try fields.text("description", length: 0...TemplateLimits.descriptionLength, isLine: false) ?? ""
    try fields.refuseOthers()
    if isRequired, standard != nil { throw fields.failure("default", "a required slot has none") }
    if !isRequired, standard == nil {
      // An image that may be left out needs no default; a text that may be left out is empty.
      if kind == .text { standard = "" }
    }
    if kind == .file, !allowed.isEmpty { throw fields.failure("allowed", "it is for slots of kind text") }
    if let standard, !standard.isEmpty, let problem = problem(of: standard) {
      throw fields.failure("default", problem.reason)
    }
  }

  /// What is wrong with a value: the member that has the rule, and a sentence.
  func problem(of value: String) -> (rule: String, reason: String)? {
    if !allowed.isEmpty, !allowed.contains(value) {
      return ("allowed", "\(value.prefix(40).quoted) is none of \(allowed.joined(separator: ", "))")
    }
    guard kind == .text else {
      // A path, or a data URL of megabytes.
      return value.utf8.contains { $0 < 0x20 } ? ("kind", "it has control characters") : nil
    }
    let count = value.unicodeScalars.count
    guard count <= maxLength else { return ("max_length", "it has \(count) characters, the limit is \(maxLength)") }
    guard value.unicodeScalars.allSatisfy({ $0.properties.generalCategory != .control }) else {
      return ("kind", "it has control characters")
    }
    return nil
  }
}

extension Template.Language {
  init(_ member: TemplateNode.Member, _ slots: [Template.Slot]) throws(TemplateError) {
    name = member.key
    if member.value.value == .null { return }
    var fields = try TemplateFields(member.value, "languages.\(member.key)")
    prompt = try fields.pattern("prompt")
    negativePrompt = try fields.pattern("negative_prompt")
    prefix = try fields.text("prefix", length: 0...TemplateLimits.textLength)
    suffix = try fields.text("suffix", length: 0...TemplateLimits.textLength)
    colours = try fields.texts("colours", maxCount: 16, length: 1...64)
    if var lists = try fields.fields("words") {
      for slot in slots where slot.kind == .text {
        guard var list = try lists.fields(slot.name) else { continue }
        words[slot.name] = try list.allTexts(maxCount: TemplateLimits.words, length: 1...TemplateLimits.textLength)
      }
      try lists.refuseOthers()
    }
    try fields.refuseOthers()
  }
}

extension Template.Seed {
  /// A number: for all images; `row`: each row's number; `{ row: BASE }`: with a number added.
  init?(_ fields: inout TemplateFields) throws(TemplateError) {
    guard let node = fields.node("seed") else { return nil }
    switch node.value {
    case .scalar("row", _): self = .row(base: 0)
    case .scalar:
      guard let seed = try fields.integer("seed", in: 0...(1 << 52)) else { return nil }
      self = .fixed(seed)
    default:
      guard var members = try fields.fields("seed"), let base = try members.integer("row", in: 0...(1 << 52)) else {
        throw fields.failure("seed", "it must be a number, row, or a mapping with the member row")
      }
      try members.refuseOthers()
      self = .row(base: base)
    }
  }

  /// Of the images of a row.
  func value(row: Int) -> Int {
    switch self {
    case .fixed(let seed): seed
    case .row(let base): base + row
    }
  }
}

extension Template.Brand {
  init(_ fields: inout TemplateFields) throws(TemplateError) {
    let length = 1...64
    prefix = try fields.text("prefix", length: 0...TemplateLimits.textLength) ?? ""
    suffix = try fields.text("suffix", length: 0...TemplateLimits.textLength) ?? ""
    colours = try fields.texts("colours", maxCount: 16, length: length)
    requiredWords = try fields.texts("required_words", maxCount: TemplateLimits.words, length: length)
    forbiddenWords = try fields.texts("forbidden_words", maxCount: TemplateLimits.words, length: length)
    maxTextLength = try fields.integer("max_text_length", in: 1...TemplateLimits.textLength)
    maxPromptLength = try fields.integer("max_prompt_length", in: 1...TemplateLimits.promptBytes)
    try fields.refuseOthers()
  }
}

extension Template {
  private enum FieldKind { case text, integer, number, flag, list, adapters }

  /// The fields of the API that a template may fix. Others are its own (prompt, size, seed, images, tags), one client's
  /// (keys, webhooks), or about answers (streams).
  private static let fieldKinds: [(name: String, kind: FieldKind)] = [
    ("model", .text), ("pipeline", .text), ("steps", .integer), ("num_inference_steps", .integer),
    ("true_cfg_scale", .number), ("strength", .number), ("sigmas", .list), ("n", .integer),
    ("sampler", .text), ("schedule", .text), ("cfg_steps", .integer),
    ("output_format", .text), ("output_compression", .integer), ("background", .text), ("output_resolution", .integer),
    ("control_scale", .number), ("control_start", .number), ("control_end", .number), ("layers", .integer),
    ("padding_mask_crop", .integer), ("mask_blur", .number), ("paste_back", .flag), ("priority", .text),
    ("timeout_seconds", .number), ("cache", .text), ("loras", .adapters),
  ]

  /// Reads `request`: fields of the API, which checks their values.
  static func requestFields(_ fields: inout TemplateFields) throws(TemplateError) -> JSONObject {
    guard var members = try fields.fields("request") else { return [:] }
    var result: JSONObject = [:]
    for (name, kind) in fieldKinds {
      guard let node = members.node(name) else { continue }
      result[name] = try value(node, kind, members.failure(name, "it must be \(expected(kind)), not \(node.kind)"))
    }
    try members.refuseOthers()
    return result
  }

  private static func expected(_ kind: FieldKind) -> String {
    switch kind {
    case .text: "a text"
    case .integer: "an integer"
    case .number: "a number"
    case .flag: "true or false"
    case .list: "a list of numbers"
    case .adapters: "a list of mappings with name and scale"
    }
  }

  private static func value(
    _ node: TemplateNode, _ kind: FieldKind, _ failure: TemplateError
  ) throws(TemplateError) -> JSON {
    switch (kind, node.value) {
    case (.text, .scalar(let text, _)) where text.unicodeScalars.count <= 256: return .string(text)
    case (.integer, .scalar(let text, isPlain: true)):
      guard let value = Int(text) else { throw failure }
      return JSON(value)
    case (.number, .scalar(let text, isPlain: true)):
      guard let value = Double(text), value.isFinite else { throw failure }
      return JSON(value)
    case (.flag, .scalar("true", isPlain: true)): return true
    case (.flag, .scalar("false", isPlain: true)): return false
    case (.list, .sequence(let elements)) where elements.count <= 1000:
      return .array(
        try elements.map { (element) throws(TemplateError) in try Self.value(element, .number, failure) })
    case (.adapters, .sequence(let elements)) where elements.count <= 16:
      return .array(
        try elements.map { (element) throws(TemplateError) in
          guard case .mapping(let members) = element.value else { throw failure }
          var adapter: JSONObject = [:]
          for member in members {
            guard let kind = adapterKinds[member.key] else { throw failure }
            adapter[member.key] = try value(member.value, kind, failure)
          }
          return .object(adapter)
        })
    default: throw failure
    }
  }

  /// The members of an adapter.
  private static let adapterKinds: [String: FieldKind] = ["name": .text, "scale": .number, "sha256": .text]
}
