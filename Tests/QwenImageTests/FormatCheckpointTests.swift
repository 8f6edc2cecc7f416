import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import ImageCodec
import Kernels
import ModelRegistry
import QwenImage
import TensorCore
import Testing
import Weights

private let pool = ThreadPool(threads: 2)

extension StoredTensor {
  /// The tensor in blocks of Q8_0, and what these stand for; nil: its rows are no whole blocks.
  fileprivate var q8_0: (blocks: [UInt8], values: StoredTensor)? {
    guard shape.count == 2, shape[1] % 32 == 0 else { return nil }
    var blocks: [UInt8] = [], values: [UInt8] = []
    let floats = floats
    for start in stride(from: 0, to: floats.count, by: 32) {
      // A scale of few bits is exact in half precision.
      let largest = floats[start..<start + 32].map(\.magnitude).max() ?? 0
      let scale = largest == 0 ? 0 : Float(sign: .plus, exponent: max(Int(largest.exponent) - 6, -14), significand: 1)
      let bits = scale == 0 ? 0 : UInt16(Int(scale.exponent) + 15) << 10
      blocks += [UInt8(truncatingIfNeeded: bits), UInt8(bits >> 8)]
      for value in floats[start..<start + 32] {
        let number = scale == 0 ? 0 : (value / scale).rounded(.toNearestOrEven)
        let level = Int8(max(-128, min(127, number)))
        blocks.append(UInt8(bitPattern: level))
        let bits = (scale * Float(level)).bitPattern
        values += (0..<4).map { UInt8(truncatingIfNeeded: bits >> (8 * $0)) }
      }
    }
    return (blocks, StoredTensor(dtype: "F32", shape: shape, bytes: values))
  }
}

extension CheckpointCopy {
  /// Replaces a component's files by a GGUF file with the same tensors.
  fileprivate func convertToGGUF(
    _ component: ModelComponent, as name: String, _ rename: (String) -> String = { $0 }
  ) throws {
    try merge(component)
    let path = Self.single(component), stored = try StoredFile(file(path))
    try remove(path)
    var gguf = StoredGGUF(stored)
    for index in gguf.tensors.indices { gguf.tensors[index].name = rename(gguf.tensors[index].name) }
    try write(gguf.bytes(), to: "\(component.rawValue)/\(name)")
  }

  /// Replaces a component's files by a GGUF file with blocks of Q8_0 where rows have whole ones, and those of `plain`
  /// by a safetensors file with their values.
  fileprivate func quantise(
    _ component: ModelComponent, beside plain: borrowing CheckpointCopy, _ rename: (String) -> String = { $0 }
  ) throws -> Int {
    var tensors: [StoredGGUF.Tensor] = [], count = 0
    try plain.merge(component) { file in
      for index in file.tensors.indices {
        let (name, tensor) = file.tensors[index]
        if let quantised = tensor.q8_0 {
          tensors.append(.init(rename(name), tensor.shape, type: 8, quantised.blocks))
          file.tensors[index].tensor = quantised.values
          count += 1
        } else {
          tensors.append(.init(rename(name), tensor.shape, type: StoredGGUF.types[tensor.dtype] ?? -1, tensor.bytes))
        }
      }
    }
    try merge(component)
    try remove(Self.single(component))
    try write(StoredGGUF(tensors).bytes(), to: "\(component.rawValue)/model-Q8_0.gguf")
    return count
  }
}

/// The names of llama.cpp for those of the language model and of the vision tower.
private func llamaName(_ published: String) -> String {
  var name = published
  for (pattern, replacement) in [
    ("model.embed_tokens.", "token_embd."), ("model.norm.", "output_norm."), ("lm_head.", "output."),
    ("model.layers.", "blk."), ("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"), ("self_attn.o_proj", "attn_output"), ("post_attention_layernorm", "ffn_norm"),
    ("input_layernorm", "attn_norm"), ("visual.blocks.", "v.blk."), ("visual.merger.ln_q", "v.post_ln"),
    ("visual.merger.mlp.", "mm."), ("attn.qkv", "attn_qkv"),
    ("attn.proj", "attn_out"), ("norm1", "ln1"),
    ("norm2", "ln2"),
    ("mlp.gate_proj", "ffn_gate"), ("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down"),
  ] {
    name = name.replacing(pattern, with: replacement)
  }
  return name
}

