import StrictJSON

extension Template {
  /// Reads a template in YAML.
  ///
  /// - Throws: ``TemplateError`` with line and member.
  public init(yaml: String) throws(TemplateError) {
    try self.init(YAMLReader.document(yaml))
  }

  /// Reads a template in JSON: the same members.
  ///
  /// - Parameter json: within the caller's limits of depth and number of values.
  /// - Throws: ``TemplateError`` with the member.
  public init(_ json: JSON) throws(TemplateError) {
    try self.init(TemplateNode(json))
  }

  private init(_ node: TemplateNode) throws(TemplateError) {
    var fields = try TemplateFields(node)
    name = try Self.name(&fields)
    summary = try fields.text("description", length: 0...TemplateLimits.descriptionLength, isLine: false) ?? ""
    slots = try Self.slots(&fields)
    let isTranslated = try fields.node("languages").map { (node) throws(TemplateError) in
      try TemplateFields(node, "languages").named(maxCount: TemplateLimits.languages)
    }
    if let prompt = try fields.pattern("prompt") {
      self.prompt = prompt
    } else if isTranslated != nil {
      // Each language has its own; what lacks one is refused below.
      do { prompt = try TemplateText("") } catch { throw fields.failure("prompt", error.reason) }
    } else {
      throw fields.failure("prompt", "it is missing")
    }
    negativePrompt = try fields.pattern("negative_prompt")
    sizes = try Self.sizes(&fields)
    languages = try (isTranslated ?? []).map { (member) throws(TemplateError) in try Language(member, slots) }
    inputs = try Self.inputs(&fields, slots)
    self.fields = try Self.requestFields(&fields)
    if let seed = try Seed(&fields) { self.seed = seed }
    if var members = try fields.fields("brand") { brand = try Brand(&members) }
    output = try fields.pattern("output", maxBytes: 512)
    tags = try fields.texts("tags", maxCount: TemplateLimits.tags, length: 1...64)
    try fields.refuseOthers()
    try checkPrompts(fields)
    try checkOutput(fields)
  }

  private static func name(_ fields: inout TemplateFields) throws(TemplateError) -> String {
    guard let name = try fields.text("name", length: 0...1024) else { throw fields.failure("name", "it is missing") }
    guard TemplateName.isValid(name) else {
      throw fields.failure("name", "\(name.prefix(60).quoted) is no name: \(TemplateName.rule)")
    }
    return name
  }

  private static func slots(_ fields: inout TemplateFields) throws(TemplateError) -> [Slot] {
    guard let members = try fields.fields("slots")?.named(maxCount: TemplateLimits.slots) else { return [] }
    return try members.map { (member) throws(TemplateError) in
      guard !OutputName.ownNames.contains(member.key) else {
        throw TemplateError(
          line: member.line, path: "slots.\(member.key)",
          "names of files use \(OutputName.ownNames.sorted().joined(separator: ", ")) for what is not a slot")
      }
      return try Slot(member)
    }
  }

  private static func sizes(_ fields: inout TemplateFields) throws(TemplateError) -> [Size] {
    guard let members = try fields.fields("sizes")?.named(maxCount: TemplateLimits.sizes) else { return [] }
    return try members.map { (member) throws(TemplateError) in
      let parts: [Substring]
      if case .scalar(let text, _) = member.value.value { parts = text.split(separator: "x") } else { parts = [] }
      guard parts.count == 2, let width = Int(parts[0]), let height = Int(parts[1]), (1...65_535).contains(width),
        (1...65_535).contains(height)
      else {
        throw TemplateError(
          line: member.line, path: "sizes.\(member.key)", "it must be WIDTHxHEIGHT in pixels, such as 1328x1328")
      }
      return Size(name: member.key, width: width, height: height)
    }
  }

  /// The fields of requests that are images.
  public static let inputFields = ["image", "mask", "control_image"]

  private static func inputs(
    _ fields: inout TemplateFields, _ slots: [Slot]
  ) throws(TemplateError) -> [Input] {
    guard var members = try fields.fields("inputs") else { return [] }
    var inputs: [Input] = []
    for field in inputFields {
      let names = try members.texts(field, maxCount: 16, length: 1...TemplateLimits.nameLength)
      for name in names where !slots.contains(where: { $0.name == name && $0.kind == .file }) {
        throw members.failure(field, "there is no slot \(name.quoted) of kind file")
      }
      if !names.isEmpty { inputs.append(Input(field: field, slots: names)) }
    }
    try members.refuseOthers()
    return inputs
  }

  private func checkPrompts(_ fields: TemplateFields) throws(TemplateError) {
    var prompts: [(path: String, text: TemplateText)] = []
    if !prompt.parts.isEmpty || languages.isEmpty { prompts.append(("prompt", prompt)) }
    if let negativePrompt { prompts.append(("negative_prompt", negativePrompt)) }
    for language in languages {
      if let text = language.prompt {
        prompts.append(("languages.\(language.name).prompt", text))
      } else if prompt.parts.isEmpty {
        throw fields.failure("languages", "\(language.name) has no prompt, and the template has none")
      }
      if let text = language.negativePrompt { prompts.append(("languages.\(language.name).negative_prompt", text)) }
    }
    for (path, text) in prompts {
      let key = String(path.prefix { $0 != "." })
      for name in text.slots where slot(name)?.kind != .text {
        let names = slots.filter { $0.kind == .text }.map(\.name)
        throw fields.failure(
          key,
          (path == key ? "" : "\(path): ")
            + "there is no slot \(name.quoted) of kind text; there are: \(names.joined(separator: ", "))")
      }
    }
    let used = Set(prompts.flatMap(\.text.slots)).union(inputs.flatMap(\.slots)).union(output?.slots ?? [])
    for slot in slots where !used.contains(slot.name) {
      throw fields.failure("slots", "\(slot.name) is used nowhere: neither in a prompt, an input nor in output")
    }
  }

  private func checkOutput(_ fields: TemplateFields) throws(TemplateError) {
    guard let output else { return }
    if let reason = OutputName.problem(of: output, in: self) { throw fields.failure("output", reason) }
  }
}
