import StrictJSON

extension Template {
  /// Makes the requests of all rows: for each row those of each size, for each size those of each language.
  ///
  /// - Parameter rows: as ``TemplateRow`` reads them.
  /// - Returns: ``TemplateLimits/requests`` at most; equal rows give equal requests, whatever rows follow.
  /// - Throws: ``RowProblems`` with everything that is wrong: then nothing is made.
  public func expanded(_ rows: [TemplateRow]) throws(RowProblems) -> [TemplateRequest] {
    let variants = max(sizes.count, 1) * max(languages.count, 1)
    guard rows.count * variants <= TemplateLimits.requests else {
      throw .one(
        "rows",
        "\(rows.count) rows in \(variants) sizes and languages are \(rows.count * variants) images, the limit is "
          + "\(TemplateLimits.requests)")
    }
    var expansion = Expansion(template: self)
    for row in rows {
      expansion.add(row)
      guard !expansion.isFull else { break }
    }
    guard expansion.problems.isEmpty else {
      throw RowProblems(
        problems: Array(expansion.problems.prefix(TemplateLimits.problems)),
        hasMore: expansion.problems.count > TemplateLimits.problems || expansion.isFull)
    }
    return expansion.requests
  }
}

/// Requests in the making.
private struct Expansion {
  let template: Template
  var requests: [TemplateRequest] = []
  var problems: [RowProblem] = []
  private let output: TemplateText?
  private let requiredWords: [WordText]
  private let forbiddenWords: [WordText]
  /// The rows of the names of files so far, without regard to case: file systems may have none.
  private var outputs: [String: Int] = [:]
  private var byteCount = 0

  init(template: Template) {
    self.template = template
    output = template.output ?? (try? TemplateText(OutputName.standard(template)))
    requiredWords = template.brand.requiredWords.map { WordText($0) }
    forbiddenWords = template.brand.forbiddenWords.map { WordText($0) }
  }

  /// Whether nothing more is looked at.
  var isFull: Bool { problems.count > TemplateLimits.problems || byteCount > TemplateLimits.requestBytes }

  private mutating func note(_ row: TemplateRow, _ column: String?, _ rule: String, _ reason: String) {
    let problem = RowProblem(row: row.number, line: row.line, column: column, rule: rule, reason: reason)
    // What is wrong in one size is wrong in all.
    if !problems.contains(problem) { problems.append(problem) }
  }

  /// Adds the requests of a row, or what is wrong with it.
  mutating func add(_ row: TemplateRow) {
    let before = problems.count
    checkValues(row)
    guard problems.count == before else { return }
    let sizes = template.sizes.isEmpty ? [nil] : template.sizes.map(Optional.some)
    let languages = template.languages.isEmpty ? [nil] : template.languages.map(Optional.some)
    for size in sizes {
      for language in languages {
        let prompts = prompts(row, language)
        checkPrompt(prompts.prompt, row, language)
        guard problems.count == before else { continue }
        append(row, size, language, prompts)
        guard byteCount <= TemplateLimits.requestBytes else {
          return note(row, nil, "rows", "all requests have more than \(TemplateLimits.requestBytes) bytes")
        }
      }
    }
  }

  // MARK: - Rules

  private mutating func checkValues(_ row: TemplateRow) {
    for slot in template.slots {
      let languages = slot.kind == .text ? template.languages.map(\.name) : []
      let translations = languages.map { "\(slot.name).\($0)" }
      if slot.isRequired, row.values[slot.name] == nil {
        let missing = translations.filter { row.values[$0] == nil }
        if translations.isEmpty || !missing.isEmpty {
          note(
            row, missing.count < translations.count ? missing[0] : slot.name, "slots.\(slot.name).required",
            "it is empty")
        }
      }
      for column in [slot.name] + translations {
        guard let value = row.values[column] else { continue }
        check(value, slot, row, column, isTranslation: column != slot.name)
      }
    }
  }

  private mutating func check(
    _ value: String, _ slot: Template.Slot, _ row: TemplateRow, _ column: String, isTranslation: Bool
  ) {
    var slot = slot
    let hasList = !slot.allowed.isEmpty
    // A translation stands for an allowed value, and is none itself.
    if isTranslation { slot.allowed = [] }
    if let problem = slot.problem(of: value) { note(row, column, "slots.\(slot.name).\(problem.rule)", problem.reason) }
    guard slot.kind == .text else { return }
    let count = value.unicodeScalars.count
    // Values that the template itself allows are its author's, and no row's.
    if let limit = template.brand.maxTextLength, count > limit, !hasList {
      note(row, column, "brand.max_text_length", "it has \(count) characters, the limit is \(limit)")
    }
    checkWords(value, row, column)
  }

