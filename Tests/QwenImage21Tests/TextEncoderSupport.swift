import Diffusion
import Foundation
import GoldenSupport
import ImageCodec
import Kernels
import QwenImage21
import StrictJSON
import TensorCore
import Testing
import Weights

/// The text side of the tiny checkpoint.
struct TinyTextEncoder {
  let text: Qwen3TextConfiguration
  var images: Qwen3PromptImages
  let folder: URL

  init(_ checkpoint: URL = Golden.checkpoint) throws {
    folder = checkpoint.appending(path: "text_encoder")
    text = try Qwen3TextConfiguration(contentsOf: folder.appending(path: "config.json"))
    images = try Qwen3PromptImages(contentsOf: checkpoint, text: text)
  }

  func weights() throws -> ComponentWeights {
    try ComponentWeights(
      directory: folder, baseName: "model", preferring: .singleFile,
      rename: Qwen3TextConfiguration.publishedTensorName)
  }

  func tower(_ compute: Compute) throws -> Qwen3VisionTower {
    try Qwen3VisionTower(weights(), configuration: images.vision, compute: compute)
  }

  func languageModel(_ compute: Compute) throws -> Qwen3LanguageModel {
    try Qwen3LanguageModel(weights(), configuration: text, compute: compute)
  }

  func encoder(
    _ precision: Precision = .fp32, threads: Int = 2, readsImages: Bool = true, maxPromptTokens: Int = 1000
  ) throws -> Qwen3PromptEncoder {
    let pool = ThreadPool(threads: threads), compute = Compute(precision: precision, pool: pool)
    return try Qwen3PromptEncoder(
      tokenizer: Tokenizer(directory: folder.deletingLastPathComponent().appending(path: "processor")),
      model: languageModel(compute), maxPromptTokens: maxPromptTokens,
      images: readsImages ? images.reader(weights(), compute: compute, pool: pool) : nil, processor: images.processor)
  }
}

/// A recorded call, as the text encoder sees it.
struct RecordedPrompts: CustomTestStringConvertible {
  let name: String

  static let all = [
    "t2i_64x64", "t2i_64x64_nocache", "t2i_96x160_cfg", "t2i_batch2", "t2i_per_prompt2", "t2i_turbo", "t2i_floor",
    "edit", "edit_nocache", "edit2_cfg", "edit_rgba", "edit_batch2", "edit_ten",
  ].map { RecordedPrompts(name: $0) }

  var testDescription: String { name }

  func reference() throws -> ReferenceTensors { try ReferenceTensors(Golden.reference("\(name).safetensors")) }

  private func call() throws -> JSON {
    let document = try JSON(Array(Data(contentsOf: Golden.reference("\(name).json"))))
    return try #require(document["call"])
  }

  /// The references in the size in which they are shown.
  func images() throws -> [RasterImage] {
    let call = try call(), resolution = call["output_resolution"]?.integer ?? 1024
    return try (call["image"]?.elements ?? []).map { file in
      let url = Golden.checkpoint.deletingLastPathComponent().appending(path: "inputs/\(try #require(file.text))")
      let image = try PNG.decode([UInt8](Data(contentsOf: url))).image
      return ReferenceResizing.resized(image, outputResolution: resolution)
    }
  }

  /// The prompts of each branch of guidance.
  func branches() throws -> [(name: String, prompts: [PromptInput])] {
    let call = try call(), images = try images()
    func inputs(_ value: JSON) -> [PromptInput] {
      (value.elements ?? [value]).compactMap(\.text).map {
        PromptInput($0, template: images.isEmpty ? .textToImage : .editPlus, images: images)
      }
    }
    let negative = call["negative_prompt"].map { [(name: "uncond", prompts: inputs($0))] } ?? []
    return [(name: "cond", prompts: inputs(try #require(call["prompt"])))] + negative
  }
}
