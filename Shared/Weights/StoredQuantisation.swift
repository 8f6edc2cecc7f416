import Kernels
import TensorCore

/// How a component's files hold a weight that another program has quantised.
public struct StoredQuantisation: Sendable, Equatable, CustomStringConvertible {
  /// The precision of layers that are computed as the files hold them; nil: weights are expanded and packed again.
  public let precision: Precision?
  /// The format of the numbers; nil: they are plain 8-bit integers.
  public let format: BlockFormat?
  /// Inputs that are rotated together, `Linear.rotation`.
  public let rotation: Int
  /// The stored name of the tensor with the scales of its rows, or with one for all.
  let scales: String?

  /// As metadata of packed weights have it: `int8/256`; or the name of the format: `Q4_K`.
  public var description: String {
    (format?.rawValue ?? precision?.rawValue ?? "") + (rotation == 1 ? "" : "/\(rotation)")
  }

  /// 8-bit integers.
  init(int8Rotation rotation: Int, scales: String) {
    precision = .int8
    format = nil
    self.rotation = rotation
    self.scales = scales
  }

  /// Blocks. Numbers of 4 bits with a scale per row are computed with as such of 8 bits.
  init(_ format: BlockFormat, rotation: Int = 1, scales: String? = nil) {
    precision = format == .int4 ? .int8 : nil
    self.format = format
    self.rotation = rotation
    self.scales = scales
  }

  /// A tensor of several parts, of which one is quantised so.
  init(parts first: StoredQuantisation) {
    precision = nil
    format = first.format
    rotation = 1
    scales = nil
  }

  /// What a file says of its layers.
  struct Layers {
    /// By the stored names of the weights.
    var quantisations: [String: StoredQuantisation] = [:]
    /// The stored names of tensors that only describe weights.
    var companions: Set<String> = []
  }

  /// Reads what `file` says of its weights. Descriptions, types and shapes are checked; contents are not read.
  ///
  /// - Parameter rename: maps a stored name to the model's: metadata may have either.
  static func read(_ file: WeightFile, _ rename: (String) -> String) throws(WeightsError) -> Layers {
    var layers = Layers()
    if let safetensors = file.safetensors { layers = try ComfyQuantisation.read(safetensors, rename) }
    try ScaledFloat8.read(file, into: &layers)
    for (name, entry) in file.entries where layers.quantisations[name] == nil && !layers.companions.contains(name) {
      layers.quantisations[name] = BlockFormat(rawValue: entry.dtypeName).map { StoredQuantisation($0) }
    }
    return layers
  }
}

/// Weights in 8-bit floating point with a scale, as ComfyUI's files held them before `comfy_quant`: the value of
/// `X.weight` is its number times `X.scale_weight`. `X.scale_input`, for products in 8 bits, and the tensor
/// `scaled_fp8` are not needed.
enum ScaledFloat8 {
  static let marker = "scaled_fp8"
  static let scaleSuffix = ".scale_weight"
  private static let inputSuffix = ".scale_input"

  static func read(_ file: WeightFile, into layers: inout StoredQuantisation.Layers) throws(WeightsError) {
    for name in file.names {
      if name == marker || name.hasSuffix(".\(marker)") || name.hasSuffix(inputSuffix) {
        layers.companions.insert(name)
      }
      guard name.hasSuffix(scaleSuffix) else { continue }
      let weight = "\(name.dropLast(scaleSuffix.count)).weight"
      guard let entry = file.entries[weight] else {
        throw .malformedEntry(file: file.path, tensor: name, reason: "is the scale of \(weight), which is missing")
      }
      layers.companions.insert(name)
      guard let format = BlockFormat(rawValue: entry.dtypeName), [.float8E4M3, .float8E5M2].contains(format) else {
        throw .malformedEntry(
          file: file.path, tensor: weight, reason: "is \(entry.dtypeName) \(entry.shape), but has the scale \(name)")
      }
      try checkScales(name, of: weight, rows: entry.shape.dimensions.first ?? 1, in: file.path, file.entries)
      layers.quantisations[weight] = StoredQuantisation(format, scales: name)
    }
  }

  /// Requires scales: one for each row, or one for all.
  static func checkScales(
    _ name: String, of weight: String, rows: Int, in file: String, _ entries: [String: SafetensorsHeader.Entry]
  ) throws(WeightsError) {
    guard let entry = entries[name] else {
      throw .malformedEntry(
        file: file, tensor: weight,
        reason: "is quantised, but its scales \(name) are missing; the file is incomplete, take another one")
    }
    guard entry.dtype == .fp32 else {
      throw .unsupportedDType(file: file, tensor: name, found: entry.dtypeName, supported: [DType.fp32.rawValue])
    }
    let isScalar = entry.shape.rank <= 2 && entry.shape.elementCount == 1
    guard isScalar || entry.shape == [rows] || entry.shape == [rows, 1] else {
      throw .misshapenTensor(file: file, tensor: name, expected: [rows, 1], found: entry.shape)
    }
  }
}
