import Kernels
import StrictJSON
import TensorCore

/// Layers that ComfyUI's files hold quantised.
///
/// A layer `X` has its numbers in `X.weight` and their scales in `X.weight_scale`; what they mean is said by a JSON
/// object, the bytes of `X.comfy_quant` or a member of `layers` in the pair `_quantization_metadata` of the header. Of
/// the formats are read: `int8_tensorwise`, 8-bit numbers with one scale per row or for all, of weights that, with
/// `convrot`, were rotated before (ConvRot, https://arxiv.org/abs/2512.03673; the matrix is that of
/// ``Kernels/Linear/rotation``); `convrot_w4a4`, the same in 4 bits, two inputs a byte, always rotated; and 8-bit
/// floating point, `float8_e4m3fn` and `float8_e5m2`. Members that do not change the meaning of the numbers are
/// ignored, as ComfyUI does.
enum ComfyQuantisation {
  static let markerSuffix = ".comfy_quant"
  static let metadataKey = "_quantization_metadata"
  /// The longest description of a layer.
  static let markerBytesMax = 4096
  /// The longest description of all layers.
  static let metadataBytesMax = 4 << 20

  private static let valuesMax = 1 << 18
  private static let original =
    "take the checkpoint in bf16, of which `qwen-image quantize` makes int8 or q4, or ComfyUI's in int8 (int8_convrot)"

  /// The formats that are read.
  private enum Format: String, CaseIterable {
    case int8 = "int8_tensorwise"
    case int4 = "convrot_w4a4"
    case float8E4M3 = "float8_e4m3fn"
    case float8E5M2 = "float8_e5m2"

    /// The types that weights of the format are stored in.
    var dtypeNames: [String] {
      switch self {
      case .int8: ["I8"]
      case .int4: ["I8", "U8"]
      case .float8E4M3: ["F8_E4M3"]
      case .float8E5M2: ["F8_E5M2"]
      }
    }
  }

  typealias Layers = StoredQuantisation.Layers

  /// Reads what `file` says of its layers. Descriptions, types and shapes are checked; contents are not read.
  ///
  /// - Parameter rename: maps a stored name to the model's: metadata may have either.
  static func read(_ file: SafetensorsFile, _ rename: (String) -> String) throws(WeightsError) -> Layers {
    var layers = Layers()
    for marker in file.names where marker.hasSuffix(markerSuffix) {
      let layer = String(marker.dropLast(markerSuffix.count))
      let description = Description(try marked(marker, file), tensor: marker, file: file)
      layers.companions.insert(marker)
      insert(try description.quantisation(of: layer), of: layer, into: &layers)
    }
    guard let text = file.header.metadata[metadataKey] else { return layers }
    let storedNames = Dictionary(file.names.map { (rename($0), $0) }) { first, _ in first }
    for (name, value) in try listed(text, file) {
      let described = "\(name).weight"
      let isExact = file.header.entries[described] != nil
      guard let weight = isExact ? described : storedNames[rename(described)] else {
        throw .malformedEntry(
          file: file.path, tensor: described, reason: "is described by \(metadataKey), but the file has none")
      }
      let layer = String(weight.dropLast(".weight".count))
      let quantisation = try Description(value, tensor: weight, file: file).quantisation(of: layer)
      if let marked = layers.quantisations[weight], marked != quantisation {
        throw .malformedEntry(
          file: file.path, tensor: weight,
          reason: "is \(quantisation) by \(metadataKey) and \(marked) by \(layer)\(markerSuffix)")
      }
      insert(quantisation, of: layer, into: &layers)
    }
    return layers
  }

  private static func insert(_ quantisation: StoredQuantisation, of layer: String, into layers: inout Layers) {
    layers.quantisations["\(layer).weight"] = quantisation
    layers.companions.insert("\(layer).weight_scale")
    // For products in 8-bit floating point.
    if quantisation.precision == nil { layers.companions.insert("\(layer).input_scale") }
  }

  private static func marked(_ marker: String, _ file: SafetensorsFile) throws(WeightsError) -> JSON {
    let entry = file.header.entries[marker]!
    guard entry.dtype == .uint8 else {
      throw .unsupportedDType(
        file: file.path, tensor: marker, found: entry.dtypeName, supported: [DType.uint8.rawValue])
    }
    guard entry.byteCount <= markerBytesMax else {
      throw .malformedEntry(
        file: file.path, tensor: marker, reason: "has \(entry.byteCount) bytes of JSON, the limit is \(markerBytesMax)")
    }
    let bytes = try file.readBytes(of: marker, in: 0..<entry.byteCount)
    do { return try JSON(bytes, maxDepth: 8) } catch {
      throw .malformedEntry(file: file.path, tensor: marker, reason: "is not the JSON of a quantised layer: \(error)")
    }
  }