  private mutating func checkPrompt(_ prompt: String, _ row: TemplateRow, _ language: Template.Language?) {
    let brand = template.brand, column = language.map { "prompt.\($0.name)" } ?? "prompt"
    if prompt.isEmpty { note(row, column, "prompt", "it is empty") }
    if prompt.utf8.count > TemplateLimits.promptBytes {
      note(row, column, "prompt", "it has \(prompt.utf8.count) bytes, the limit is \(TemplateLimits.promptBytes)")
    }
    let count = prompt.unicodeScalars.count
    if let limit = brand.maxPromptLength, count > limit {
      note(row, column, "brand.max_prompt_length", "it has \(count) characters, the limit is \(limit)")
    }
    let words = WordText(prompt)
    for word in requiredWords where !words.holds(word) {
      note(row, column, "brand.required_words", "it lacks the word \("\(word)".quoted)")
    }
    // In a slot's value it was found before, and the column named.
    checkWords(prompt, row, column)
  }

  private mutating func checkWords(_ text: String, _ row: TemplateRow, _ column: String) {
    guard !forbiddenWords.isEmpty else { return }
    let words = WordText(text)
    for word in forbiddenWords where words.holds(word) {
      note(row, column, "brand.forbidden_words", "it has the word \("\(word)".quoted)")
    }
  }

  // MARK: - Requests

  /// A slot's value for a row in a language: the row's for the language, else the language's word for the row's, else
  /// the row's, else the default.
  private func value(_ name: String, _ row: TemplateRow, _ language: Template.Language?) -> String {
    if let language, let own = row.values["\(name).\(language.name)"] { return own }
    let value = row.values[name] ?? template.slot(name)?.standard ?? ""
    return language?.words[name]?[value] ?? value
  }

  private func prompts(
    _ row: TemplateRow, _ language: Template.Language?
  ) -> (prompt: String, negative: String?) {
    let brand = template.brand, colours = language.map(\.colours).flatMap { $0.isEmpty ? nil : $0 } ?? brand.colours
    let text = (language?.prompt ?? template.prompt).filled { value($0, row, language) }
    let prompt =
      (language?.prefix ?? brand.prefix) + text
      + (colours.isEmpty ? "" : ", colours: " + colours.joined(separator: ", ")) + (language?.suffix ?? brand.suffix)
    let negative = (language?.negativePrompt ?? template.negativePrompt)?.filled { value($0, row, language) }
    return (prompt, negative)
  }

  private mutating func append(
    _ row: TemplateRow, _ size: Template.Size?, _ language: Template.Language?,
    _ prompts: (prompt: String, negative: String?)
  ) {
    guard let output else { return }
    // Names of files do not change with the language of a word: the language is a part of them.
    let name = OutputName.name(output, template, row: row.number, size: size?.name, language: language?.name) {
      row.values[$0] ?? value($0, row, language)
    }
    guard name.unicodeScalars.count <= TemplateLimits.outputLength else {
      return note(
        row, nil, "output",
        "\(name.prefix(40))… has \(name.unicodeScalars.count) characters, the limit is \(TemplateLimits.outputLength)")
    }
    let key = name.lowercased()
    guard !OutputName.reserved.contains(key), !key.hasPrefix("contact-sheet/"), !key.hasPrefix("index/") else {
      return note(row, nil, "output", "\(name) is the name of another file: contact-sheet.png or index.html")
    }
    if let other = outputs.updateValue(row.number, forKey: key) {
      return note(row, nil, "output", "\(name) is the name of a file of row \(other), too; {row} makes names differ")
    }
    var fields: JSONObject = ["prompt": .string(prompts.prompt)]
    if let negative = prompts.negative { fields["negative_prompt"] = .string(negative) }
    if let size { fields["size"] = .string("\(size.width)x\(size.height)") }
    fields["seed"] = JSON(template.seed.value(row: row.number))
    for (name, value) in template.fields { fields[name] = value }
    fields["tags"] = .array((["template:\(template.name)"] + template.tags).map { .string($0) })
    var metadata: JSONObject = ["template": .string(template.name), "row": .string("\(row.number)")]
    if let size { metadata["size"] = .string(size.name) }
    if let language { metadata["language"] = .string(language.name) }
    fields["metadata"] = .object(metadata)
    var request = TemplateRequest(
      row: row, size: size?.name, language: language?.name, output: name, fields: fields)
    request.files = template.inputs.compactMap { input in
      let values = input.slots.compactMap { row.values[$0] ?? template.slot($0)?.standard }.filter { !$0.isEmpty }
      return values.isEmpty ? nil : (input.field, values)
    }
    byteCount += prompts.prompt.utf8.count + (prompts.negative?.utf8.count ?? 0) + 512
    byteCount += request.files.reduce(0) { $0 + $1.values.reduce(0) { $0 + $1.utf8.count } }
    requests.append(request)
  }
}
