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
    let rows = try rows(), directory = URL(filePath: file).deletingLastPathComponent()
    let run = BatchRun(
      rows: rows, directory: directory, outputDirectory: outputDirectory, concurrency: concurrency, json: json)
    guard try await run(gateway).count == rows.count else { throw ExitCode.failure }
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
}