  private static func listed(_ text: String, _ file: SafetensorsFile) throws(WeightsError) -> JSONObject {
    let count = text.utf8.count
    guard count <= metadataBytesMax else {
      throw .malformedHeader(
        file: file.path, reason: "\(metadataKey) has \(count) bytes of JSON, the limit is \(metadataBytesMax)")
    }
    let document: JSON
    do { document = try JSON(Array(text.utf8), maxDepth: 8, maxValues: valuesMax) } catch {
      throw .malformedHeader(file: file.path, reason: "\(metadataKey) is not JSON: \(error)")
    }
    guard case .object(let layers)? = document["layers"] else {
      throw .malformedHeader(file: file.path, reason: "\(metadataKey) has no object \"layers\"")
    }
    return layers
  }

  /// What is said of one layer.
  private struct Description {
    let value: JSON
    /// The tensor that errors name.
    let tensor: String
    let file: SafetensorsFile

    init(_ value: JSON, tensor: String, file: SafetensorsFile) {
      self.value = value
      self.tensor = tensor
      self.file = file
    }

    private func refused(_ reason: String) -> WeightsError {
      .malformedEntry(file: file.path, tensor: tensor, reason: reason)
    }

    func quantisation(of layer: String) throws(WeightsError) -> StoredQuantisation {
      guard let format = value["format"]?.text else {
        throw refused("does not say the \"format\" of the layer; \(original)")
      }
      guard let known = Format(rawValue: format) else {
        let names = Format.allCases.map(\.rawValue).joined(separator: ", ")
        throw refused(
          "says that the layer is quantised as \"\(printable(format, max: 40))\"; of ComfyUI's formats, "
            + "\(names) are read; \(original)")
      }
      guard let weight = file.header.entries["\(layer).weight"] else {
        throw refused("describes \(layer).weight, which the file does not have")
      }
      guard known.dtypeNames.contains(weight.dtypeName), weight.shape.rank == 2, weight.shape.elementCount > 0 else {
        throw .malformedEntry(
          file: file.path, tensor: "\(layer).weight",
          reason: "is \(weight.dtypeName) \(weight.shape), but said to be quantised as \(format): "
            + "\(known.dtypeNames[0]) [out, in\(known == .int4 ? " / 2" : "")]")
      }
      let scales = "\(layer).weight_scale"
      try ScaledFloat8.checkScales(
        scales, of: "\(layer).weight", rows: weight.shape[0], in: file.path, file.header.entries)
      return switch known {
      case .int8: StoredQuantisation(int8Rotation: try rotation(inputs: weight.shape[1]), scales: scales)
      case .int4:
        StoredQuantisation(
          .int4, rotation: try rotation(inputs: 2 * weight.shape[1], unlessSaid: true), scales: scales)
      case .float8E4M3: StoredQuantisation(.float8E4M3, scales: scales)
      case .float8E5M2: StoredQuantisation(.float8E5M2, scales: scales)
      }
    }

    /// The value of a field, in the object itself or in its member `params`.
    private func field(_ name: String) -> JSON? { value[name] ?? value["params"]?[name] }

    private func rotation(inputs: Int, unlessSaid rotates: Bool = false) throws(WeightsError) -> Int {
      switch field("convrot") {
      case nil where rotates: break
      case nil, .bool(false)?: return 1
      case .bool(true)?: break
      case let other?: throw refused("has convrot as \(other.kind), expected true or false")
      }
      let group = field("convrot_groupsize") ?? .number(JSONNumber(256))
      guard let size = group.integer else {
        throw refused("has convrot_groupsize as \(group.kind), expected a whole number")
      }
      let known = Linear.rotationGroups.reversed().map { "\($0)" }.joined(separator: ", ")
      guard Linear.rotationGroups.contains(size) else {
        throw refused("has convrot_groupsize \(size), which is not supported; supported are \(known); \(original)")
      }
      guard inputs % size == 0 else {
        throw refused("has convrot_groupsize \(size), which does not divide the layer's \(inputs) inputs")
      }
      return size
    }
  }
}
