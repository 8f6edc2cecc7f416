import Weights

/// The layers of a network that adapters can be for, by the names that adapters' files have for them.
package struct AdapterTargets: Sendable {
  /// A layer, or several that other programs keep as one, their outputs one after the other.
  struct Target {
    let layers: [(name: String, outFeatures: Int)]
    let inFeatures: Int

    var outFeatures: Int { layers.reduce(0) { $0 + $1.outFeatures } }
  }

  private var targets: [String: Target] = [:]
  /// Names by what they are with underscores for dots, as kohya's scripts write them; nil: two are alike.
  private var underscored: [String: String?] = [:]

  /// The linear layers of `inventory`.
  ///
  /// - Parameter fused: layers that other programs keep as one, by the name that they have there.
  package init(_ inventory: ParameterInventory, fused: [String: [String]] = [:]) {
    let suffix = ".weight"
    for parameter in inventory.parameters where parameter.isLinear && parameter.name.hasSuffix(suffix) {
      let name = String(parameter.name.dropLast(suffix.count))
      targets[name] = Target(layers: [(name, parameter.shape[0])], inFeatures: parameter.shape[1])
    }
    for (name, parts) in fused {
      let found = parts.map { part -> Target in
        guard let target = targets[part] else { preconditionFailure("\(part), a part of \(name), is no layer") }
        return target
      }
      targets[name] = Target(layers: found.flatMap(\.layers), inFeatures: found[0].inFeatures)
    }
    for name in targets.keys {
      let flat = name.replacing(".", with: "_")
      underscored.updateValue(underscored.keys.contains(flat) ? nil : name, forKey: flat)
    }
  }

  /// What names of modules begin with in the files of PEFT and diffusers, ComfyUI and others.
  private static let prefixes = ["base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer."]
  /// What they begin with where dots are underscores: kohya's scripts, LyCORIS.
  private static let underscoredPrefixes = ["lora_unet_", "lycoris_unet_", "lora_transformer_", "lycoris_"]
  private static let textEncoderPrefixes = [
    "text_encoder", "te.", "lora_te_", "lora_te1_", "lora_te2_", "lora_te3_", "lycoris_te", "lycoris_text_encoder",
    "lora_text_encoder", "conditioner.", "cond_stage_model.", "base_model.model.text_encoder",
  ]

  /// The layers that a file calls `name`, and what their network calls them; nil: there are none.
  func target(_ name: String) -> Target? {
    var stripped = name[...]
    while let prefix = Self.prefixes.first(where: stripped.hasPrefix) { stripped = stripped.dropFirst(prefix.count) }
    if let target = targets[String(stripped)] { return target }
    guard let prefix = Self.underscoredPrefixes.first(where: stripped.hasPrefix),
      let layer = underscored[String(stripped.dropFirst(prefix.count))] ?? nil
    else { return nil }
    return targets[layer]
  }

  /// Checks whether an adapter is for these layers.
  package var check: AdapterCheck {
    { (adapter) throws(WeightsError) in try adapter.check(for: self) }
  }

  /// Whether a file's name of a module is one of a text encoder's.
  static func isOfTextEncoder(_ name: String) -> Bool { textEncoderPrefixes.contains { name.hasPrefix($0) } }
}
