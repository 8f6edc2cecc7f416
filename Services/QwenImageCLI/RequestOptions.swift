import ArgumentParser
import ClusterCore
import Foundation
import ImageCodec

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

  @OptionGroup var sampler: SamplerOptions
  @Option(
    help: """
      Leaves out parts of the network in some steps: off, balanced or fast, or exact settings such as \
      first_block:threshold=0.1,warmup=4 (see step-caches.md). Default: off.
      """, transform: StepCacheChoice.init(text:))
  var cache: StepCacheChoice?

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
    help: """
      Of models whose images have transparency: transparent asks for it in the prompt, opaque puts the image over \
      white. Default: auto, what the prompt says.
      """)
  var background: BackgroundChoice?

  @Option(
    parsing: .unconditional,
    help:
      "Seed of the initial noise, from 0; the same seed gives the same image. Default, and -1: random, and printed.",
    transform: SeedChoice.init(text:))
  var seed = SeedChoice.random

  func validate() throws {
    guard sigmas == nil || sampler.schedule == nil else {
      throw ValidationError("--schedule and --sigmas both say which noise levels; give one of them")
    }
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

extension RequestOptions {
  /// The request, as the gateway reads it.
  func body(_ encoding: ImageEncoding, model: ModelChoiceOptions) -> GatewayClient.Body {
    var body = GatewayClient.Body(
      prompt: prompt, negativePrompt: sampling.negativePrompt, trueCfgScale: sampling.trueCfgScale,
      numInferenceSteps: sampling.steps, sigmas: sampling.sigmas?.values, width: sampling.width,
      height: sampling.height, outputResolution: sampling.outputResolution, seed: seed.fixed)
    (body.model, body.background) = (model.model, sampling.background?.rawValue)
    sampling.sampler.add(to: &body)
    body.cache = sampling.cache?.field
    // What the default is needs no words, which an older gateway may not know.
    guard encoding.format != .png else { return body }
    (body.outputFormat, body.outputCompression) = (encoding.format.name, encoding.quality)
    return body
  }
}

/// Which of a gateway's models.
struct ModelChoiceOptions: ParsableArguments {
  @Option(help: "The model's name, as `qwen-image models` lists it. Default: the gateway's first.")
  var model: String?
}

extension BackgroundChoice: ExpressibleByArgument {}

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

  private func client(maxConnections: Int) throws -> GatewayClient {
    let key = (apiKey ?? ProcessInfo.processInfo.environment["QWEN_IMAGE_API_KEY"] ?? "").trimmingCharacters(
      in: .whitespacesAndNewlines)
    return GatewayClient(
      try .resolve(option: gateway), apiKey: key.isEmpty ? nil : key, timeoutSeconds: timeout,
      maxConnections: maxConnections)
  }

  /// Calls `body` with a client, which is shut down afterwards. Requests beyond `maxConnections` wait for others.
  func withClient<Result>(
    maxConnections: Int = 8, _ body: (GatewayClient) async throws -> Result
  ) async throws -> Result {
    let client = try client(maxConnections: maxConnections)
    defer { client.shutdown() }
    do {
      return try await body(client)
    } catch {
      throw client.explained(error)
    }
  }
}