/// Checkpoints in other formats than diffusers' safetensors: the tensors are the same, and so is the image.
@Suite struct FormatCheckpointTests {
  private static func merged(_ component: ModelComponent) throws -> StoredFile {
    let copy = try CheckpointCopy()
    try copy.merge(component)
    return try StoredFile(copy.file(CheckpointCopy.single(component)))
  }

  /// Requires that all tensors of the published component are in `weights`, with the same values.
  private static func expectAll(
    of component: ModelComponent, in weights: ComponentWeights, where isIncluded: (String) -> Bool = { _ in true }
  ) throws {
    let published = try ModelDirectory(Golden.tinyCheckpoint).weights(of: component)
    let names = published.names.filter(isIncluded)
    #expect(!names.isEmpty && weights.names.filter(isIncluded) == names)
    for name in names {
      let shape = try #require(published.entry(name)).shape
      let found = try weights.tensor(name, shape).floats(), expected = try published.tensor(name, shape).floats()
      #expect(found == expected, "\(name)")
    }
  }

  // MARK: - Transformers

  @Test(arguments: ["", "model.diffusion_model."]) func transformersOfGGUFAreTheSame(_ prefix: String) throws {
    let expected = try draw(Golden.tinyCheckpoint), copy = try CheckpointCopy()
    try copy.convertToGGUF(.transformer, as: "qwen-image-BF16.gguf") { prefix + $0 }
    #expect(try draw(copy.url) == expected)
    let model = try ModelDirectory(copy.url), weights = try model.weights(of: .transformer)
    #expect(weights.files.first?.gguf?.architecture == "qwen_image" && weights.storedPrecision == nil)
    try Self.expectAll(of: .transformer, in: weights)
  }

  @Test(arguments: ["F32", "F16"]) func otherPlainTypesAreTheSame(_ dtype: String) throws {
    let plain = try CheckpointCopy()
    try plain.merge(.transformer) { file in
      for index in file.tensors.indices { file.tensors[index].tensor = file.tensors[index].tensor.converted(to: dtype) }
    }
    let copy = try CheckpointCopy(of: plain.url)
    try copy.convertToGGUF(.transformer, as: "a.GGUF")
    #expect(try draw(copy.url) == draw(plain.url))
  }

  /// Blocks are what their values are, in every mode, in the cache, and when they are packed.
  @Test func blocksAreTheirValues() throws {
    let plain = try CheckpointCopy(), copy = try CheckpointCopy()
    #expect(try copy.quantise(.transformer, beside: plain) > 4)
    #expect(try copy.quantise(.textEncoder, beside: plain, llamaName) > 10)
    #expect(try draw(copy.url) == draw(plain.url))
    let model = try ModelDirectory(copy.url), original = try ModelDirectory(plain.url)
    let entry = try #require(try model.weights(of: .textEncoder).entry("model.embed_tokens.weight"))
    #expect(entry.dtypeName == "Q8_0")
    for precision in [Precision.bf16, .int8, .q4] {
      let folder = try TemporaryDirectory()
      var found: [[String: [UInt8]]] = []
      for (name, source) in [("a", model), ("b", original)] {
        let target = folder.url.appending(path: name)
        _ = try QuantisedCheckpoint.write(source, precision: precision, to: target, pool: pool) { _, _ in }
        found.append(try Self.packed(target))
      }
      // Layers that a mode keeps in bf16 are packed where they were quantised, and else stored as published.
      #expect(!found[1].isEmpty && found[1].allSatisfy { found[0][$0.key] == $0.value }, "\(precision)")
      #expect(try draw(folder.url.appending(path: "a"), precision) == draw(copy.url, precision))
    }
    let fingerprints = try [model, original].map { try $0.componentFingerprint(.transformer) }
    #expect(fingerprints[0] != fingerprints[1])
  }

  private func draw(_ url: URL) throws -> RasterImage { try Self.image(url, .fp32) }

  private func draw(_ url: URL, _ precision: Precision) throws -> RasterImage {
    try Self.image(url, PrecisionChoice(rawValue: precision.rawValue) ?? .auto)
  }

