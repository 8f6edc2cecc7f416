import ArgumentParser

/// Whether a command that writes images says what it has written as JSON.
struct ResultReportOptions: ParsableArguments {
  @Flag(help: "Print a JSON object for each file, with its seed, size, job and the seconds that it took.")
  var json = false

  /// Refuses what would mix the image with the report.
  func check(with output: OutputOptions) throws {
    guard json, output.destination.isStandardOutput else { return }
    throw ValidationError("--json and --output - are both for standard output; name a file")
  }
}

/// A file that a command has written, as JSON.
struct ResultReport: Encodable {
  var file: String
  /// Which layer, from 0 at the bottom; absent for images without.
  var layer: Int?
  var seed: UInt64?
  /// WIDTHxHEIGHT.
  var size: String?
  /// Absent where no gateway has made it.
  var job: String?
  /// What the image was made of; absent where that is the prompt that was given.
  var revisedPrompt: String?
  /// From the request to the file.
  var seconds: Double
}

extension ResultReport {
  /// Of the first image of a job that has ended.
  init(_ job: GatewayClient.Job, seconds: Double) {
    self.init(
      file: "", seed: job.images.first?.seed, size: job.size, job: job.id, revisedPrompt: job.revisedPrompt,
      seconds: seconds)
  }
}

extension ImageDestination {
  /// Writes images, and prints an object for each, or the files' names.
  ///
  /// - Parameter report: what is to be said of each of them, but for its file and its layer; nil: only where it is.
  func write(_ images: [[UInt8]], _ report: ResultReport?) throws {
    guard var report else { return try write(images) }
    for (index, file) in try save(images).enumerated() {
      report.file = file ?? "-"
      report.layer = images.count > 1 ? index : nil
      try Terminal.printJSON(report)
    }
  }
}
