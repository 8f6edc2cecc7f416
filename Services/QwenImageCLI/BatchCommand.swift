import ArgumentParser
import Foundation
import ImageCodec

/// `qwen-image batch`: an image, or several, for each row of a file.
struct BatchCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "batch", abstract: "Make images for the rows of a CSV or JSONL file, through a cluster.",
    discussion: """
      The columns of a CSV file, or the members of the objects of a JSONL file, are fields of the gateway's API: \
      prompt, size, seed, steps … Of image, mask and control_image they are paths, relative to the file; several are \
      separated by semicolons (in JSONL: an array). A column output names the image's file; otherwise the row's number \
      does.

      The same command again continues where it stopped: rows whose files are there are left out, and a row that was \
      submitted before is the same job. A row that fails is reported, and the others are made all the same.
      """)

  @OptionGroup var gateway: GatewayOptions

  @Argument(help: "The file: .csv, or .jsonl with a JSON object on each line.")
  var file: String

  @Option(name: [.short, .long], help: "Where the images go.")
  var outputDirectory = "."

  @Option(parsing: .unconditional, help: "How many rows are submitted and not yet done, from 1 to 64.")
  var concurrency = 8

  @Flag(help: "Print a JSON object for each row that is done.")
  var json = false

  func validate() throws {
    guard (1...64).contains(concurrency) else {
      throw ValidationError("--concurrency is \(concurrency); it must be from 1 to 64")
    }
    guard ["csv", "jsonl"].contains(URL(filePath: file).pathExtension.lowercased()) else {
      throw ValidationError("\(file) must end with .csv or .jsonl")
    }
  }

  func run() async throws {
    let rows = try rows()
    try OutputDirectory.make(outputDirectory)
    let work = Task { try await gateway.withClient { try await make(rows, $0) } }
    let interruption = Interruption { work.cancel() }
    do {
      let failed = try await work.value
      guard failed == 0 else { throw ExitCode.failure }
    } catch is CancellationError where interruption.isInterrupted {
      Terminal.note("interrupted; the same command again continues from here")
      throw ExitCode(Interruption.exitStatus)
    }
  }

  private func rows() throws -> [BatchRow] {
    let handle: FileHandle
    do { handle = try FileHandle(forReadingFrom: URL(filePath: file)) } catch {
      throw OutputError(name: file, reason: "it cannot be read")
    }
    let data = try handle.read(upToCount: BatchRow.maxBytes + 1) ?? Data()
    guard data.count <= BatchRow.maxBytes else {
      throw OutputError(name: file, reason: "it has more than \(BatchRow.maxBytes) bytes")
    }
    guard let text = String(validating: data, as: UTF8.self) else {
      throw OutputError(name: file, reason: "it is not UTF-8")
    }
    return try BatchRow.rows(of: text, isTable: file.lowercased().hasSuffix(".csv"), name: file)
  }

  /// Makes all rows, so many at a time. Returns how many have failed.
  private func make(_ rows: [BatchRow], _ client: GatewayClient) async throws -> Int {
    var progress = ProgressBar(), counts = (done: 0, failed: 0)
    defer { progress.finish() }
    let width = "\(rows.count)".count, start = ContinuousClock.now
    try await withThrowingTaskGroup(of: Outcome.self) { group in
      var waiting = rows[...]
      func submitNext() {
        guard let row = waiting.popFirst() else { return }
        group.addTask { try await make(row, width: width, client) }
      }
      for _ in 0..<concurrency { submitNext() }
      while let outcome = try await group.next() {
        progress.finish()
        try report(outcome, &counts)
        submitNext()
        let ended = counts.done + counts.failed, seconds = (ContinuousClock.now - start) / .seconds(1)
        progress.show(
          counts.failed == 0 ? "images" : "images (\(counts.failed) failed)", completed: ended, total: rows.count,
          secondsLeft: seconds / Double(ended) * Double(rows.count - ended))
      }
    }
    progress.finish()
    if counts.failed > 0 { Terminal.note("\(counts.failed) of \(rows.count) rows have failed") }
    return counts.failed
  }

  private enum Outcome: Sendable {
    /// The row's files are there; job: that has made them, if they were not there before.
    case done(row: Int, files: [String], job: String?)
    case failed(row: Int, line: Int, reason: String)
  }

  private struct Report: Encodable {
    var row: Int
    var files: [String]?
    var job: String?
    var error: String?
  }

  private func report(_ outcome: Outcome, _ counts: inout (done: Int, failed: Int)) throws {
    switch outcome {
    case .done(let row, let files, let job):
      counts.done += 1
      if json { return try printJSON(Report(row: row, files: files, job: job)) }
      if job != nil { for file in files { try Terminal.print(file) } }
    case .failed(let row, let line, let reason):
      counts.failed += 1
      if json { return try printJSON(Report(row: row, error: reason)) }
      Terminal.note("row \(row) (line \(line)): \(reason)")
    }
  }

  private func printJSON(_ report: Report) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    try Terminal.printJSON(String(decoding: try encoder.encode(report), as: UTF8.self))
  }

  /// Makes the images of a row, unless they are there.
  private func make(_ row: BatchRow, width: Int, _ client: GatewayClient) async throws -> Outcome {
    let number = "\(row.number)", padded = String(repeating: "0", count: width - number.count) + number
    let stem = outputDirectory + "/" + (row.output ?? padded)
    let formats = ImageFileFormat.allCases.flatMap(\.pathExtensions)
    let candidates = URL(filePath: stem).pathExtension.isEmpty ? formats.map { "\(stem).\($0)" } : [stem]
    let found = candidates.filter { FileManager.default.fileExists(atPath: $0) }
    if !found.isEmpty { return .done(row: row.number, files: found, job: nil) }
    do {
      let (form, key) = try row.request(in: URL(filePath: file).deletingLastPathComponent())
      let job = try await submit(form, key, client)
      let ended = try await client.watch(job.id) { _, _ in }
      guard ended.status == "succeeded" else {
        let reason = ended.images.compactMap { $0.error?.message.prefix(2000) }.first.map { ": \($0)" } ?? ""
        return .failed(row: row.number, line: row.line, reason: "job \(job.id) \(ended.status)\(reason)")
      }
      return .done(row: row.number, files: try await write(ended, to: stem, client), job: job.id)
    } catch let error as CancellationError {
      throw error
    } catch {
      let error = client.explained(error)
      if case GatewayClientError.unreachable = error { throw error }
      try Task.checkCancellation()
      return .failed(row: row.number, line: row.line, reason: "\(error)")
    }
  }

  /// Submits a row; waits while the gateway's queue is full. A job of an earlier run that has failed is made anew.
  private func submit(_ form: UploadForm, _ key: String, _ client: GatewayClient) async throws -> GatewayClient.Job {
    var attempt = 1
    while true {
      do {
        let upload = GatewayClient.Upload(form, key: attempt == 1 ? key : "\(key)-\(attempt)")
        let job = try await client.submit(upload, cancelsWithTask: false)
        guard job.hasEnded, job.status != "succeeded" else { return job }
        attempt += 1
      } catch GatewayClientError.refused(let status, _, let seconds) where [429, 503, 507].contains(status) {
        try await Task.sleep(for: .seconds(min(max(seconds ?? 2, 1), 60)))
      }
    }
  }

  /// Writes the files of all images of a job; several with the number of image and layer before the extension.
  private func write(_ job: GatewayClient.Job, to stem: String, _ client: GatewayClient) async throws -> [String] {
    var files: [String] = []
    let layers = try client.layers(of: job)
    for index in job.images.indices {
      for layer in layers {
        let image = [UInt8](try await client.image(of: job.id, index: index, layer: layer))
        let numbers: [Int] = [job.images.count > 1 ? index : nil, layer].compactMap { $0 }
        let path = Self.path(stem, numbers, ImageFileFormat(signatureOf: image) ?? .png)
        try OutputDirectory.make(URL(filePath: path).deletingLastPathComponent().path)
        try OutputFile(path, option: "output", formats: nil).write(image)
        files.append(path)
      }
    }
    return files
  }

  private static func path(_ stem: String, _ numbers: [Int], _ format: ImageFileFormat) -> String {
    let url = URL(filePath: stem)
    let suffix = url.pathExtension.isEmpty ? ".\(format.pathExtensions[0])" : ".\(url.pathExtension)"
    let name = url.pathExtension.isEmpty ? stem : String(stem.dropLast(suffix.count))
    return name + numbers.map { ".\($0)" }.joined() + suffix
  }
}
