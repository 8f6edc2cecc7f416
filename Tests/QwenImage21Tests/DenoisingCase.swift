import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import Kernels
import QwenImage21
import StrictJSON
import TensorCore
import Testing

/// A recorded call of the pipeline, seen by its denoising loop: what the loop gets from the encoders, and what it must
/// make of it.
struct DenoisingCase: CustomTestStringConvertible {
  let name: String
  let reference: ReferenceTensors
  private let document: JSON

  var testDescription: String { name }

  static let names = [
    "t2i_64x64", "t2i_64x64_nocache", "t2i_96x160_cfg", "t2i_batch2", "t2i_per_prompt2", "t2i_turbo", "t2i_floor",
    "edit", "edit_nocache", "edit2_cfg", "edit_rgba", "edit_batch2", "edit_ten",
  ]

  init(_ name: String) throws {
    self.name = name
    reference = try ReferenceTensors(Golden.reference("\(name).safetensors"))
    document = try JSON(Array(try Data(contentsOf: Golden.reference("\(name).json"))))
  }

  // MARK: - The model

  private var checkpoint: URL {
    document["checkpoint"]?.text == "checkpoint-turbo" ? Golden.turboCheckpoint : Golden.checkpoint
  }

  func transformer(
    _ precision: Precision, threads: Int = 2, layers: LayerPrecision = SingleStreamTransformer.layers,
    usesPrefixCache: Bool = true, prefixCacheBytesMax: Int? = nil, prefixCacheKeptBytesMax: Int = 0
  ) throws -> SingleStreamTransformer {
    let folder = checkpoint.appending(path: "transformer")
    return try SingleStreamTransformer(
      SingleStreamTransformer.weights(in: folder),
      configuration: SingleStreamConfiguration(contentsOf: folder.appending(path: "config.json")),
      compute: Compute(precision: precision, pool: ThreadPool(threads: threads)), layers: layers,
      usesPrefixCache: usesPrefixCache, prefixCacheBytesMax: prefixCacheBytesMax,
      prefixCacheKeptBytesMax: prefixCacheKeptBytesMax)
  }

  func scheduler() throws -> SchedulerConfiguration {
    var scheduler = try SchedulerConfiguration(
      contentsOf: checkpoint.appending(path: "scheduler/scheduler_config.json"))
    scheduler.sampleSigmas = try ModelIndex(contentsOf: checkpoint.appending(path: "model_index.json")).sampleSigmas()
    scheduler.lightningShift = nil
    return scheduler
  }

  func denoiser(
    _ precision: Precision, threads: Int = 2, usesPrefixCache: Bool = true
  ) throws -> Denoiser<SingleStreamTransformer> {
    Denoiser(
      try transformer(precision, threads: threads, usesPrefixCache: usesPrefixCache), scheduler: try scheduler(),
      guidance: .plain)
  }

  // MARK: - The recording

  /// Whether the call kept keys and values of the prefix.
  var usesPrefixCache: Bool { document["call"]?["use_kv_cache"] != .bool(false) }
  var seed: UInt64 { UInt64(document["seed"]?.integer ?? 0) }

  /// Number of images of the call.
  func imageCount() throws -> Int { try reference.floats("draw.0").count / (try target().tokenCount * 64) }

  /// The grids of the references, then that of the image that is made.
  func grids() throws -> [TokenGrid] {
    try #require(document["img_shapes"]?[0]?.elements).map {
      TokenGrid(height: try #require($0[1]?.integer), width: try #require($0[2]?.integer))
    }
  }

  func target() throws -> TokenGrid { try #require(try grids().last) }

  /// What the loop gets for one of the images.
  func input(_ image: Int = 0) throws -> DenoisingInput {
    let call = try #require(document["call"]), grids = try grids(), count = try imageCount()
    let noise = try Self.slice(reference.floats("prepare_latents.0"), image, of: count)
    var input = DenoisingInput(
      prompt: try conditioning("cond", image),
      negativePrompt: reference.names.contains("prompt_embeds.uncond") ? try conditioning("uncond", image) : nil,
      latents: Tensor(noise, shape: [noise.count / 64, 64]), grid: try target(),
      steps: try call["num_inference_steps"]?.integer ?? reference.floats("timesteps").count,
      trueCFGScale: call["true_cfg_scale"]?.double ?? 1)
    guard grids.count > 1 else { return input }
    let latents = try Self.slice(reference.floats("prepare_latents.1"), image, of: count)
    let all = Tensor(latents, shape: [latents.count / 64, 64])
    var start = 0
    input.references = grids.dropLast().map { grid in
      start += grid.tokenCount
      return ReferenceLatents(latents: all.rows(start - grid.tokenCount..<start), grid: grid)
    }
    return input
  }

  /// The rows of a prompt that are not padding.
  func promptRows(_ branch: String, _ image: Int) throws -> Int {
    let rows = try reference.floats("image_pad_mask.\(branch)").count
    guard reference.names.contains("prompt_embeds_mask.\(branch)") else {
      return try reference.floats("prompt_embeds.\(branch)").count / (48 * imageCount())
    }
    let mask = try Self.slice(reference.floats("prompt_embeds_mask.\(branch)"), image, of: imageCount())
    try #require(mask.count <= rows)
    return mask.count { $0 != 0 }
  }

  /// Which rows of a prompt, padding included, stand for images.
  func slots(_ branch: String, _ image: Int) throws -> [Bool] {
    let mask = try reference.floats("image_pad_mask.\(branch)")
    let length = try reference.floats("prompt_embeds.\(branch)").count / (48 * imageCount())
    return Array(mask.prefix(length)).map { $0 != 0 }
  }

  private func conditioning(_ branch: String, _ image: Int) throws -> PromptConditioning {
    let embeds = try Self.slice(reference.floats("prompt_embeds.\(branch)"), image, of: imageCount())
    let rows = try Tensor(embeds, shape: [embeds.count / 48, 48]).rows(0..<promptRows(branch, image))
    let isSlot = try slots(branch, image)
    var place = 0
    let images = try grids().dropLast().map { grid in
      while !isSlot[place] { place += 1 }
      defer { place += grid.tokenCount / 4 }
      return place..<place + grid.tokenCount / 4
    }
    return PromptConditioning(embeds: rows, withoutImageRows: images)
  }

  static func slice(_ values: [Float], _ index: Int, of count: Int) -> [Float] {
    let length = values.count / count
    return Array(values[index * length..<(index + 1) * length])
  }
}
