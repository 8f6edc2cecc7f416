import ArgumentParser
import ClusterCore
import Foundation

/// The flags that describe an image; `local` and the commands for clusters share them.
struct RequestOptions: ParsableArguments {
  @Option(name: [.short, .long], parsing: .unconditional, help: "What to draw.")
  var prompt: String

  @OptionGroup var sampling: SamplingOptions

  /// The flag's seed.
  var seed: SeedChoice { sampling.seed }
}

/// The flags that describe an image, without its prompt.
struct SamplingOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: "What to steer away from; an empty text counts. Default: the model's own, without which there is no guidance."
  )
  var negativePrompt: String?

  @Option(parsing: .unconditional, help: "Guidance strength; 1 switches guidance off. Default: the model's own.")
  var trueCfgScale: Double?

  @Option(parsing: .unconditional, help: "Denoising steps. Default: the model's own.")
  var steps: Int?

  @Option(
    parsing: .unconditional,
    help: "Noise levels of the steps before the shift, separated by commas: a step for each. Default: the model's own.",
    transform: NoiseLevels.init(text:))
  var sigmas: NoiseLevels?

  @Option(parsing: .unconditional, help: "Width in pixels, a multiple of 16 or 32. Default: the model's own.")
  var width: Int?

  @Option(parsing: .unconditional, help: "Height in pixels, a multiple of 16 or 32. Default: the model's own.")
  var height: Int?

  @Option(
    parsing: .unconditional,
    help: """
      References have about the square of so many pixels, and so has an image without --width and --height. Default: \
      the model's own.
      """)
  var outputResolution: Int?

  @Option(
    parsing: .unconditional,
    help:
      "Seed of the initial noise, from 0; the same seed gives the same image. Default, and -1: random, and printed.",
    transform: SeedChoice.init(text:))
  var seed = SeedChoice.random

  func validate() throws {
    if let trueCfgScale, !trueCfgScale.isFinite {
      throw ValidationError("--true-cfg-scale is \(trueCfgScale); it must be a finite number")
    }
    if let outputResolution, !ReferenceAreas.outputResolutionLimit.contains(outputResolution) {
      let limit = ReferenceAreas.outputResolutionLimit
      throw ValidationError(
        "--output-resolution is \(outputResolution); it must be from \(limit.lowerBound) to \(limit.upperBound)")
    }
  }
}

/// The noise levels of a schedule.
struct NoiseLevels: Equatable, Sendable {
  /// One for each step, above 0 and falling.
  let values: [Double]

  /// Most of them: as many steps as a model allows.
  private static let maxCount = 200

  /// - Throws: `ValidationError` naming what is wrong.
  init(text: String) throws {
    values = try text.split(separator: ",", omittingEmptySubsequences: false).map { part in
      let part = part.trimmingCharacters(in: .whitespaces)
      guard let value = Double(part), value > 0, value <= 1 else {
        throw ValidationError("\"\(part.prefix(20))\" is no noise level; they are above 0 and at most 1")
      }
      return value
    }
    guard values.count <= Self.maxCount else {
      throw ValidationError("there are \(values.count) noise levels; the limit is \(Self.maxCount)")
    }
    guard zip(values, values.dropFirst()).allSatisfy({ $0 >= $1 }) else {
      throw ValidationError("noise levels must fall")
    }
  }
}

/// Which noise an image begins with.
enum SeedChoice: Equatable, Sendable {
  /// Another one every time.
  case random
  /// Always the same.
  case fixed(UInt64)

  /// Seeds beyond this are refused by JSON numbers' 64-bit signed range, so neither command takes them.
  static let max = UInt64(Int64.max)

  /// - Throws: `ValidationError` when it is neither -1 nor a seed.
  init(text: String) throws {
    if text == "-1" {
      self = .random
    } else if let seed = UInt64(text), seed <= Self.max {
      self = .fixed(seed)
    } else {
      throw ValidationError("it must be from 0 to \(Self.max), or -1 for a random seed")
    }
  }

  /// The seed that was asked for; nil: a random one.
  var fixed: UInt64? { if case .fixed(let seed) = self { seed } else { nil } }
}

/// Where an image is written.
struct OutputOptions: ParsableArguments {
  @Option(name: [.short, .long], help: "Where to write the PNG; - is standard output.")
  var output = "image.png"

  init() {}

  private init(path: String) { output = path }

  /// What the path is.
  var file: OutputFile { OutputFile(output) }

  /// Finds out as much as possible about where `count` images would go, without writing anything.
  func check(count: Int = 1) throws {
    let paths = try paths(count)
    try file.check()
    if count > 1 { for path in paths { try OutputFile(path).check() } }
  }

  /// Writes the images, several ones under the path with their number before the extension.
  func write(_ images: [[UInt8]]) throws {
    for (path, png) in zip(try paths(images.count), images) { try OutputOptions(path: path).write(png) }
  }

  private func paths(_ count: Int) throws -> [String] {
    guard count > 1 else { return [output] }
    guard !file.isStandardOutput else {
      throw OutputError(name: "--output \(output)", reason: "there are \(count) images; name a file")
    }
    let url = URL(filePath: output)
    let suffix = url.pathExtension.isEmpty ? "" : ".\(url.pathExtension)"
    return (0..<count).map { "\(output.dropLast(suffix.count)).\($0)\(suffix)" }
  }

  /// Writes the image, and says where unless it is standard output.
  func write(_ png: [UInt8]) throws {
    let isStandardOutput = file.isStandardOutput
    try file.write(png)
    if !isStandardOutput { try Terminal.print(output) }
  }
}

extension RequestOptions {
  /// The request, as the gateway reads it.
  var body: GatewayClient.Body {
    GatewayClient.Body(
      prompt: prompt, negativePrompt: sampling.negativePrompt, trueCfgScale: sampling.trueCfgScale,
      numInferenceSteps: sampling.steps, sigmas: sampling.sigmas?.values, width: sampling.width,
      height: sampling.height, outputResolution: sampling.outputResolution, seed: seed.fixed)
  }
}

/// Which gateway, and who asks.
struct GatewayOptions: ParsableArguments {
  @Option(help: "Address of the gateway. Default: the environment's QWEN_IMAGE_GATEWAY, else http://127.0.0.1:8080.")
  var gateway: String?

  @Option(help: "API key, if the gateway asks for one. Default: the environment's QWEN_IMAGE_API_KEY.")
  var apiKey: String?

  @Option(parsing: .unconditional, help: "How long the gateway may be silent, in seconds.")
  var timeout = 60.0

  func validate() throws {
    guard (0.1...86_400).contains(timeout) else {
      throw ValidationError("--timeout is \(timeout); it must be from 0.1 to 86400 seconds")
    }
  }

  private func client() throws -> GatewayClient {
    let key = (apiKey ?? ProcessInfo.processInfo.environment["QWEN_IMAGE_API_KEY"] ?? "").trimmingCharacters(
      in: .whitespacesAndNewlines)
    return GatewayClient(try .resolve(option: gateway), apiKey: key.isEmpty ? nil : key, timeoutSeconds: timeout)
  }

  /// Calls `body` with a client, which is shut down afterwards.
  func withClient<Result>(_ body: (GatewayClient) async throws -> Result) async throws -> Result {
    let client = try client()
    defer { client.shutdown() }
    do {
      return try await body(client)
    } catch {
      throw client.explained(error)
    }
  }
}
