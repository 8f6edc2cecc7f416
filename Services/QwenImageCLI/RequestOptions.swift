import ArgumentParser
import Foundation

/// The flags that describe a picture; `local` and `generate` share them.
struct RequestOptions: ParsableArguments {
  @Option(name: [.short, .long], help: "What to draw.")
  var prompt: String

  @Option(help: "What to steer away from. Default: the model's own.")
  var negativePrompt: String?

  @Option(help: "Guidance strength; 1 switches guidance off. Default: the model's own.")
  var trueCfgScale: Double?

  @Option(help: "Denoising steps. Default: the model's own.")
  var steps: Int?

  @Option(help: "Width in pixels, a multiple of 16. Default: the model's own.")
  var width: Int?

  @Option(help: "Height in pixels, a multiple of 16. Default: the model's own.")
  var height: Int?

  @Option(help: "Seed of the initial noise; the same seed gives the same picture. Default: random, and printed.")
  var seed: UInt64?

  /// Seeds beyond this are refused by JSON numbers' 64-bit signed range, so neither command takes them.
  static let maxSeed = UInt64(Int64.max)

  func validate() throws {
    if let seed, seed > Self.maxSeed { throw ValidationError("--seed is \(seed); the limit is \(Self.maxSeed)") }
    if let trueCfgScale, !trueCfgScale.isFinite {
      throw ValidationError("--true-cfg-scale is \(trueCfgScale); it must be a finite number")
    }
  }

  /// The seed asked for, or a random one.
  func resolvedSeed() -> UInt64 { seed ?? UInt64.random(in: 0...UInt64(UInt32.max)) }
}

/// Where an image is written.
struct OutputOptions: ParsableArguments {
  @Option(name: [.short, .long], help: "Where to write the PNG; - is standard output.")
  var output = "image.png"

  /// What the path is.
  var file: OutputFile { OutputFile(output) }

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
      prompt: prompt, negativePrompt: negativePrompt, trueCfgScale: trueCfgScale, numInferenceSteps: steps, width: width, height: height,
      seed: seed)
  }
}

/// Which gateway, and who asks.
struct GatewayOptions: ParsableArguments {
  @Option(help: "Address of the gateway.")
  var gateway = "http://127.0.0.1:8080"

  @Option(help: "API key, if the gateway asks for one. Default: the environment's QWEN_IMAGE_API_KEY.")
  var apiKey: String?

  func client() throws -> GatewayClient {
    try GatewayClient(gateway, apiKey: apiKey ?? ProcessInfo.processInfo.environment["QWEN_IMAGE_API_KEY"])
  }

  /// Calls `body` with a client, which is shut down afterwards.
  func withClient(_ body: (GatewayClient) async throws -> Void) async throws {
    let client = try client()
    do {
      try await body(client)
      try await client.shutdown()
    } catch {
      try await client.shutdown()
      throw error
    }
  }
}
