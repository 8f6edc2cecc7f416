import Kernels
import StrictJSON
import TensorCore

/// Layers that ComfyUI's files hold quantised.
///
/// A layer `X` has its numbers in `X.weight` and their scales in `X.weight_scale`; what they mean is said by a JSON
/// object, the bytes of `X.comfy_quant` or a member of `layers` in the pair `_quantization_metadata` of the header. Of
/// the formats, `int8_tensorwise` is read: 8-bit numbers with one scale per row or for all, of weights that, with
/// `convrot`, were rotated before (ConvRot, https://arxiv.org/abs/2512.03673; the matrix is that of
/// ``Kernels/Linear/rotation``). Members that do not change the meaning of the numbers are ignored, as ComfyUI does.
enum ComfyQuantisation {
  static let markerSuffix = ".comfy_quant"
  static let metadataKey = "_quantization_metadata"
  /// The longest description of a layer.
  static let markerBytesMax = 4096
  /// The longest description of all layers.
  static let metadataBytesMax = 4 << 20

  private static let valuesMax = 1 << 18
  private static let format = "int8_tensorwise"
  private static let original =
    "take the checkpoint in bf16, of which `qwen-image quantize` makes int8 or q4, or ComfyUI's in int8 (int8_convrot)"

  /// What a file says of its layers.
  struct Layers {
    /// By the stored names of the weights.
    var quantisations: [String: StoredQuantisation] = [:]
    /// The stored names of tensors that only describe weights.
    var companions: Set<String> = []
  }

  /// Reads what `file` says of its layers. Descriptions, types and shapes are checked; contents are not read.
  ///
  /// - Parameter rename: maps a stored name to the model's: metadata may have either.
  static func read(_ file: SafetensorsFile, _ rename: (String) -> String) throws(WeightsError) -> Layers {
    var layers = Layers()
    for marker in file.names where marker.hasSuffix(markerSuffix) {
      let layer = String(marker.dropLast(markerSuffix.count))
      let description = Description(try marked(marker, file), tensor: marker, file: file)
      layers.quantisations["\(layer).weight"] = try description.quantisation(of: layer)
      layers.companions.formUnion([marker, "\(layer).weight_scale"])
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
      if let marked = layers.quantisations.updateValue(quantisation, forKey: weight), marked != quantisation {
        throw .malformedEntry(
          file: file.path, tensor: weight,
          reason: "is \(quantisation) by \(metadataKey) and \(marked) by \(layer)\(markerSuffix)")
      }
      layers.companions.insert("\(layer).weight_scale")
    }
    return layers
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
      guard format == ComfyQuantisation.format else {
        throw refused(
          "says that the layer is quantised as \"\(printable(format, max: 40))\"; of ComfyUI's formats, "
            + "\(ComfyQuantisation.format) is read; \(original)")
      }
      guard let weight = file.header.entries["\(layer).weight"] else {
        throw refused("describes \(layer).weight, which the file does not have")
      }
      guard weight.dtype == .int8, weight.shape.rank == 2, weight.shape.elementCount > 0 else {
        throw .malformedEntry(
          file: file.path, tensor: "\(layer).weight",
          reason: "is \(weight.dtypeName) \(weight.shape), but said to be quantised as \(format): I8 [out, in]")
      }
      let quantisation = StoredQuantisation(
        precision: .int8, rotation: try rotation(inputs: weight.shape[1]), scales: "\(layer).weight_scale")
      try checkScales(quantisation.scales, of: "\(layer).weight", rows: weight.shape[0])
      return quantisation
    }

    /// The value of a field, in the object itself or in its member `params`.
    private func field(_ name: String) -> JSON? { value[name] ?? value["params"]?[name] }

    private func rotation(inputs: Int) throws(WeightsError) -> Int {
      switch field("convrot") {
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

    private func checkScales(_ name: String, of weight: String, rows: Int) throws(WeightsError) {
      guard let entry = file.header.entries[name] else {
        throw .malformedEntry(
          file: file.path, tensor: weight,
          reason: "is quantised, but its scales \(name) are missing; the file is incomplete, take another one")
      }
      guard entry.dtype == .fp32 else {
        throw .unsupportedDType(
          file: file.path, tensor: name, found: entry.dtypeName, supported: [DType.fp32.rawValue])
      }
      let isScalar = entry.shape.rank <= 2 && entry.shape.elementCount == 1
      guard isScalar || entry.shape == [rows] || entry.shape == [rows, 1] else {
        throw .misshapenTensor(file: file.path, tensor: name, expected: [rows, 1], found: entry.shape)
      }
    }
  }
}
