import ClusterCore
import Diffusion
import Foundation
import ImageCodec
import Kernels
import ModelRegistry
@_spi(Benchmarks) import QwenImage
@_spi(Benchmarks) import QwenImage21
import TensorCore
import Weights

/// Something to measure, with inputs and weights that the reference's side computes too
/// (Tests/Golden/make_fullsize.py).
struct BenchmarkCase {
  /// Does it once.
  let run: () throws -> Tensor?
  /// Whether results are kept for comparison.
  var isCompared = true

  /// Text tokens of a block.
  static let textTokens = 128
  /// Index of the block or layer that stands for all: the quantised modes leave the first one in bf16.
  static let timedLayer = 1

  struct UnknownKind: Error { let kind: String }

  /// Image tokens of a block with condition images, a square of 512 pixels.
  static let editedTokens = 1024
  /// Text tokens there: 196 of an image of 384² pixels, the rest words.
  static let editTextTokens = 256

  /// Kinds of the first family: `block` (size: image tokens, a square), `block-lora` (the same with a LoRA of rank 32
  /// beside all layers of attention and MLPs), `edit` (a block with 1024 image tokens and a
  /// condition image of `size` tokens), `edit0` (the same with condition images modulated as at time 0), `attention`,
  /// `layer` (tokens), `vision` (pixels of a side; eight blocks, one of them with full attention: a quarter of the
  /// tower), `vae`, `vae-encode` (decoder and encoder; pixels of a side), `pair`, `shared` (two branches of guidance,
  /// one by one or in one pass; size: image tokens), `prompts1`, `prompts8` (a text encoder's layer over one or eight
  /// prompts of `size` tokens after its prefix).
  ///
  /// Of the second one: `block21` (a block over an image of `size` tokens behind a text whose keys and values are
  /// kept), `block21-edit` (behind a text and a reference of `size` tokens), `block21-edit-whole` (the same without
  /// keys and values that are kept), `single`, `prefix` (a step of two blocks over an image of `size` tokens behind a
  /// text, or what a text and a reference of `size` tokens leave in them), `layer21` (tokens), `vision21` (pixels of a
  /// side; the whole tower), `vae21`, `vae21-encode` (pixels of a side).
  ///
  /// Of either: `pipeline` (pixels of a side, of the checkpoint `model`; `model:STEPS`).
  init(kind: String, size: Int, precision: Precision, model: String?, pool: ThreadPool) throws {
    let compute = Compute(precision: precision, pool: pool)
    switch kind {
    case "block": run = try Self.block(size, compute)
    case "block-lora":
      run = try Self.adaptedBlock(size, compute)
      isCompared = false
    case "edit", "edit0": run = try Self.edit(size, compute, hasTimeZero: kind == "edit0")
    case "single": run = try Self.singleStream(size, compute)
    case "prefix": run = try Self.prefix(size, compute)
    case "block21": run = try Self.block21(size, compute, hasReference: false, usesPrefixCache: true)
    case "block21-edit": run = try Self.block21(size, compute, hasReference: true, usesPrefixCache: true)
    case "block21-edit-whole": run = try Self.block21(size, compute, hasReference: true, usesPrefixCache: false)
    case "layer21": run = try Self.layer21(size, compute)
    case "vision21": run = try Self.vision21(size, compute)
    case "attention": run = Self.attention(size, compute)
    case "layer": run = try Self.layer(size, compute)
    case "vision": run = try Self.vision(size, compute)
    case "vae": run = try Self.vae(size, compute)
    case "vae-encode": run = try Self.vaeEncode(size, compute)
    case "vae21": run = try Self.residualVAE(size, compute)
    case "vae21-encode": run = try Self.residualVAEEncode(size, compute)
    case "pair", "shared": run = try Self.guidance(size, compute, isShared: kind == "shared")
    case "prompts1", "prompts8": run = try Self.prompts(size, count: kind == "prompts8" ? 8 : 1, compute)
    case "pipeline":
      run = try Self.pipeline(size, model ?? "", precision, pool)
      isCompared = false
    default: throw UnknownKind(kind: kind)
    }
  }

