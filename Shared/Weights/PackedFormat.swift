import Kernels
import TensorCore

/// How packed weights are kept in safetensors files; `Shared/Documentation/packed-weights.md` describes every byte.
///
/// The weight `X` of a linear layer becomes the tensors `X.panels` and, for int8 and q4, `X.scales` and `X.offsets`;
/// the metadata pair `packed:X` says how: `q4 [3072, 12288]`, or `q4/256 [3072, 12288]` where 256 inputs are rotated
/// together. Everything else is stored as published.
enum PackedFormat {
  /// Raised whenever files get a meaning that older programs would misread.
  static let version = 1
  static let versionKey = "packing.version"
  /// The layout of panels of the component's mode, ``Kernels/Linear/layoutVersion(_:)``.
  static let layoutKey = "packing.layout"
  /// The mode that the component was packed for; single layers may be kept at another precision.
  static let precisionKey = "packing.precision"
  static let layerPrefix = "packed:"
  static let partNames = ["panels", "scales", "offsets"]

  /// What the metadata say of one weight.
  struct Layer: Sendable, Equatable {
    let precision: Precision
    let output: Int
    let input: Int
    /// Inputs that are rotated together, ``Kernels/Linear/rotation``.
    var rotation = 1

    var description: String {
      "\(precision.rawValue)\(rotation == 1 ? "" : "/\(rotation)") [\(output), \(input)]"
    }
    var shape: Shape { [output, input] }
  }

  /// The metadata of every file packed for `precision`.
  static func metadata(_ precision: Precision) -> [String: String] {
    [versionKey: "\(version)", layoutKey: "\(Linear.layoutVersion(precision))", precisionKey: precision.rawValue]
  }

  /// What a file's metadata say: the mode it was packed for and its packed weights, or nil for a file of plain tensors.
  static func read(_ header: SafetensorsHeader, file: String) throws(WeightsError) -> (
    precision: Precision, layers: [String: Layer]
  )? {
    guard let version = header.metadata[versionKey] else { return nil }
    let again = "; make it again from the original checkpoint"
    guard version == "\(Self.version)" else {
      throw .malformedHeader(
        file: file, reason: "\(versionKey) is \"\(version.prefix(20))\", this program reads \(Self.version)\(again)")
    }
    let mode = header.metadata[precisionKey] ?? ""
    guard let precision = Precision(rawValue: mode) else {
      let known = Precision.allCases.map(\.rawValue).joined(separator: ", ")
      throw .malformedHeader(file: file, reason: "\(precisionKey) is \"\(mode.prefix(20))\", expected one of \(known)")
    }
    let layout = header.metadata[layoutKey] ?? "", readable = "\(Linear.layoutVersion(precision))"
    guard layout == readable else {
      throw .malformedHeader(
        file: file,
        reason:
          "\(layoutKey) is \"\(layout.prefix(20))\", this program reads \(readable) of \(precision.rawValue)\(again)")
    }
    var layers: [String: Layer] = [:]
    for (key, value) in header.metadata where key.hasPrefix(layerPrefix) {
      let name = String(key.dropFirst(layerPrefix.count))
      guard let layer = Layer(value) else {
        throw .malformedEntry(
          file: file, tensor: name, reason: "\"\(value.prefix(60))\" does not say how it is packed: q4 [3072, 12288]")
      }
      layers[name] = layer
    }
    return (precision, layers)
  }
}

extension PackedFormat.Layer {
  /// Extents beyond this are refused before anything is computed from them.
  private static let maxExtent = 1 << 24

  /// `q4 [3072, 12288]` or `q4/256 [3072, 12288]`.
  init?(_ text: String) {
    let words = text.split(separator: " ", omittingEmptySubsequences: false)
    let form = words[0].split(separator: "/", omittingEmptySubsequences: false)
    guard words.count == 3, let precision = Precision(rawValue: String(form[0])), words[1].first == "[",
      words[1].last == ",",
      words[2].last == "]", let output = Int(words[1].dropFirst().dropLast()), let input = Int(words[2].dropLast()),
      (1...Self.maxExtent).contains(output), (1...Self.maxExtent).contains(input)
    else { return nil }
    let rotation = form.count == 1 ? 1 : Int(form[1]) ?? 0
    guard form.count <= 2, rotation > 0 else { return nil }
    self.init(precision: precision, output: output, input: input, rotation: rotation)
  }
}
