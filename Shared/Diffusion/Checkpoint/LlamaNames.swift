import Weights

/// The names that llama.cpp gives to the tensors of a language model (`blk.0.attn_q.weight`) and of its vision tower
/// (`v.blk.0.attn_out.weight`), in GGUF files.
///
/// Queries and keys of Qwen are stored in the published order of rows: what llama.cpp does to those of Llama is not
/// done to them.
package struct LlamaNames: Sendable {
  /// The names of the vision tower's modules, below `visual.`, by those in a file: of a block below `blocks.N.`, and of
  /// the others.
  package struct Tower: Sendable {
    let block: [String: String]
    let others: [String: String]

    /// Modules of a tower by their names in a file.
    package init(block: [String: String], others: [String: String]) {
      self.block = block
      self.others = others
    }
  }

  private let tower: Tower
  /// The blocks of the tower that hand rows to layers of the language model, in ascending order: mergers are named
  /// after them.
  private let deepStackBlocks: [Int]
  private let published: @Sendable (String) -> String

  private static let layer = [
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
  ]
  private static let model = [
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
  ]
  private static let deepStack = ["norm": "norm", "fc1": "linear_fc1", "fc2": "linear_fc2"]
  private static let patches = "v.patch_embd.weight"

  /// Rules for files with the tensors `stored`; names of other programs are mapped by `published`, which is applied to
  /// all: `model.layers.0.…` and `visual.blocks.0.…` are what it gets.
  package static func naming(
    of stored: [String], tower: Tower, published: @escaping @Sendable (String) -> String
  ) -> TensorNaming {
    let blocks = stored.compactMap { name -> Int? in
      let words = name.split(separator: ".")
      return words.count > 3 && words[0] == "v" && words[1] == "deepstack" ? Int(words[2]) : nil
    }
    let names = LlamaNames(tower: tower, deepStackBlocks: Set(blocks).sorted(), published: published)
    return TensorNaming(joining: names.part, rename: names.name)
  }

  /// The published name of a stored tensor.
  private func name(_ stored: String) -> String { published(translated(stored) ?? stored) }

  private func translated(_ stored: String) -> String? {
    let words = stored.split(separator: ".").map(String.init)
    guard words.count > 1, let kind = words.last, ["weight", "bias"].contains(kind) else { return nil }
    let inner = words.dropLast()
    if words[0] == "blk", words.count == 4, let module = Self.layer[words[2]] {
      return "model.layers.\(words[1]).\(module).\(kind)"
    }
    if words[0] == "v", words[1] == "blk", words.count == 5, let module = tower.block[words[3]] {
      return "visual.blocks.\(words[2]).\(module).\(kind)"
    }
    if words[0] == "v", words[1] == "deepstack", words.count == 5, let module = Self.deepStack[words[3]],
      let index = Int(words[2]).flatMap({ deepStackBlocks.firstIndex(of: $0) })
    {
      return "visual.deepstack_merger_list.\(index).\(module).\(kind)"
    }
    let module = inner.joined(separator: ".")
    return Self.model[module].map { "\($0).\(kind)" } ?? tower.others[module].map { "visual.\($0).\(kind)" }
  }

  /// Which part of a published tensor a stored one is: of queries, keys and values, or of the embedding of patches of
  /// two images.
  private func part(_ stored: String) -> TensorNaming.Part? {
    if stored == Self.patches || stored == "\(Self.patches).1" {
      return TensorNaming.Part(
        published("visual.patch_embed.proj.weight"), stored == Self.patches ? 0 : 1, of: 2, .taps)
    }
    let words = stored.split(separator: ".").map(String.init)
    guard words.count == 5, words[0] == "v", words[1] == "blk",
      let index = ["attn_q", "attn_k", "attn_v"].firstIndex(of: words[3])
    else { return nil }
    return TensorNaming.Part(published("visual.blocks.\(words[2]).attn.qkv.\(words[4])"), index, of: 3)
  }
}