  private static func uniforms(_ name: String, _ rows: Int, _ columns: Int) -> Tensor {
    Tensor(SyntheticWeights.uniforms(name, count: rows * columns), shape: [rows, columns])
  }

  private static func branch(_ size: Int, text: Int, _ transformer: MMDiT) -> MMDiT.Branch {
    let side = Int(Double(size).squareRoot()), grid = TokenGrid(height: side, width: size / side)
    return MMDiT.Branch(
      latents: uniforms("input.latents", grid.tokenCount, 64),
      conditioning: transformer.condition(promptEmbeds: uniforms("input.prompt_embeds", text, 3584), grid: grid),
      modulation: transformer.modulation(times: [0.7]), step: 0)
  }

  private static func transformer(_ compute: Compute, hasTimeZero: Bool = false) throws -> MMDiT {
    var configuration = TransformerConfiguration.published
    configuration.layerCount = timedLayer + 1
    configuration.zeroCondT = hasTimeZero
    return try MMDiT(.synthetic("transformer"), configuration: configuration, compute: compute)
  }

  private static func block(_ size: Int, _ compute: Compute) throws -> () -> Tensor? {
    let transformer = try transformer(compute)
    return block(transformer, branch(size, text: textTokens, transformer))
  }

  private static func adaptedBlock(_ size: Int, _ compute: Compute) throws -> () -> Tensor? {
    let transformer = try transformer(compute), adapted = try transformer.adapted(by: lora(for: transformer))
    return block(adapted, branch(size, text: textTokens, adapted))
  }

  /// A LoRA of rank 32 for the timed block.
  private static func lora(for transformer: MMDiT) throws -> AdapterSet {
    let file = FileManager.default.temporaryDirectory.appending(path: "lora-\(UUID().uuidString).safetensors")
    defer { try? FileManager.default.removeItem(at: file) }
    let layers = ParameterInventory(transformer: transformer.configuration).parameters.filter {
      $0.isLinear && $0.name.hasPrefix("transformer_blocks.\(timedLayer).") && !$0.name.contains("_mod.")
    }
    let rank = 32
    try SafetensorsWriter.write(
      layers.flatMap { layer in
        let name = layer.name.dropLast(".weight".count)
        return [
          (name: "\(name).lora_A.weight", tensor: uniforms("\(name).a", rank, layer.shape[1])),
          (name: "\(name).lora_B.weight", tensor: uniforms("\(name).b", layer.shape[0], rank)),
        ]
      }, to: file)
    return try AdapterSet([(adapter: Adapter(file), scale: 1)])
  }

  private static func edit(_ size: Int, _ compute: Compute, hasTimeZero: Bool) throws -> () -> Tensor? {
    let transformer = try transformer(compute, hasTimeZero: hasTimeZero)
    let side = Int(Double(size).squareRoot()), grid = TokenGrid(height: side, width: size / side)
    var branch = branch(editedTokens, text: editTextTokens, transformer)
    branch.conditioning = transformer.condition(
      promptEmbeds: uniforms("input.prompt_embeds", editTextTokens, 3584), grid: TokenGrid(height: 32, width: 32),
      references: transformer.references([
        ReferenceLatents(latents: uniforms("input.reference", grid.tokenCount, 64), grid: grid)
      ]))
    return block(transformer, branch)
  }

  private static func block(_ transformer: MMDiT, _ branch: MMDiT.Branch) -> () -> Tensor? {
    let start = transformer.streams([branch])
    return {
      var streams = start
      transformer.runBlocks(&streams, [branch], range: timedLayer..<timedLayer + 1, updatesLastText: true)
      return streams.image
    }
  }

