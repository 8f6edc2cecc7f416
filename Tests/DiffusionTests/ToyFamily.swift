import ClusterCore
import Diffusion
import Foundation
import Kernels
import TensorCore
import Weights

/// A second family, as small as one can be: what a new family has to bring, and nothing else. `add-a-model.md` follows
/// this file.
///
/// Prompts are bytes with an embedding each; the network is one linear layer over latents and the mean of the prompt;
/// the codec repeats a latent pixel of three channels 8×8 times.
struct ToyFamily: ModelFamily {
  static let name = "toy"
  static let classNames = ["ToyPipeline"]
  static let layers = LayerPrecision(version: 1, repeated: ["blocks."], modulations: [])
  static let tokenizerFolder = "bytes"

  /// `text_encoder/config.json` and `transformer/config.json`.
  struct Configuration: Codable, Equatable {
    var width: Int
    var channels: Int
  }

  let configuration: Configuration
  let guidance = Guidance.normPreserving

  init(contentsOf url: URL, index: ModelIndex) throws(ConfigurationError) {
    try index.require("transformer", oneOf: ["ToyTransformer"])
    let fields = try ConfigurationFields(contentsOf: url.appending(path: "transformer/config.json"))
    configuration = Configuration(
      width: try fields.integer("width", in: 1...1024), channels: try fields.integer("channels", in: 1...64))
  }

  var configurations: [(component: ModelComponent, value: any Encodable)] { [(.transformer, configuration)] }

  func card(of model: ModelIdentity) -> ModelCard {
    ModelCard(
      model: model, pipelineClass: Self.classNames[0], pipelines: [.textToImage],
      limits: ModelLimits(
        sizeMultiplePx: 8, minSidePx: 8, maxSidePx: 256, maxPixels: 256 * 256, maxSteps: 50, maxPromptTokens: 100,
        maxPromptBytes: 400),
      defaults: GenerationDefaults(
        size: ImageSize(widthPx: 32, heightPx: 16), steps: 3, trueCFGScale: 1, negativePrompt: ""),
      recommendedSizes: [], latents: LatentGeometry(channels: configuration.channels, downscale: 8, patch: 1))
  }

  func denoisingWork(size: ImageSize, textTokens: Int) -> DenoisingWork {
    let (tokens, channels) = (size.widthPx / 8 * (size.heightPx / 8), configuration.channels)
    return DenoisingWork(
      products: [
        .init(rows: tokens, inFeatures: channels + configuration.width, outFeatures: channels, count: 2)
      ], attention: [], activationBytes: 4 * tokens * (channels + configuration.width))
  }

  func inventory(of component: ModelComponent) -> ParameterInventory {
    var inventory = ParameterInventory()
    switch component {
    case .textEncoder: inventory.add("embedding.weight", [256, configuration.width])
    case .transformer:
      for block in 0..<2 {
        inventory.linear("blocks.\(block)", configuration.channels + configuration.width, configuration.channels)
      }
    case .vae: inventory.add("colour.weight", [configuration.channels])
    default: preconditionFailure("\(component.rawValue) has no weights")
    }
    return inventory
  }

  func isUnused(_ name: String, in component: ModelComponent) -> Bool { false }

  func conditioner(
    of model: ModelDirectory, loading: WeightLoading, pool: ThreadPool, limits: ModelLimits, readsImages: Bool
  ) throws -> any PromptConditioner {
    let (weights, compute) = try model.open(.textEncoder, pool: pool, loading)
    return ToyConditioner(
      table: try weights.tensor("embedding.weight", [256, configuration.width]), compute: compute,
      maxTokens: limits.maxPromptTokens)
  }

  func predictor(
    of model: ModelDirectory, loading: WeightLoading, pool: ThreadPool, options: PredictorOptions
  ) throws -> any VelocityPredictor {
    let (weights, compute) = try model.open(.transformer, pool: pool, loading)
    let reader = ModuleReader(weights, compute: compute, layers: Self.layers)
    let (width, channels) = (configuration.width, configuration.channels)
    let blocks = try (0..<2).map { try reader.linear("blocks.\($0)", input: channels + width, output: channels) }
    try reader.finish()
    return ToyPredictor(blocks: blocks, width: width, channels: channels, compute: compute)
  }

  func codec(of model: ModelDirectory, pool: ThreadPool, parts: CodecParts) throws -> any LatentCodec {
    let colour = try model.weights(of: .vae).tensor("colour.weight", [configuration.channels])
    return ToyCodec(colour: colour.floats(), compute: Compute(precision: .fp32, pool: pool))
  }

