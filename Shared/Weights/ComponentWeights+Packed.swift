import Kernels
import TensorCore

// Layers that are packed for the kernels.
extension ComponentWeights {
  /// The layer whose weight `name` [output, input] is packed, as a view into the mapped file; nil if it is stored
  /// plainly.
  ///
  /// - Parameter bias: [output], any floating-point type.
  /// - Throws: a `WeightsError` when the weight has another shape, or was packed for another mode than `compute` is in.
  public func packedLayer(
    _ name: String, output: Int, input: Int, bias: Tensor?, compute: Compute
  ) throws(WeightsError) -> Linear? {
    for component in overlay {
      if let layer = try component.packedLayer(name, output: output, input: input, bias: bias, compute: compute) {
        return layer
      }
    }
    guard let layer = packed[name] else { return nil }
    guard packedPrecision == compute.precision else {
      throw .packedForAnotherMode(
        component: directory, packed: packedPrecision?.rawValue ?? "", asked: compute.precision.rawValue)
    }
    guard layer.shape == [output, input] else {
      throw .misshapenTensor(file: file(ofPacked: name), tensor: name, expected: [output, input], found: layer.shape)
    }
    var parts: [String: Tensor] = [:]
    for part in PackedFormat.partNames {
      guard let location = locations["\(name).\(part)"] else { continue }
      let tensor = try files[location.file].region.tensor(location.storedName)
      guard tensor.shape.rank == 1 else {
        throw .misshapenTensor(
          file: files[location.file].path, tensor: location.storedName, expected: [tensor.elementCount],
          found: tensor.shape)
      }
      parts[part] = tensor
    }
    parts["bias"] = bias.map { $0.dtype == .fp32 ? $0 : compute.converted($0, to: .fp32) }
    do {
      return try Linear(
        precision: layer.precision, outFeatures: output, inFeatures: input, rotation: layer.rotation, parts: parts)
    } catch { throw .malformedEntry(file: file(ofPacked: name), tensor: name, reason: "\(error)") }
  }

  /// The file that holds a packed weight, for errors.
  func file(ofPacked name: String) -> String { locations["\(name).panels"].map { files[$0.file].path } ?? directory }

  /// Whether the weight `name` is packed, here or in the cache.
  public func isPacked(_ name: String) -> Bool { packed[name] != nil || overlay.contains { $0.isPacked(name) } }

  static func readPacking(
    _ files: [WeightFile], _ rename: (String) -> String
  ) throws(WeightsError) -> (Precision?, [String: PackedFormat.Layer]) {
    var mode: Precision?
    var layers: [String: PackedFormat.Layer] = [:]
    for file in files {
      guard let header = file.safetensors?.header,
        let packing = try PackedFormat.read(header, file: file.path)
      else { continue }
      if let mode, mode != packing.precision {
        throw .malformedHeader(
          file: file.path,
          reason: "\(PackedFormat.precisionKey) is \(packing.precision.rawValue), another shard's is \(mode.rawValue)")
      }
      mode = packing.precision
      for (name, layer) in packing.layers {
        guard file.entries["\(name).panels"] != nil else {
          throw .malformedEntry(
            file: file.path, tensor: name, reason: "is said to be packed, but the file has no \(name).panels")
        }
        layers[rename(name)] = layer
      }
    }
    return (mode, layers)
  }
}