  /// The second family at its published width, and an image of `size` tokens.
  private static func singleStream(
    _ compute: Compute, _ size: Int, usesPrefixCache: Bool = true
  ) throws -> (transformer: SingleStreamTransformer, image: DenoisingInput) {
    var configuration = SingleStreamConfiguration.published
    configuration.layerCount = timedLayer + 1
    let transformer = try SingleStreamTransformer(
      .synthetic("transformer"), configuration: configuration, compute: compute, usesPrefixCache: usesPrefixCache)
    let side = Int(Double(size).squareRoot()), grid = TokenGrid(height: side, width: size / side)
    let embeds = uniforms("input.prompt_embeds", textTokens, configuration.contextDim)
    return (
      transformer,
      DenoisingInput(
        prompt: PromptConditioning(embeds: embeds), negativePrompt: nil,
        latents: uniforms("input.latents", grid.tokenCount, configuration.channels), grid: grid, steps: 1,
        trueCFGScale: 1)
    )
  }

  private static func singleStream(_ size: Int, _ compute: Compute) throws -> () -> Tensor? {
    let (transformer, image) = try singleStream(compute, size)
    let branch = try transformer.prepare(image, times: [0.7])[0]
    return { transformer.velocity(VelocityCall(branch: branch, latents: image.latents, step: 0), probe: .none) }
  }

  private static func prefix(_ size: Int, _ compute: Compute) throws -> () throws -> Tensor? {
    let (transformer, image) = try singleStream(compute, size)
    let input = behindReference(image)
    return { try transformer.prepare(input, times: [0.7])[0].cache?.keys(block: timedLayer) }
  }

  /// The image behind a reference of its size, which comes after eight tokens of the text.
  private static func behindReference(_ image: DenoisingInput) -> DenoisingInput {
    let latents = image.latents.shape
    var result = image
    result.references = [
      ReferenceLatents(latents: uniforms("input.reference", latents[0], latents[1]), grid: image.grid)
    ]
    result.prompts[0].imagePlaces = [8]
    return result
  }

  private static func block21(
    _ size: Int, _ compute: Compute, hasReference: Bool, usesPrefixCache: Bool
  ) throws -> () -> Tensor? {
    // Keys and values of the timed block are made for it alone.
    let (transformer, image) = try singleStream(compute, size, usesPrefixCache: false)
    let branch = try transformer.prepare(hasReference ? behindReference(image) : image, times: [0.7])[0]
    let call = VelocityCall(branch: branch, latents: image.latents, step: 0)
    let pass = transformer.pass(ofBlock: timedLayer, call, usesPrefixCache: usesPrefixCache)
    return { transformer.runBlock(timedLayer, pass) }
  }

  private static func guidance(_ size: Int, _ compute: Compute, isShared: Bool) throws -> () -> Tensor? {
    let transformer = try transformer(compute)
    let branches = [branch(size, text: 40, transformer), branch(size, text: 8, transformer)]
    return {
      for pass in isShared ? [branches] : branches.map({ [$0] }) {
        var streams = transformer.streams(pass)
        transformer.runBlocks(&streams, pass, range: timedLayer..<timedLayer + 1, updatesLastText: true)
      }
      return nil
    }
  }

  private static func attention(_ size: Int, _ compute: Compute) -> () -> Tensor? {
    let heads = 24, width = heads * 128
    func input(_ name: String) -> Tensor {
      let tensor = uniforms("input.\(name)", size, width)
      return compute.activationDType == .fp32 ? tensor : compute.converted(tensor, to: .bf16)
    }
    let (q, k, v) = (input("q"), input("k"), input("v"))
    return { compute.attention(q: q, k: k, v: v, heads: heads, kvHeads: heads, headDim: 128, causal: false) }
  }

  private static func languageModel(_ compute: Compute) throws -> LanguageModel {
    var configuration = TextEncoderConfiguration.published
    configuration.layerCount = timedLayer + 1
    configuration.vocabularySize = 1024
    return try LanguageModel(.synthetic("text_encoder"), configuration: configuration, compute: compute)
  }

  private static func tokens(_ count: Int) -> [Int] { (0..<count).map { $0 * 37 % 1024 } }

  private static func layer(_ size: Int, _ compute: Compute) throws -> () -> Tensor? {
    let model = try languageModel(compute), ids = tokens(size)
    return { model.runLayer(timedLayer, [ids])[0] }
  }

