import Diffusion
import Foundation
import GoldenSupport
import Kernels
import QwenImage21
import TensorCore
import Testing
import Weights

/// Weights in other formats, and under other names, than diffusers' safetensors.
@Suite struct FormatCheckpointTests {
  private static let families = ModelFamilies([QwenImage21Family.self])

  private static func published(_ component: ModelComponent) throws -> ComponentWeights {
    try ModelDirectory(Golden.checkpoint, families: families).weights(of: component)
  }

  private static func type(_ dtype: DType) -> Int { StoredGGUF.types[dtype.rawValue] ?? -1 }

  private static func bytes(_ tensor: Tensor) -> [UInt8] {
    tensor.withBytes { span in span.withUnsafeBytes { Array($0) } }
  }

  private static func tensor(_ name: String, _ tensor: Tensor) -> StoredGGUF.Tensor {
    StoredGGUF.Tensor(name, tensor.shape.dimensions, type: type(tensor.dtype), bytes(tensor))
  }

  /// A folder with GGUF files.
  private static func folder(_ files: [String: StoredGGUF]) throws -> TemporaryCheckpoint {
    let folder = try TemporaryCheckpoint(empty: true)
    for (name, file) in files { try Data(file.bytes()).write(to: folder.url.appending(path: name)) }
    return folder
  }

  /// Requires that all tensors of the published component are in `found`, with the same values.
  private static func expectAll(of component: ModelComponent, in found: ComponentWeights) throws {
    let published = try published(component)
    #expect(found.names == published.names)
    for name in published.names {
      let shape = try #require(published.entry(name)).shape
      let values = try found.tensor(name, shape).floats()
      #expect(try values == published.tensor(name, shape).floats(), "\(name)")
    }
  }

  @Test func transformersOfGGUF() throws {
    let published = try Self.published(.transformer)
    var tensors: [StoredGGUF.Tensor] = []
    for name in published.names where !name.hasSuffix(".img_mlp.proj.weight") {
      let shape = try #require(published.entry(name)).shape
      var tensor = try published.tensor(name, shape), stored = "model.diffusion_model.\(name)"
      if name.hasSuffix(".img_mlp.gate_layer.weight") {
        let other = name.replacing("gate_layer", with: "proj")
        tensor = Tensor.stacking([tensor, try published.tensor(other, shape)])
        stored = stored.replacing("gate_layer", with: "gate_up")
      }
      tensors.append(Self.tensor(stored, tensor))
    }
    let folder = try Self.folder(["qwen-image-2.1-BF16.gguf": StoredGGUF(tensors)])
    try withExtendedLifetime(folder) {
      try Self.expectAll(
        of: .transformer, in: QwenImage21Family.weights(of: .transformer, from: .folder(folder.url)))
    }
  }

  /// The names of llama.cpp, which names mergers after blocks of the tower.
  private static func llamaName(_ published: String, deepStackBlocks: [Int]) -> String {
    var name = published
    for (index, block) in deepStackBlocks.enumerated() {
      name = name.replacing("model.visual.deepstack_merger_list.\(index).", with: "v.deepstack.\(block).")
    }
    if name.hasPrefix("v.deepstack.") { return name.replacing("linear_", with: "") }
    for (pattern, replacement) in [
      ("model.language_model.embed_tokens.", "token_embd."), ("model.language_model.norm.", "output_norm."),
      ("lm_head.", "output."), ("model.language_model.layers.", "blk."), ("self_attn.q_proj", "attn_q"),
      ("self_attn.k_proj", "attn_k"), ("self_attn.v_proj", "attn_v"), ("self_attn.o_proj", "attn_output"),
      ("self_attn.q_norm", "attn_q_norm"), ("self_attn.k_norm", "attn_k_norm"),
      ("post_attention_layernorm", "ffn_norm"), ("input_layernorm", "attn_norm"), ("mlp.gate_proj", "ffn_gate"),
      ("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down"), ("model.visual.blocks.", "v.blk."),
      ("model.visual.merger.norm", "v.post_ln"), ("model.visual.merger.linear_fc1", "mm.0"),
      ("model.visual.merger.linear_fc2", "mm.2"), ("model.visual.pos_embed", "v.position_embd"),
      ("model.visual.patch_embed.proj", "v.patch_embd"), ("attn.qkv", "attn_qkv"), ("attn.proj", "attn_out"),
      ("norm1", "ln1"), ("norm2", "ln2"), ("mlp.linear_fc1", "ffn_up"), ("mlp.linear_fc2", "ffn_down"),
    ] {
      name = name.replacing(pattern, with: replacement)
    }
    return name
  }