  private static func image(_ url: URL, _ precision: PrecisionChoice) throws -> RasterImage {
    let pipeline = try LocalModel(ModelDirectory(url), loading: WeightLoading(precision: precision), pool: pool)
    return try pipeline(
      ImageRequest(
        prompt: "star", negativePrompt: " ", trueCFGScale: 4, steps: 1, size: ImageSize(widthPx: 64, heightPx: 64),
        seed: 1))
  }

  /// The bytes of packed layers, by their names.
  private static func packed(_ checkpoint: URL) throws -> [String: [UInt8]] {
    var bytes: [String: [UInt8]] = [:]
    for component in [ModelComponent.transformer, .textEncoder] {
      let weights = try ModelDirectory(checkpoint).weights(of: component)
      for name in weights.names where name.hasSuffix(".panels") || name.hasSuffix(".scales") {
        let count = try #require(weights.entry(name)).byteCount
        bytes["\(component.rawValue) \(name)"] = try weights.readBytes(of: name, in: 0..<count)
      }
    }
    return bytes
  }

  // MARK: - Text encoders

  /// The tensors of the vision tower in the parts that llama.cpp makes of them.
  private static func tower(_ tensor: (name: String, tensor: StoredTensor)) -> [StoredGGUF.Tensor] {
    let (name, stored) = tensor, type = StoredGGUF.types[stored.dtype] ?? -1, parts = ["q", "k", "v"]
    if name == "visual.patch_embed.proj.weight" {
      let shape = stored.shape, plane = shape[3] * shape[4] * stored.width
      return (0..<2).map { tap in
        let planes = stride(from: tap * plane, to: stored.bytes.count, by: 2 * plane).flatMap {
          stored.bytes[$0..<$0 + plane]
        }
        return .init(
          "v.patch_embd.weight" + (tap == 0 ? "" : ".1"), [shape[0], shape[1], shape[3], shape[4]], type: type, planes)
      }
    }
    guard name.contains(".attn.qkv.") else { return [.init(llamaName(name), stored.shape, type: type, stored.bytes)] }
    let count = stored.bytes.count / 3
    return parts.enumerated().map { index, part in
      .init(
        llamaName(name.replacing("attn.qkv", with: "attn_\(part)")), [stored.shape[0] / 3] + stored.shape.dropFirst(),
        type: type, Array(stored.bytes[index * count..<(index + 1) * count]))
    }
  }

