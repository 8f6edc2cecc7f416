import Weights

/// The names that the autoencoders' authors give to tensors, as Wan's and ComfyUI's files have them
/// (`decoder.upsamples.3.resample.1.weight`), where diffusers has its own (`decoder.up_blocks.0.upsamplers.0.…`).
package struct OriginalNames: Sendable {
  /// The numbers of the modules of `decoder.upsamples` that scale images, in ascending order: each ends a level.
  private let scaling: [Int]
  /// Whether the modules of a level are in a module of their own.
  private let isNested: Bool

  private static let residual = ["0": "norm1", "2": "conv1", "3": "norm2", "6": "conv2"]
  private static let middle = ["0": "mid_block.resnets.0", "1": "mid_block.attentions.0", "2": "mid_block.resnets.1"]

  /// Rules for files with the tensors `stored`; published names stay as they are.
  package static func naming(of stored: [String]) -> TensorNaming {
    guard stored.contains(where: { $0.hasPrefix("decoder.middle.") || $0.hasPrefix("encoder.middle.") }) else {
      return .published
    }
    let scaling = stored.compactMap { name -> Int? in
      let words = name.split(separator: ".")
      return words.count > 3 && words[1] == "upsamples" && words[3] == "resample" ? Int(words[2]) : nil
    }
    let isNested = stored.contains {
      $0.contains(".upsamples.0.upsamples.") || $0.contains(".downsamples.0.downsamples.")
    }
    let names = OriginalNames(scaling: Set(scaling).sorted(), isNested: isNested)
    return TensorNaming(rename: names.name)
  }

  private func name(_ stored: String) -> String {
    let words = stored.split(separator: ".").map(String.init)
    switch words.first {
    case "conv1"?: return renamed(words, 1, "quant_conv")
    case "conv2"?: return renamed(words, 1, "post_quant_conv")
    case "encoder"?, "decoder"?: break
    default: return stored
    }
    guard words.count > 2 else { return stored }
    let half = words[0]
    switch words[1] {
    case "conv1": return renamed(words, 2, "\(half).conv_in")
    case "head" where words[2] == "0": return renamed(words, 3, "\(half).norm_out")
    case "head" where words[2] == "2": return renamed(words, 3, "\(half).conv_out")
    case "middle":
      return Self.middle[words[2]].map { module(words, 3, "\(half).\($0)") } ?? stored
    case "downsamples": return down(words) ?? stored
    case "upsamples": return up(words) ?? stored
    default: return stored
    }
  }

  /// `encoder.downsamples.N.…`, where blocks and what scales are numbered together.
  private func down(_ words: [String]) -> String? {
    guard isNested else { return module(words, 3, "encoder.down_blocks.\(words[2])") }
    guard words.count > 5, words[3] == "downsamples" else { return nil }
    let block = "encoder.down_blocks.\(words[2])"
    return module(words, 5, scales(words[5]) ? "\(block).downsampler" : "\(block).resnets.\(words[4])")
  }

  private func up(_ words: [String]) -> String? {
    if isNested {
      guard words.count > 5, words[3] == "upsamples" else { return nil }
      let block = "decoder.up_blocks.\(words[2])"
      return module(words, 5, scales(words[5]) ? "\(block).upsampler" : "\(block).resnets.\(words[4])")
    }
    guard words.count > 3, let number = Int(words[2]) else { return nil }
    let level = scaling.count { $0 < number }, first = level == 0 ? 0 : scaling[level - 1] + 1
    let block = "decoder.up_blocks.\(level)"
    return module(words, 3, scales(words[3]) ? "\(block).upsamplers.0" : "\(block).resnets.\(number - first)")
  }

  private func scales(_ word: String) -> Bool { word == "resample" || word == "time_conv" }

  /// The words from `index` on, of a residual block or another module, below `name`.
  private func module(_ words: [String], _ index: Int, _ name: String) -> String {
    guard index < words.count else { return name }
    if words[index] == "shortcut" { return renamed(words, index + 1, "\(name).conv_shortcut") }
    guard words[index] == "residual", index + 1 < words.count, let inner = Self.residual[words[index + 1]] else {
      return renamed(words, index, name)
    }
    return renamed(words, index + 2, "\(name).\(inner)")
  }

  private func renamed(_ words: [String], _ count: Int, _ name: String) -> String {
    ([name] + words.dropFirst(count)).joined(separator: ".")
  }
}