  @Test func encodersHaveLlamaNames() throws {
    let published = try Self.published(.textEncoder)
    let mergers = Set(
      published.names.compactMap { name in
        name.contains("deepstack_merger_list.") ? name.split(separator: ".")[3] : nil
      }
    ).count
    #expect(mergers > 1)
    var text: [StoredGGUF.Tensor] = [], tower: [StoredGGUF.Tensor] = []
    for name in published.names {
      let shape = try #require(published.entry(name)).shape, tensor = try published.tensor(name, shape)
      // Numbers whose order is another one as texts.
      let stored = Self.llamaName(name, deepStackBlocks: (0..<mergers).map { 8 + 4 * $0 })
      guard name.hasPrefix("model.visual.") else {
        text.append(Self.tensor(stored, tensor))
        continue
      }
      guard name == "model.visual.patch_embed.proj.weight" else {
        tower.append(Self.tensor(stored, tensor))
        continue
      }
      let plane = shape[3] * shape[4] * tensor.dtype.byteWidth, bytes = Self.bytes(tensor)
      for tap in 0..<2 {
        let planes = stride(from: tap * plane, to: bytes.count, by: 2 * plane).flatMap { bytes[$0..<$0 + plane] }
        tower.append(
          StoredGGUF.Tensor(
            tap == 0 ? stored : "\(stored).1", [shape[0], shape[1], shape[3], shape[4]], type: Self.type(tensor.dtype),
            planes))
      }
    }
    let folder = try Self.folder([
      "Qwen3VL-8B-Instruct-BF16.gguf": StoredGGUF(architecture: "qwen3vl", text),
      "mmproj-BF16.gguf": StoredGGUF(architecture: "clip", tower),
    ])
    try withExtendedLifetime(folder) {
      try Self.expectAll(
        of: .textEncoder, in: QwenImage21Family.weights(of: .textEncoder, from: .folder(folder.url)))
    }
  }

  /// The authors' names, with the modules of a level in a module of their own.
  private static func originalName(_ published: String, blocks: Int) -> String {
    var name = published
    for (inner, original) in [
      ("norm1", "residual.0"), ("conv1", "residual.2"), ("norm2", "residual.3"), ("conv2", "residual.6"),
    ] where name.contains("resnets.") {
      name = name.replacing(".\(inner).", with: ".\(original).")
    }
    for (pattern, original) in [
      ("conv_shortcut", "shortcut"), ("mid_block.resnets.0", "middle.0"), ("mid_block.attentions.0", "middle.1"),
      ("mid_block.resnets.1", "middle.2"), ("conv_in", "conv1"), ("norm_out", "head.0"), ("conv_out", "head.2"),
    ] {
      name = name.replacing(pattern, with: original)
    }
    if name.hasPrefix("post_quant_conv.") { return name.replacing("post_quant_conv", with: "conv2") }
    if name.hasPrefix("quant_conv.") { return name.replacing("quant_conv", with: "conv1") }
    let words = name.split(separator: ".").map(String.init)
    guard words.count > 5, words[1] == "up_blocks" || words[1] == "down_blocks" else { return name }
    let module = words[1] == "up_blocks" ? "upsamples" : "downsamples"
    let (place, rest) = words[3] == "resnets" ? (words[4], 5) : ("\(blocks + (words[1] == "up_blocks" ? 1 : 0))", 4)
    return ([words[0], module, words[2], module, place] + words.dropFirst(rest)).joined(separator: ".")
  }

  @Test func autoencodersHaveTheirAuthorsNames() throws {
    let published = try Self.published(.vae), folder = try TemporaryCheckpoint(empty: true)
    let file = folder.url.appending(path: "qwen_image_2.1_vae.safetensors")
    var tensors: [(name: String, tensor: Tensor)] = []
    for name in published.names {
      let shape = try #require(published.entry(name)).shape
      tensors.append((Self.originalName(name, blocks: 2), try published.tensor(name, shape)))
    }
    #expect(tensors.contains { $0.name == "decoder.upsamples.0.upsamples.3.resample.1.weight" })
    try SafetensorsWriter.write(tensors, to: file)
    try Self.expectAll(of: .vae, in: QwenImage21Family.weights(of: .vae, from: .files([file])))
  }
}
