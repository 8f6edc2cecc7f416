import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import Kernels
import QwenImage
import StrictJSON
import TensorCore
import Testing
import Weights

/// A recorded call of a pipeline with images as input, seen by its denoising loop: what the loop gets from encoders,
/// and what it must make of it.
struct RecordedLoop: CustomTestStringConvertible {
  let name: String
  var checkpoint = "checkpoint"
  /// The directory of the control network, if there is one.
  var controlNetwork: String?
  /// Whether the condition latents are those that inpainting keeps.
  var sharesLatents = false

  var testDescription: String { name }

  static let all = [
    RecordedLoop(name: "edit"), RecordedLoop(name: "edit_outsize"), RecordedLoop(name: "edit_plus"),
    RecordedLoop(name: "edit_plus_2511", checkpoint: "checkpoint-edit2511"),
    RecordedLoop(name: "controlnet", controlNetwork: "controlnet"),
    RecordedLoop(name: "controlnet_inpaint", controlNetwork: "controlnet-inpaint"),
    RecordedLoop(name: "layered", checkpoint: "checkpoint-layered"), RecordedLoop(name: "img2img"),
    RecordedLoop(name: "inpaint"), RecordedLoop(name: "inpaint_crop"),
    RecordedLoop(name: "edit_inpaint", sharesLatents: true),
  ]

  static func named(_ name: String) throws -> RecordedLoop { try #require(all.first { $0.name == name }) }

  // MARK: - The model

  private static let tiny = golden.appending(path: "tiny")

  private func directory(_ folder: String) -> URL { Self.tiny.appending(path: "\(checkpoint)/\(folder)") }

  /// The transformer with its control network.
  func transformer(_ precision: Precision, threads: Int = 2) throws -> MMDiT {
    let compute = Compute(precision: precision, pool: ThreadPool(threads: threads))
    let configuration = try TransformerConfiguration(contentsOf: directory("transformer/config.json"))
    let networks = try controlNetwork.map {
      [try ControlNetwork(directory: Self.tiny.appending(path: $0), for: configuration, compute: compute)]
    }
    return try MMDiT(
      ComponentWeights(directory: directory("transformer"), baseName: "diffusion_pytorch_model"),
      configuration: configuration, compute: compute, controlNetworks: networks ?? [])
  }

  /// The schedule's configuration, with the family's rule.
  func scheduler() throws -> SchedulerConfiguration {
    var scheduler = try SchedulerConfiguration(contentsOf: directory("scheduler/scheduler_config.json"))
    if checkpoint == "checkpoint-layered" { scheduler.shiftRule = .squareRoot }
    return scheduler
  }

  func denoiser(_ precision: Precision, threads: Int = 2) throws -> Denoiser<MMDiT> {
    Denoiser(
      try transformer(precision, threads: threads), scheduler: try scheduler(),
      guidance: checkpoint == "checkpoint-layered" ? .plain : .normPreserving)
  }

  // MARK: - The recording

  func tensors() throws -> ReferenceTensors { try ReferenceTensors(Golden.reference("\(name).safetensors")) }

  func call() throws -> JSON { try JSON(Array(try Data(contentsOf: Golden.reference("\(name).json")))) }

  func seed() throws -> UInt64 { UInt64(try #require(try call()["seed"]?.integer)) }

  /// The grids of all images of the image stream, the one that is made first.
  func grids() throws -> [TokenGrid] {
    let shapes = try #require(try call()["img_shapes"]?.elements)
    // Pipelines with control networks have one level less.
    let images = shapes[0][0]?.elements == nil ? shapes : shapes[0].elements ?? []
    return try images.map { image in
      TokenGrid(height: try #require(image[1]?.integer), width: try #require(image[2]?.integer))
    }
  }

  /// What the loop gets.
  func input() throws -> DenoisingInput {
    let tensors = try tensors(), call = try #require(try call()["call"]), grids = try grids()
    func tokens(_ name: String, _ width: Int = 64) throws -> Tensor {
      let floats = try tensors.floats(name)
      return Tensor(floats, shape: [floats.count / width, width])
    }
    let layers = call["layers"]?.integer.map { $0 + 1 } ?? 1
    var input = DenoisingInput(
      prompt: PromptConditioning(embeds: try tokens("prompt_embeds.cond")),
      negativePrompt: PromptConditioning(embeds: try tokens("prompt_embeds.uncond")),
      latents: try tokens("prepare_latents.0"), grid: grids[0],
      steps: try #require(call["num_inference_steps"]?.integer),
      trueCFGScale: try #require(call["true_cfg_scale"]?.double))
    input.layers = layers
    input.firstStep = try firstStep(of: input.steps)
    if tensors.names.contains("prepare_mask_latents.0") {
      input.inpainting = Inpainting(
        image: try tokens("prepare_latents.2"), noise: try tokens("prepare_latents.1"),
        mask: try tokens("prepare_mask_latents.0"))
    }
    if grids.count > layers {
      input.references = Self.references(
        try tokens(sharesLatents ? "prepare_latents.2" : "prepare_latents.1"), grids.dropFirst(layers))
    }
    if controlNetwork != nil {
      let scale = call["controlnet_conditioning_scale"]?.double.map { Float($0) } ?? 1
      let latents = try tensors.names.contains("controlnet.cond") ? tokens("controlnet.cond", 68) : sampled(0)
      input.controls = [ControlInput(latents: latents, scale: scale)]
    }
    return input
  }

  private static func references(_ latents: Tensor, _ grids: ArraySlice<TokenGrid>) -> [ReferenceLatents] {
    var start = 0
    return grids.map { grid in
      defer { start += grid.tokenCount }
      return ReferenceLatents(latents: latents.rows(start..<start + grid.tokenCount), grid: grid)
    }
  }

  /// The step that the call begins with.
  func firstStep(of steps: Int) throws -> Int {
    guard let strength = try call()["call"]?["strength"]?.double else { return 0 }
    return try PartialSchedule.firstStep(steps: steps, strength: strength)
  }

  /// The packed latents of the image that was encoded as number `index`, sampled with the recorded draw of that number.
  func sampled(_ index: Int) throws -> Tensor {
    let tensors = try tensors(), moments = try tensors.floats("vae.encode\(index).moments")
    let noise = try tensors.floats("draw.\(index)"), grid = try grids()[0]
    let vae = VAEConfiguration.published, plane = noise.count / vae.zDim
    let values = noise.indices.map { i in
      let deviation = exp(0.5 * max(-30, min(20, moments[noise.count + i])))
      let (mean, std) = (Float(vae.latentsMean[i / plane]), Float(vae.latentsStd[i / plane]))
      return (moments[i] + deviation * noise[i] - mean) / std
    }
    return LatentPacking.pack(
      Tensor(values, shape: [vae.zDim, 2 * grid.height, 2 * grid.width]), patch: 2)
  }
}
