import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import QwenImage
import TensorCore
import Weights

/// The recorded adapters, and files made of them.
enum AdapterFiles {
  static let folder = golden.appending(path: "adapters")

  /// A recorded adapter.
  static func adapter(_ name: String) throws -> Adapter { try Adapter(folder.appending(path: name)) }

  /// The tensors of a recorded adapter.
  static func tensors(_ name: String) throws -> [String: Tensor] {
    let file = try SafetensorsFile(folder.appending(path: name))
    return try Dictionary(uniqueKeysWithValues: file.names.map { ($0, try file.tensor($0)) })
  }

  /// Writes tensors to a file, and reads it as an adapter.
  static func adapter(
    _ tensors: [String: Tensor], metadata: [String: String] = [:], in directory: URL, as name: String = "a.safetensors"
  ) throws -> Adapter {
    let url = directory.appending(path: name)
    try SafetensorsWriter.write(tensors.map { (name: $0.key, tensor: $0.value) }, to: url, metadata: metadata)
    return try Adapter(url)
  }

  /// A set of one adapter.
  static func set(_ adapter: Adapter, scale: Double = 1) throws -> AdapterSet {
    try AdapterSet([(adapter: adapter, scale: scale)])
  }

  /// Numbers of a seeded generator.
  static func random(_ shape: Shape, seed: UInt64, scale: Float = 0.3) -> Tensor {
    var generator = SeededGenerator(state: seed)
    return Tensor(
      (0..<shape.elementCount).map { _ in Float.random(in: -scale...scale, using: &generator) }, shape: shape)
  }
}

/// The recorded call that adapters are tried with: `t2i_64x64`, from its prompts and noise on.
struct AdaptedLoop {
  let network: MMDiT
  private let scheduler: SchedulerConfiguration
  private let guidance: Guidance

  init(_ network: MMDiT, of model: ModelDirectory) {
    (self.network, scheduler, guidance) = (network, model.scheduler, model.family.guidance)
  }

  func adapted(by adapters: AdapterSet) throws -> AdaptedLoop {
    AdaptedLoop(try network.adapted(by: adapters), scheduler, guidance)
  }

  private init(_ network: MMDiT, _ scheduler: SchedulerConfiguration, _ guidance: Guidance) {
    (self.network, self.scheduler, self.guidance) = (network, scheduler, guidance)
  }

  static func input() throws -> DenoisingInput {
    let reference = try ReferenceTensors(Golden.reference("t2i_64x64.safetensors"))
    func rows(_ name: String) throws -> Tensor {
      let floats = try reference.floats(name)
      return Tensor(floats, shape: [floats.count / 64, 64])
    }
    return denoisingInput(
      try rows("prompt_embeds.cond"), try rows("prompt_embeds.uncond"), try rows("prepare_latents.0"),
      TokenGrid(height: 4, width: 4), steps: 4, scale: 4)
  }

  /// The first step's prediction for the prompt, and the last latents.
  func callAsFunction() throws -> (step0: [Float], latents: [Float], recording: Recording) {
    let recording = Recording(), denoise = Denoiser(network, scheduler: scheduler, guidance: guidance)
    let latents = try denoise(try Self.input(), probe: recording.probe)
    return (recording.tensor("dit.step0.cond.out")?.floats() ?? [], latents.floats(), recording)
  }

  /// The last latents, without recording: branches share passes.
  func latents() throws -> [Float] {
    try Denoiser(network, scheduler: scheduler, guidance: guidance)(try Self.input()).floats()
  }
}