  private static func prompts(_ size: Int, count: Int, _ compute: Compute) throws -> () -> Tensor? {
    let model = try languageModel(compute), prefix = model.prefix(tokens(34))
    let prompts = Array(repeating: tokens(size), count: count)
    return { model.runLayer(timedLayer, prompts, after: prefix)[0] }
  }

  private static func vision(_ size: Int, _ compute: Compute) throws -> () -> Tensor? {
    var configuration = VisionConfiguration.published
    configuration.depth = 8
    configuration.fullAttentionBlocks = [7]
    let tower = try VisionTower(.synthetic("text_encoder"), configuration: configuration, compute: compute)
    let side = size / configuration.tokenEdgePx * configuration.mergeSize, grid = TokenGrid(height: side, width: side)
    let image = PatchedImage(
      patches: uniforms("input.pixels", grid.tokenCount, configuration.patchValues), grid: grid)
    return { tower([image])[0] }
  }

  private static func layer21(_ size: Int, _ compute: Compute) throws -> () -> Tensor? {
    var configuration = Qwen3TextConfiguration.published
    configuration.layerCount = timedLayer + 1
    configuration.vocabularySize = 1024
    let model = try Qwen3LanguageModel(.synthetic("text_encoder"), configuration: configuration, compute: compute)
    let ids = tokens(size)
    return { model.runLayer(timedLayer, ids) }
  }

  private static func vision21(_ size: Int, _ compute: Compute) throws -> () -> Tensor? {
    let configuration = Qwen3VisionConfiguration.published
    let tower = try Qwen3VisionTower(.synthetic("text_encoder"), configuration: configuration, compute: compute)
    let side = size / configuration.patchSize, grid = TokenGrid(height: side, width: side)
    let image = PatchedImage(
      patches: uniforms("input.pixels", grid.tokenCount, configuration.geometry.patchValues), grid: grid)
    return { tower.runTower(image) }
  }

  private static func vae(_ size: Int, _ compute: Compute) throws -> () -> Tensor? {
    let decoder = try VAEDecoder(.synthetic("vae"), configuration: .published, compute: compute)
    let latents = uniforms("input.latents", 16, size / 8 * (size / 8)).reshaped([16, size / 8, size / 8])
    return { decoder(latents) }
  }

  private static func vaeEncode(_ size: Int, _ compute: Compute) throws -> () -> Tensor? {
    let encoder = try VAEEncoder(.synthetic("vae"), configuration: .published, compute: compute)
    let pixels = uniforms("input.pixels", size * size, 3).reshaped([size, size, 3])
    return { encoder(pixels, noise: nil) }
  }

  private static func residualVAE(_ size: Int, _ compute: Compute) throws -> () -> Tensor? {
    let decoder = try ResidualVAEDecoder(.synthetic("vae"), configuration: .published, compute: compute)
    let latents = uniforms("input.latents", 64, size / 16 * (size / 16)).reshaped([64, size / 16, size / 16])
    return { decoder(latents) }
  }

  private static func residualVAEEncode(_ size: Int, _ compute: Compute) throws -> () -> Tensor? {
    let encoder = try ResidualVAEEncoder(.synthetic("vae"), configuration: .published, compute: compute)
    let pixels = uniforms("input.pixels", size * size, 4).reshaped([size, size, 4])
    return { encoder(pixels, noise: nil) }
  }

  private static func pipeline(_ size: Int, _ model: String, _ precision: Precision, _ pool: ThreadPool) throws -> ()
    throws -> Tensor?
  {
    let parts = model.split(separator: ":").map(String.init), steps = parts.count > 1 ? Int(parts[1]) ?? 4 : 4
    let directory = try ModelDirectory(URL(filePath: parts[0]))
    let pipeline = try LocalModel(
      directory, loading: WeightLoading(precision: PrecisionChoice(rawValue: precision.rawValue) ?? .auto),
      pool: pool)
    var number = 0
    return {
      number += 1
      let request = ImageRequest(
        prompt: "a red heart, number \(number)", negativePrompt: " ", trueCFGScale: 4, steps: steps,
        size: ImageSize(widthPx: size, heightPx: size), seed: UInt64(number))
      _ = try PNG.encode(pipeline(request))
      return nil
    }
  }
}
