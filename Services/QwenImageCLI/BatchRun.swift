import ArgumentParser
import Foundation
import ImageCodec

/// Makes the images of rows through a gateway, those that are not there yet.
struct BatchRun: Sendable {
  let rows: [BatchRow]
  /// To which the paths of the rows are relative.
  let directory: URL
  /// Where the images go.
  let outputDirectory: String
  /// How many rows are submitted and not yet done.
  let concurrency: Int
  /// Whether a JSON object is printed for each row that is done.
  let json: Bool

  /// Makes all rows; those that fail are reported.
  ///
  /// - Returns: the files of the rows that are done, by their numbers.
  func callAsFunction(_ gateway: GatewayOptions) async throws -> [Int: [String]] {
    try OutputDirectory.make(outputDirectory)
    let work = Task { try await gateway.withClient { try await make($0) } }
    let interruption = Interruption { work.cancel() }
    do {
      return try await work.value
    } catch is CancellationError where interruption.isInterrupted {
      Terminal.note("interrupted; the same command again continues from here")
      throw ExitCode(Interruption.exitStatus)
    }
  }

  /// Makes all rows, so many at a time.
  private func make(_ client: GatewayClient) async throws -> [Int: [String]] {
    var progress = ProgressBar(), counts = (done: 0, failed: 0), done: [Int: [String]] = [:]
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
        if case .done(let row, let files, _) = outcome { done[row] = files }
        submitNext()
        let ended = counts.done + counts.failed, seconds = (ContinuousClock.now - start) / .seconds(1)
        progress.show(
          counts.failed == 0 ? "images" : "images (\(counts.failed) failed)", completed: ended, total: rows.count,
          secondsLeft: seconds / Double(ended) * Double(rows.count - ended))
      }
    }
    progress.finish()
    if counts.failed > 0 { Terminal.note("\(counts.failed) of \(rows.count) rows have failed") }
    return done
  }

  private enum Outcome: Sendable {
    /// The row's files are there; job: that has made them, if they were not there before.
    case done(row: Int, files: [String], job: String?)
    case failed(BatchRow, reason: String)
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
    case .failed(let row, let reason):
      counts.failed += 1
      if json { return try printJSON(Report(row: row.number, error: reason)) }
      Terminal.note("\(row.title): \(reason)")
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
      let (form, key) = try row.request(in: directory)
      let job = try await submit(form, key, client)
      let ended = try await client.watch(job.id) { _, _ in }
      guard ended.status == "succeeded" else {
        let reason = ended.images.compactMap { $0.error?.message.prefix(2000) }.first.map { ": \($0)" } ?? ""
        return .failed(row, reason: "job \(job.id) \(ended.status)\(reason)")
      }
      return .done(row: row.number, files: try await write(ended, to: stem, client), job: job.id)
    } catch let error as CancellationError {
      throw error
    } catch {
      let error = client.explained(error)
      if case GatewayClientError.unreachable = error { throw error }
      try Task.checkCancellation()
      return .failed(row, reason: "\(error)")
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