  static func syntheticFiles(_ size: SyntheticSize, withTokenizer: Bool) throws -> [String: Data] {
    let texts = [
      "model_index.json": """
      {"_class_name": "ToyPipeline", "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
       "transformer": ["toy", "ToyTransformer"]}
      """,
      "scheduler/scheduler_config.json":
        #"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "use_dynamic_shifting": false}"#,
      "transformer/config.json": #"{"width": \#(size == .tiny ? 8 : 64), "channels": 3}"#,
    ]
    return texts.mapValues { Data($0.utf8) }
  }
}

private struct ToyConditioner: PromptConditioner {
  let table: Tensor
  let compute: Compute
  let maxTokens: Int
  var numericsClass: String { ToyFamily.layers.numericsClass(compute) }

  func tokens(_ prompt: PromptInput, field: String) throws(PipelineError) -> PromptTokens {
    let ids = prompt.text.utf8.map { Int($0) } + [0]
    guard ids.count <= maxTokens else {
      throw .invalidRequest(field: field, reason: "has \(ids.count) tokens; the limit is \(maxTokens)")
    }
    return PromptTokens(ids: ids, droppedCount: 0)
  }

  func encode(_ prompts: [PromptTokens]) -> [PromptConditioning] { prompts.map { encode($0, probe: .none) } }

  func encode(_ prompt: PromptTokens, probe: Probe) -> PromptConditioning {
    let rows = prompt.ids.flatMap { table.rows($0..<$0 + 1).floats() }
    return PromptConditioning(embeds: Tensor(rows, shape: [prompt.ids.count, table.shape[1]]))
  }
}

private struct ToyPredictor: VelocityPredictor {
  let blocks: [Linear]
  let width: Int
  let channels: Int
  let compute: Compute
  static let sharedTokensMax = 64
  var numericsClass: String { ToyFamily.layers.numericsClass(compute) }

  /// The mean of the prompt, and the noise levels.
  struct Prepared: Sendable {
    let mean: [Float]
    let times: [Float]
  }

  func prepare(_ image: DenoisingInput, times: [Float]) throws(PipelineError) -> [Prepared] {
    let found = image.latents.shape, expected: Shape = [image.grid.tokenCount, channels]
    guard found == expected else {
      throw .invalidRequest(field: "latents", reason: "is \(found); expected \(expected)")
    }
    return image.prompts.map { prompt in
      let (rows, values) = (prompt.embeds.shape[0], prompt.embeds.floats())
      let mean = (0..<width).map { column in
        (0..<rows).reduce(Float(0)) { $0 + values[$1 * width + column] } / Float(rows)
      }
      return Prepared(mean: mean, times: times)
    }
  }

  func tokenCount(_ call: VelocityCall<Prepared>) -> Int { call.latents.shape[0] }

  func velocities(_ calls: [VelocityCall<Prepared>]) -> [Tensor] { calls.map { velocity($0, probe: .none) } }

  func velocity(_ call: VelocityCall<Prepared>, probe: Probe) -> Tensor {
    let time = call.branch.times[call.step], rows = call.latents.shape[0]
    var x = call.latents
    for block in blocks {
      let values = x.floats()
      let joined = (0..<rows).flatMap { row in
        values[row * channels..<(row + 1) * channels] + call.branch.mean.map { $0 * time }
      }
      x = compute.linear(Tensor(joined, shape: [rows, channels + width]), block, output: .fp32)
    }
    return x
  }
}

private struct ToyCodec: LatentCodec {
  let colour: [Float]
  let compute: Compute
  var numericsClass: String { compute.numericsClass }

  func decode(_ latents: Tensor, grid: TokenGrid, probe: Probe) -> Tensor {
    let (height, width, channels) = (grid.height * 8, grid.width * 8, colour.count), values = latents.floats()
    var pixels: [Float] = []
    for y in 0..<height {
      for x in 0..<width {
        let token = y / 8 * grid.width + x / 8
        for channel in 0..<channels {
          pixels.append(min(max(values[token * channels + channel] + colour[channel], -1), 1))
        }
      }
    }
    return Tensor(pixels, shape: [height, width, channels])
  }

  /// The upper left pixel of each token.
  func encode(_ pixels: Tensor, noise: Tensor?, probe: Probe) -> Tensor {
    let (height, width, channels) = (pixels.shape[0] / 8, pixels.shape[1] / 8, colour.count), values = pixels.floats()
    var latents: [Float] = []
    for channel in 0..<channels {
      for token in 0..<height * width {
        let pixel = token / width * 8 * pixels.shape[1] + token % width * 8
        latents.append(values[pixel * channels + channel] - colour[channel])
      }
    }
    return Tensor(latents, shape: [channels, height, width])
  }
}
