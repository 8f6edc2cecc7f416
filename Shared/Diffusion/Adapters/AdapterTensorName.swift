/// What a tensor of an adapter's file is to the layer that it is for.
enum AdapterPart: String, CaseIterable {
  /// LoRA: ΔW = up·down, with down [rank, in] and up [out, rank].
  case down, up
  /// Times which, over the rank, ΔW is added. A single number.
  case alpha
  /// LoHa: ΔW = (w1_a·w1_b) ⊙ (w2_a·w2_b).
  case hadaW1A = "hada_w1_a"
  case hadaW1B = "hada_w1_b"
  case hadaW2A = "hada_w2_a"
  case hadaW2B = "hada_w2_b"
  /// LoKr: ΔW = w1 ⊗ w2, of which each may be a product.
  case lokrW1 = "lokr_w1"
  case lokrW1A = "lokr_w1_a"
  case lokrW1B = "lokr_w1_b"
  case lokrW2 = "lokr_w2"
  case lokrW2A = "lokr_w2_a"
  case lokrW2B = "lokr_w2_b"
}

/// The name of a tensor in an adapter's file, read by the conventions of the programs that write them: PEFT and
/// diffusers (`lora_A.weight`, `lora_A.default.weight`), kohya's and ComfyUI's (`lora_down.weight`, `alpha`), LyCORIS
/// (`hada_w1_a`, `lokr_w1`).
enum AdapterTensorName: Equatable {
  /// A part of what is added to a layer.
  case part(AdapterPart, layer: String)
  /// Of a kind of adapter that is not supported; what it is, to follow the name.
  case unsupported(String)
  /// None of these.
  case unknown

  private static let parts: [String: AdapterPart] = {
    var parts = Dictionary(uniqueKeysWithValues: AdapterPart.allCases.map { ($0.rawValue, $0) })
    (parts["down"], parts["up"]) = (nil, nil)
    (parts["lora_A"], parts["lora_down"]) = (.down, .down)
    (parts["lora_B"], parts["lora_up"]) = (.up, .up)
    return parts
  }()

  private static let unsupported = [
    "lora_mid": "is of a LoRA with a core (Tucker), which is for convolutions",
    "hada_t1": "is of a LoHa with a core (Tucker), which is for convolutions",
    "hada_t2": "is of a LoHa with a core (Tucker), which is for convolutions",
    "lokr_t2": "is of a LoKr with a core (Tucker), which is for convolutions",
    "dora_scale":
      "is a magnitude of DoRA, which needs the sums of other weights than the adapter's; DoRA is not supported",
    "lora_magnitude_vector":
      "is a magnitude of DoRA, which needs the sums of other weights than the adapter's; DoRA is not supported",
    "diff": "is a whole difference of weights; supported are LoRA, LoHa and LoKr",
    "diff_b": "is a difference of biases; supported are LoRA, LoHa and LoKr",
    "oft_blocks": "is of an OFT adapter; supported are LoRA, LoHa and LoKr",
    "oft_diag": "is of an OFT adapter; supported are LoRA, LoHa and LoKr",
  ]

  /// Reads a name.
  init(_ name: String) {
    var components = name.split(separator: ".", omittingEmptySubsequences: false)
    if components.count > 1, components.last == "weight" { components.removeLast() }
    guard components.count > 1, let last = components.last else {
      self = .unknown
      return
    }
    let beforeLast = components[components.count - 2]
    if beforeLast == "lora", last == "down" || last == "up" {
      // As older versions of diffusers wrote them.
      self.init(last == "down" ? .down : .up, components.dropLast(2))
    } else if let part = Self.parts[String(last)] {
      self.init(part, components.dropLast())
    } else if let meaning = Self.unsupported[String(last)] {
      self = .unsupported(meaning)
    } else if last == "bias", Self.parts[String(beforeLast)] != nil {
      self = .unsupported("is a bias of an adapter, which is not supported")
    } else if let part = Self.parts[String(beforeLast)], part != .alpha {
      // PEFT's name of the adapter.
      self.init(part, components.dropLast(2))
    } else if let meaning = Self.unsupported[String(beforeLast)] {
      self = .unsupported(meaning)
    } else {
      self = .unknown
    }
  }

  private init(_ part: AdapterPart, _ layer: some BidirectionalCollection<Substring>) {
    let name = layer.joined(separator: ".")
    self = name.isEmpty ? .unknown : .part(part, layer: name)
  }
}
