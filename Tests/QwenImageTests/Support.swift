import Diffusion
import Foundation
import GoldenSupport
import Kernels
import ModelRegistry
import QwenImage
import Synchronization
import TensorCore

/// Where the recorded reference data of this family lie.
enum Golden {
  static let tinyCheckpoint = golden.appending(path: "tiny/checkpoint")

  static func reference(_ name: String) -> URL { golden.appending(path: "tiny/reference/\(name)") }
}

/// A directory that is removed at the end of its scope.
struct TemporaryDirectory: ~Copyable {
  let url: URL

  init() throws {
    url = FileManager.default.temporaryDirectory.appending(path: "qwen-image-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: url) }

  /// Writes `text` to a file in the directory.
  func write(_ text: String, as name: String) throws -> URL {
    let file = url.appending(path: name)
    try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
    try Data(text.utf8).write(to: file)
    return file
  }
}

/// A generator whose sequence is the same in every run (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

/// What was reported, from any thread.
final class Reports: Sendable {
  private let texts = Mutex([String]())
  func add(_ text: String) { texts.withLock { $0.append(text) } }
  var all: [String] { texts.withLock { $0 } }
}

extension ModelDirectory {
  /// The family that the test checkpoints are of.
  var qwenImage: QwenImageFamily { family as! QwenImageFamily }

  /// The denoising loop.
  func denoiser(_ loading: WeightLoading, pool: ThreadPool) throws -> Denoiser<MMDiT> {
    let transformer =
      try family.predictor(of: self, loading: loading, pool: pool, options: PredictorOptions()) as! MMDiT
    return Denoiser(transformer, scheduler: scheduler, guidance: family.guidance)
  }

  /// The prompt encoder, for prompts of 2000 tokens.
  func encoder(_ loading: WeightLoading, pool: ThreadPool) throws -> any PromptConditioner {
    var limits = try card().limits
    limits.maxPromptTokens = 2000
    return try family.conditioner(of: self, loading: loading, pool: pool, limits: limits, readsImages: false)
  }
}

extension PromptConditioner {
  func embeds(_ prompt: String, probe: Probe = .none) throws -> Tensor {
    encode(try tokens(PromptInput(prompt), field: "prompt"), probe: probe).embeds
  }
}

extension ModelComponent {
  static let all = QwenImageFamily.components + [.tokenizer]
}

/// Prompt embeddings and noise → the loop's input.
func denoisingInput(
  _ embeds: Tensor, _ negative: Tensor?, _ latents: Tensor, _ grid: TokenGrid, steps: Int, scale: Double
) -> DenoisingInput {
  DenoisingInput(
    prompt: PromptConditioning(embeds: embeds), negativePrompt: negative.map { PromptConditioning(embeds: $0) },
    latents: latents, grid: grid, steps: steps, trueCFGScale: scale)
}
