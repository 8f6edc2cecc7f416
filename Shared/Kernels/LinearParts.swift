import CKernels
import TensorCore

// A layer's packed weights can be kept in a file and mapped again: the layout is the same for every instruction set.
extension Linear {
  /// Raised whenever the layout of ``parts`` of a precision changes.
  public static func layoutVersion(_ precision: Precision) -> Int {
    switch precision {
    case .fp32, .bf16, .int8: 1
    case .q4: 2
    }
  }

  /// The precision that the weights are kept at.
  public var precision: Precision {
    switch weight {
    case .rowMajor, .fp32: .fp32
    case .bf16: .bf16
    case .int8: .int8
    case .q4: .q4
    }
  }

  /// The tensors that make up the layer, by name: `panels`, where there is one `bias` [out] fp32, and for int8 and q4
  /// `scales` [out] fp32 and `offsets` [out] int32. Nil for a layer of OpenBLAS, whose weight is not packed.
  public var parts: [String: Tensor]? {
    var parts: [String: Tensor]
    switch weight {
    case .rowMajor: return nil
    case .fp32(let panels), .bf16(let panels): parts = ["panels": panels]
    case .int8(let panels, let scales, let offsets), .q4(let panels, let scales, let offsets):
      parts = ["panels": panels, "scales": scales, "offsets": offsets]
    }
    parts["bias"] = bias
    return parts
  }

  /// A layer from its ``parts``, which may be file mappings. Types and sizes are checked, contents are taken as they
  /// are.
  ///
  /// - Parameter rotation: the layer's ``rotation``.
  public init(
    precision: Precision, outFeatures: Int, inFeatures: Int, rotation: Int = 1, parts: [String: Tensor]
  ) throws(KernelError) {
    func part(_ name: String, _ dtype: DType, count: Int) throws(KernelError) -> Tensor {
      guard let tensor = parts[name] else { throw .invalidPart(name, reason: "is missing") }
      guard tensor.dtype == dtype, tensor.elementCount == count else {
        throw .invalidPart(
          name, reason: "is \(tensor.dtype.rawValue) \(tensor.shape), expected \(count) × \(dtype.rawValue)")
      }
      return tensor
    }
    guard outFeatures > 0, inFeatures > 0, outFeatures < 1 << 30, inFeatures < 1 << 30 else {
      throw .invalidPart("panels", reason: "is for \(outFeatures) outputs and \(inFeatures) inputs")
    }
    let canRotate = Self.rotationGroups.contains(rotation) && inFeatures % rotation == 0
    guard rotation == 1 || canRotate && [.int8, .q4].contains(precision) else {
      throw .invalidPart("panels", reason: "is said to be rotated by \(rotation), which \(inFeatures) inputs are not")
    }
    self.rotation = rotation
    let functions = KernelTable(.portable).functions
    switch precision {
    case .fp32:
      weight = .fp32(try part("panels", .uint8, count: functions.fp32.packed_b_bytes(outFeatures, inFeatures)))
    case .bf16:
      weight = .bf16(try part("panels", .uint8, count: functions.bf16.packed_b_bytes(outFeatures, inFeatures)))
    case .q4:
      guard inFeatures <= 1 << 16 else { throw .invalidPart("panels", reason: "is for \(inFeatures) inputs in q4") }
      weight = .q4(
        try part("panels", .uint8, count: functions.q4_bytes(outFeatures, inFeatures)),
        scales: try part("scales", .fp32, count: outFeatures), offsets: try part("offsets", .int32, count: outFeatures))
    case .int8:
      weight = .int8(
        try part("panels", .uint8, count: functions.int8.packed_b_bytes(outFeatures, inFeatures)),
        scales: try part("scales", .fp32, count: outFeatures), offsets: try part("offsets", .int32, count: outFeatures))
    }
    bias = parts["bias"] == nil ? nil : try part("bias", .fp32, count: outFeatures)
    self.outFeatures = outFeatures
    self.inFeatures = inFeatures
  }
}
