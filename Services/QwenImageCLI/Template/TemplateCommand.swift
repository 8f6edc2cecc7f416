import ArgumentParser
import Foundation
import StrictJSON
import Templates

/// `qwen-image template`: a table of rows, in all sizes and languages of a template.
struct TemplateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "template", abstract: "Make the images of a template for the rows of a table.",
    discussion: """
      A template is a YAML file: a prompt with slots, sizes, languages, fixed fields of the requests, and the rules of \
      a brand. Each row of a CSV file gives values for the slots. Everything is checked before anything is made.
      """,
    subcommands: [TemplateCheckCommand.self, TemplateExpandCommand.self, TemplateRunCommand.self])
}

/// The files of a template and its rows.
enum TemplateFile {
  /// Reads a template: `.yaml`, `.yml` or `.json`.
  static func template(_ path: String) throws -> Template {
    let text = try text(path, maxBytes: TemplateLimits.templateBytes)
    do {
      guard path.lowercased().hasSuffix(".json") else { return try Template(yaml: text) }
      return try Template(
        JSON(Array(text.utf8), maxDepth: TemplateLimits.depth, maxValues: TemplateLimits.values))
    } catch {
      throw OutputError(name: path, reason: "\(error)")
    }
  }

  /// Reads rows and makes the requests; what is wrong with rows is printed, a line for each.
  static func requests(_ template: Template, rows path: String) throws -> (rowCount: Int, requests: [TemplateRequest]) {
    let text = try text(path, maxBytes: TemplateLimits.tableBytes)
    do {
      let rows =
        path.lowercased().hasSuffix(".jsonl")
        ? try TemplateRow.rows(json: objects(text, path), for: template)
        : try TemplateRow.rows(csv: text, for: template)
      return (rows.count, try template.expanded(rows))
    } catch let failure as RowProblems {
      for problem in failure.problems { Terminal.note("\(path): \(problem)") }
      if failure.hasMore { Terminal.note("\(path): there are more problems") }
      throw ExitCode.failure
    }
  }

  private static func objects(_ text: String, _ path: String) throws -> [JSON] {
    var objects: [JSON] = []
    for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated()
    where !line.allSatisfy(\.isWhitespace) {
      do { objects.append(try JSON(Array(line.utf8), maxDepth: 4, maxValues: 1024)) } catch {
        throw OutputError(name: path, reason: "line \(index + 1): \(error)")
      }
    }
    return objects
  }

  private static func text(_ path: String, maxBytes: Int) throws -> String {
    let handle: FileHandle
    do { handle = try FileHandle(forReadingFrom: URL(filePath: path)) } catch {
      throw OutputError(name: path, reason: "it cannot be read")
    }
    let data = try handle.read(upToCount: maxBytes + 1) ?? Data()
    guard data.count <= maxBytes else { throw OutputError(name: path, reason: "it has more than \(maxBytes) bytes") }
    guard let text = String(validating: data, as: UTF8.self) else {
      throw OutputError(name: path, reason: "it is not UTF-8")
    }
    return text
  }

  /// - Throws: `ValidationError` when the names are those of other files.
  static func checkNames(template: String, rows: String?) throws(ValidationError) {
    guard ["yaml", "yml", "json"].contains(URL(filePath: template).pathExtension.lowercased()) else {
      throw ValidationError("\(template) must end with .yaml, .yml or .json")
    }
    if let rows, !["csv", "jsonl"].contains(URL(filePath: rows).pathExtension.lowercased()) {
      throw ValidationError("\(rows) must end with .csv or .jsonl")
    }
  }

  /// The requests as `qwen-image batch` takes them: a JSON object on each line.
  static func lines(_ requests: [TemplateRequest]) -> String {
    requests.map { String(decoding: $0.json(withOutput: true).bytes, as: UTF8.self) }.joined(separator: "\n")
  }
}

/// `qwen-image template check`.
struct TemplateCheckCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "check", abstract: "Check a template, and the rows for it; every problem has its row and column.")

  @Argument(help: "The template: .yaml, .yml or .json.")
  var template: String

  @Argument(help: "The rows: .csv, or .jsonl with a JSON object on each line.")
  var rows: String?

  @Flag(help: "Print the template and the numbers of rows and images as JSON.")
  var json = false

  func validate() throws { try TemplateFile.checkNames(template: template, rows: rows) }

  func run() throws {
    let template = try TemplateFile.template(template)
    let counts = try rows.map { try TemplateFile.requests(template, rows: $0) }.map { ($0.rowCount, $0.requests.count) }
    guard !json else {
      return try Terminal.printJSON(String(decoding: template.described(counts).bytes, as: UTF8.self))
    }
    for slot in template.slots {
      var notes = [slot.kind == .file ? "file" : slot.allowed.isEmpty ? "text" : slot.allowed.joined(separator: ", ")]
      if slot.isRequired { notes.append("required") }
      if let standard = slot.standard, !standard.isEmpty { notes.append("default \(standard)") }
      try Terminal.print(
        "\(slot.name): \(notes.joined(separator: "; "))" + (slot.summary.isEmpty ? "" : ": \(slot.summary)"))
    }
    for size in template.sizes { try Terminal.print("size \(size.name): \(size.width)x\(size.height)") }
    if !template.languages.isEmpty {
      try Terminal.print("languages: \(template.languages.map(\.name).joined(separator: ", "))")
    }
    if let (rows, images) = counts { try Terminal.print("\(rows) rows, \(images) images") }
  }
}