  @Test(arguments: [true, false]) func encodersHaveLlamaNames(_ isSplit: Bool) throws {
    let directory = try TemporaryDirectory(), stored = try Self.merged(.textEncoder)
    let text = stored.tensors.filter { !$0.name.hasPrefix("visual.") }
    let vision = stored.tensors.filter { $0.name.hasPrefix("visual.") }.flatMap { tensor in
      isSplit || !tensor.name.contains(".attn.qkv.")
        ? Self.tower(tensor)
        : [
          .init(
            llamaName(tensor.name), tensor.tensor.shape,
            type: StoredGGUF.types[tensor.tensor.dtype] ?? -1, tensor.tensor.bytes)
        ]
    }
    let model = StoredGGUF(
      architecture: "qwen2vl",
      text.map {
        .init(llamaName($0.name), $0.tensor.shape, type: StoredGGUF.types[$0.tensor.dtype] ?? -1, $0.tensor.bytes)
      })
    #expect(model.tensors.contains { $0.name == "blk.0.attn_q.bias" })
    let tower = StoredGGUF(architecture: "clip", vision)
    try Data(model.bytes()).write(to: directory.url.appending(path: "Qwen2.5-VL-7B-Instruct-BF16.gguf"))
    try Data(tower.bytes()).write(to: directory.url.appending(path: "mmproj-BF16.gguf"))
    let weights = try QwenImageFamily.weights(of: .textEncoder, from: .folder(directory.url))
    try Self.expectAll(of: .textEncoder, in: weights)
    let layer = try weights.linearWeight("visual.blocks.1.attn.qkv.weight", [96, 32])
    if isSplit, case .stacked(let parts) = layer { #expect(parts.count == 3) }
    #expect(weights.partCount(of: "visual.blocks.1.attn.qkv.weight") == (isSplit ? 3 : 1))
  }

  // MARK: - Autoencoders

  /// The names of the authors, and of ComfyUI, for those of diffusers; for a decoder of levels with as many blocks as
  /// the tiny one's.
  private static func originalName(_ published: String, blocks: Int) -> String {
    var name = published
    let residual = [("norm1", "residual.0"), ("conv1", "residual.2"), ("norm2", "residual.3"), ("conv2", "residual.6")]
    for (inner, original) in residual where name.contains("resnets.") || name.contains("down_blocks.") {
      name = name.replacing(".\(inner).", with: ".\(original).")
    }
    for (pattern, original) in [
      ("conv_shortcut", "shortcut"), ("mid_block.resnets.0", "middle.0"), ("mid_block.attentions.0", "middle.1"),
      ("mid_block.resnets.1", "middle.2"), ("conv_in", "conv1"), ("norm_out", "head.0"), ("conv_out", "head.2"),
      ("down_blocks", "downsamples"),
    ] {
      name = name.replacing(pattern, with: original)
    }
    if name.hasPrefix("post_quant_conv.") { return name.replacing("post_quant_conv", with: "conv2") }
    if name.hasPrefix("quant_conv.") { return name.replacing("quant_conv", with: "conv1") }
    let words = name.split(separator: ".").map(String.init)
    guard words.count > 5, words[1] == "up_blocks", let level = Int(words[2]) else { return name }
    let place = words[3] == "upsamplers" ? blocks : Int(words[4]) ?? 0
    return (["decoder", "upsamples", "\(level * (blocks + 1) + place)"] + words.dropFirst(5)).joined(separator: ".")
  }

  @Test func autoencodersHaveTheirAuthorsNames() throws {
    let copy = try CheckpointCopy(), expected = try draw(Golden.tinyCheckpoint)
    let configuration = try ModelDirectory(Golden.tinyCheckpoint).qwenImage.vae
    try copy.merge(.vae) { file in
      file.tensors = file.tensors.map {
        (Self.originalName($0.name, blocks: configuration.resBlockCount + 1), $0.tensor)
      }
    }
    try copy.move("vae/diffusion_pytorch_model.safetensors", to: "vae/qwen_image_vae.safetensors")
    let model = try ModelDirectory(copy.url)
    let stored = try StoredFile(copy.file("vae/qwen_image_vae.safetensors")).tensors.map(\.name)
    #expect(stored.contains("decoder.upsamples.3.resample.1.weight") && stored.contains("decoder.head.0.gamma"))
    #expect(stored.contains("encoder.downsamples.0.residual.2.weight") && stored.contains("conv2.bias"))
    try Self.expectAll(of: .vae, in: model.weights(of: .vae))
    #expect(try draw(copy.url) == expected)
    // `quantize` writes the published names.
    let target = copy.directory.url.appending(path: "q")
    _ = try QuantisedCheckpoint.write(model, precision: .bf16, to: target, pool: pool) { _, _ in }
    #expect(try ModelDirectory(target).weights(of: .vae).isPublished)
    try Self.expectAll(of: .vae, in: ModelDirectory(target).weights(of: .vae))
  }

  // MARK: - 8-bit floating point

  /// Numbers in 8 bits are what torch casts them to, scaled or not.
  @Test(arguments: [false, true]) func float8IsItsValues(_ isScaled: Bool) throws {
    let plain = try CheckpointCopy(), copy = try CheckpointCopy()
    let reference = try SafetensorsFile(golden.appending(path: "formats/formats.safetensors"))
    let values = try reference.tensor("F8_E4M3").floats()
    for component in [ModelComponent.transformer, .textEncoder] {
      var scales: [(name: String, tensor: StoredTensor)] = []
      try copy.merge(component) { file in
        for index in file.tensors.indices where file.tensors[index].tensor.shape.count == 2 {
          let (name, tensor) = file.tensors[index], elements = tensor.floats
          // The nearest smaller number, up to 1: what matters is that both checkpoints have the same.
          let bytes = elements.map { value in
            UInt8((0..<0x38).last { values[$0] <= abs(value) } ?? 0) | (value < 0 ? 0x80 : 0)
          }
          file.tensors[index].tensor = StoredTensor(dtype: "F8_E4M3", shape: tensor.shape, bytes: bytes)
          guard isScaled else { continue }
          let bits = Float(0.75 + 0.01 * Float(index % 7)).bitPattern
          scales.append(
            (
              name.replacing(".weight", with: ".scale_weight"),
              StoredTensor(
                dtype: "F32", shape: [], bytes: (0..<4).map { UInt8(truncatingIfNeeded: bits >> (8 * $0)) })
            ))
        }
        if isScaled { file.tensors += scales + [("scaled_fp8", StoredTensor(dtype: "F8_E4M3", shape: [0], bytes: []))] }
      }
      let stored = try StoredFile(copy.file(CheckpointCopy.single(component)))
      try plain.merge(component) { file in
        for index in file.tensors.indices where file.tensors[index].tensor.shape.count == 2 {
          let name = file.tensors[index].name, tensor = try #require(stored[name])
          let factor = stored[name.replacing(".weight", with: ".scale_weight")]?.floats.first ?? 1
          let bytes = tensor.bytes.flatMap { number in
            let bits = (values[Int(number)] * factor).bitPattern
            return (0..<4).map { UInt8(truncatingIfNeeded: bits >> (8 * $0)) }
          }
          file.tensors[index].tensor = StoredTensor(dtype: "F32", shape: tensor.shape, bytes: bytes)
        }
      }
    }
    #expect(try draw(copy.url) == draw(plain.url))
    #expect(try draw(copy.url, .int8) == draw(plain.url, .int8))
  }

  // MARK: - ComfyUI's integers

  /// Numbers and scales of `tensor`, as of a weight that was rotated before.
  private static func integers(_ tensor: StoredTensor, levels: Float) -> Int8Weight {
    let (rows, width) = (tensor.shape[0], tensor.shape[1]), values = tensor.floats
    var numbers: [Int8] = [], scales: [Float] = []
    for row in 0..<rows {
      let own = values[row * width..<(row + 1) * width], largest = own.map(\.magnitude).max() ?? 0
      let scale = largest == 0 ? 1 : largest / levels
      numbers += own.map { Int8(($0 / scale).rounded(.toNearestOrEven)) }
      scales.append(scale)
    }
    return Int8Weight(
      numbers: Tensor(numbers, .int8, shape: [rows, width]), scales: Tensor(scales, shape: [rows]), rotation: 16)
  }

  private static func floats(_ values: [Float], _ shape: [Int]) -> StoredTensor {
    let bytes = values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value.bitPattern >> (8 * $0)) } }
    return StoredTensor(dtype: "F32", shape: shape, bytes: bytes)
  }

  private static func difference(_ image: RasterImage, _ other: RasterImage) -> Double {
    let sum = zip(image.pixels, other.pixels).reduce(0) { $0 + abs(Int($1.0) - Int($1.1)) }
    return Double(sum) / Double(image.pixels.count)
  }

  /// Rotated layers of the first family, whose own are not: as their values in fp32, and as they are in 8 bits.
  @Test(arguments: [("int8_tensorwise", Float(127)), ("convrot_w4a4", 7)])
  func rotatedIntegersAreTheirValues(_ format: String, _ levels: Float) throws {
    let copy = try CheckpointCopy(), plain = try CheckpointCopy()
    let compute = Compute(precision: .fp32, pool: pool)
    var expanded: [String: StoredTensor] = [:]
    try copy.merge(.transformer) { file in
      for (name, tensor) in file.tensors where name.hasPrefix("transformer_blocks.1.") && tensor.shape.count == 2 {
        let weight = Self.integers(tensor, levels: levels), layer = name.dropLast(".weight".count)
        expanded[name] = Self.floats(compute.values(of: weight).floats(), tensor.shape)
        var bytes = weight.numbers.withElements(as: Int8.self) { numbers in
          numbers.indices.map { UInt8(bitPattern: numbers[$0]) }
        }
        var shape = tensor.shape
        if levels == 7 {
          bytes = stride(from: 0, to: bytes.count, by: 2).map { bytes[$0] & 15 | bytes[$0 + 1] << 4 }
          shape[1] /= 2
        }
        file[name] = StoredTensor(dtype: "I8", shape: shape, bytes: bytes)
        file["\(layer).weight_scale"] = Self.floats(weight.scales.floats(), [shape[0], 1])
        let text = Array(#"{"format":"\#(format)","convrot":true,"convrot_groupsize":16}"#.utf8)
        file["\(layer).comfy_quant"] = StoredTensor(dtype: "U8", shape: [text.count], bytes: text)
      }
    }
    try plain.merge(.transformer) { file in for (name, tensor) in expanded { file[name] = tensor } }
    #expect(expanded.count > 10)
    let exact = try draw(copy.url)
    #expect(try draw(plain.url) == exact)
    #expect(try ModelDirectory(copy.url).weights(of: .transformer).storedPrecision == .int8)
    let (found, requantised) = (try draw(copy.url, .int8), try draw(plain.url, .int8))
    #expect(Self.difference(found, exact) < 1.5 * Self.difference(requantised, exact) + 0.5)
    // Of 4 bits nothing is lost in q4 either.
    let (taken, packed) = (try draw(copy.url, .q4), try draw(plain.url, .q4))
    #expect(Self.difference(taken, exact) < (levels == 7 ? 1 : 1.5) * Self.difference(packed, exact) + 0.5)
  }

  // MARK: - model.json

  @Test func partsMayBeElsewhere() throws {
    let base = try CheckpointCopy(), parts = try CheckpointCopy(), mixed = try TemporaryDirectory()
    let expected = try draw(Golden.tinyCheckpoint)
    try parts.convertToGGUF(.transformer, as: "qwen-image-BF16.gguf")
    try parts.merge(.vae)
    try base.remove("transformer/\(transformerIndex)")
    try base.remove("vae/diffusion_pytorch_model.safetensors")
    func write(_ text: String) throws -> URL {
      _ = try mixed.write(text, as: "mixed/model.json")
      return mixed.url.appending(path: "mixed")
    }
    let transformer = parts.file("transformer/qwen-image-BF16.gguf").path
    _ = try mixed.write("{\"id\": \"own\"}", as: "mixed/generation_defaults.json")
    try FileManager.default.moveItem(
      at: parts.file("vae/diffusion_pytorch_model.safetensors"), to: mixed.url.appending(path: "mixed/a.safetensors"))
    let url = try write(
      #"{"base": "\#(base.url.path)", "transformer": "\#(transformer)", "vae": ["a.safetensors"]}"#)
    #expect(try draw(url) == expected)
    let model = try ModelDirectory(url)
    #expect(try model.card().model.id == "own" && model.base == base.url.standardizedFileURL)
    let target = mixed.url.appending(path: "q")
    _ = try QuantisedCheckpoint.write(model, precision: .bf16, to: target, pool: pool) { _, _ in }
    #expect(!FileManager.default.fileExists(atPath: target.appending(path: "model.json").path))
    #expect(try draw(target, .bf16) == draw(url, .bf16) && ModelDirectory(target).card().model.id == "own")

    for (text, words) in [
      ("[]", "is an array, not an object"), (#"{"lora": "x"}"#, "there is no field \"lora\"; known are base"),
      (#"{"transformer": 1}"#, "transformer is a number, expected a string"),
      (#"{"transformer": []}"#, "transformer is 0 elements long"), (#"{"base": ""}"#, "a path of 1 to 4096 bytes"),
      (#"{"transformer": "absent.gguf"}"#, "absent.gguf\", must be a file or folder that exists"),
      (#"{"transformer": "model.json"}"#, "must be a folder, a .safetensors or .gguf file"),
      (#"{"vae": ["a.safetensors", "./a.safetensors"]}"#, "of different files"),
      (#"{"base": "."}"#, "the folder of a checkpoint without a model.json"),
      (#"{"transformer": "\#(transformer)"}"#, "it has no model_index.json"),
    ] {
      let url = try write(text)
      let error = #expect(throws: ConfigurationError.self) { try ModelDirectory(url) }
      let message = try #require(error).description
      #expect(message.contains(words) && message.contains("/mixed"), "\(message)")
    }
  }

  private var transformerIndex: String { "diffusion_pytorch_model.safetensors.index.json" }
}