extension Template {
  /// What programs want to know of it.
  fileprivate func described(_ counts: (rows: Int, images: Int)?) -> JSON {
    let slots = slots.map { slot -> JSON in
      [
        "name": .string(slot.name), "kind": .string(slot.kind.rawValue), "required": .bool(slot.isRequired),
        "default": JSON(slot.standard), "allowed": .array(slot.allowed.map { .string($0) }),
        "max_length": JSON(slot.maxLength), "description": .string(slot.summary),
      ]
    }
    var members: JSONObject = ["name": .string(name), "description": .string(summary), "slots": .array(slots)]
    members["sizes"] = .array(
      sizes.map { ["name": .string($0.name), "width": JSON($0.width), "height": JSON($0.height)] })
    members["languages"] = .array(languages.map { .string($0.name) })
    if let counts { (members["rows"], members["images"]) = (JSON(counts.rows), JSON(counts.images)) }
    return .object(members)
  }
}

/// `qwen-image template expand`.
struct TemplateExpandCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "expand", abstract: "Print the requests of a template and its rows, as `qwen-image batch` takes them.",
    discussion: "Paths of images are those of the table: keep the JSONL file in the table's folder.")

  @Argument(help: "The template: .yaml, .yml or .json.")
  var template: String

  @Argument(help: "The rows: .csv, or .jsonl with a JSON object on each line.")
  var rows: String

  func validate() throws { try TemplateFile.checkNames(template: template, rows: rows) }

  func run() throws {
    let requests = try TemplateFile.requests(TemplateFile.template(template), rows: rows).requests
    try Terminal.printJSON(TemplateFile.lines(requests))
  }
}

/// `qwen-image template run`.
struct TemplateRunCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Make all images of a template and its rows, through a cluster.",
    discussion: """
      Images are named by the template's output, else by row, size and language. contact-sheet.png shows all of them, \
      index.html with their rows and prompts.

      The same command again continues where it stopped: images whose files are there are left out. After a change of \
      the template, name another folder or remove the files.
      """)

  @OptionGroup var gateway: GatewayOptions

  @Argument(help: "The template: .yaml, .yml or .json.")
  var template: String

  @Argument(help: "The rows: .csv, or .jsonl with a JSON object on each line; paths in it are relative to it.")
  var rows: String

  @Option(name: [.short, .customLong("output"), .customLong("output-directory")], help: "Where the images go.")
  var outputDirectory = "."

  @Option(parsing: .unconditional, help: "How many images are submitted and not yet done, from 1 to 64.")
  var concurrency = 8

  @Option(parsing: .unconditional, help: "Width and height of the contact sheet's cells in pixels, from 16 to 1024.")
  var cell = 192

  @Flag(help: "Print the requests and make nothing.")
  var dryRun = false

  @Flag(help: "Print a JSON object for each image that is done.")
  var json = false

  func validate() throws {
    try TemplateFile.checkNames(template: template, rows: rows)
    guard (1...64).contains(concurrency) else {
      throw ValidationError("--concurrency is \(concurrency); it must be from 1 to 64")
    }
    guard (16...1024).contains(cell) else { throw ValidationError("--cell is \(cell); it must be from 16 to 1024") }
  }

  func run() async throws {
    let template = try TemplateFile.template(template)
    let requests = try TemplateFile.requests(template, rows: rows).requests
    let lines = TemplateFile.lines(requests)
    guard !dryRun else { return try Terminal.printJSON(lines) }
    var batch = try BatchRow.rows(of: lines, isTable: false, name: rows)
    for index in batch.indices { batch[index].ownTitle = requests[index].title }
    let run = BatchRun(
      rows: batch, directory: URL(filePath: rows).deletingLastPathComponent(), outputDirectory: outputDirectory,
      concurrency: concurrency, json: json)
    let files = try await run(gateway)
    try TemplateReport(template: template, requests: requests, files: files, directory: outputDirectory, cell: cell)
      .write()
    guard files.count == requests.count else { throw ExitCode.failure }
  }
}
