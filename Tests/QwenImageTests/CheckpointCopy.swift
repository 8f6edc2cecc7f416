import Diffusion
import Foundation
import Weights

/// A tensor as a safetensors file has it, of any element type.
struct StoredTensor: Equatable {
  var dtype: String
  var shape: [Int]
  var bytes: [UInt8]

  /// Bytes of an element; those types that odd files are made with.
  static let widths = [
    "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
  ]

  var elementCount: Int { shape.reduce(1, *) }
  var width: Int { Self.widths[dtype] ?? 0 }

  /// The values of a tensor in F32, BF16 or F16.
  var floats: [Float] {
    stride(from: 0, to: bytes.count, by: width).map { index in
      let bits = (0..<width).reduce(UInt32(0)) { $0 | UInt32(bytes[index + $1]) << (8 * $1) }
      switch dtype {
      case "F32": return Float(bitPattern: bits)
      case "BF16": return Float(bitPattern: bits << 16)
      default: return Float(halfBits: UInt16(bits))
      }
    }
  }

  /// The same values, rounded if need be, in F32, BF16 or F16.
  func converted(to dtype: String) -> StoredTensor {
    let bytes = floats.flatMap { value -> [UInt8] in
      switch dtype {
      case "F32": return (0..<4).map { UInt8(truncatingIfNeeded: value.bitPattern >> (8 * $0)) }
      case "BF16":
        let bits = value.bitPattern, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16
        return [UInt8(truncatingIfNeeded: rounded), UInt8(truncatingIfNeeded: rounded >> 8)]
      default:
        let bits = Self.halfBits(value)
        return [UInt8(truncatingIfNeeded: bits), UInt8(bits >> 8)]
      }
    }
    return StoredTensor(dtype: dtype, shape: shape, bytes: bytes)
  }

  /// The binary16 number nearest to a value within its range, ties to even.
  private static func halfBits(_ value: Float) -> UInt16 {
    let sign: UInt16 = value.sign == .minus ? 0x8000 : 0
    let exponent = max(value == 0 ? -14 : Int(value.exponent), -14)
    let steps = (value.magnitude * Float(sign: .plus, exponent: 10 - exponent, significand: 1)).rounded(
      .toNearestOrEven)
    return sign | UInt16(Int(steps) + (exponent + 14) << 10)
  }
}

/// The tensors of a safetensors file, in the order of their data, and how they are written.
struct StoredFile {
  var tensors: [(name: String, tensor: StoredTensor)]
  /// The value of `__metadata__`; nil leaves it out.
  var metadata: String? = #"{"format":"pt"}"#
  /// What the header is filled up with to `alignment` bytes.
  var padding: UInt8 = 0x20
  var alignment = 8
  var tail: [UInt8] = []

  init(tensors: [(name: String, tensor: StoredTensor)]) { self.tensors = tensors }

  init(_ url: URL) throws {
    let file = try SafetensorsFile(url)
    let ordered = file.header.entries.sorted { ($0.value.begin, $0.key) < ($1.value.begin, $1.key) }
    tensors = try ordered.map { name, entry in
      let bytes = try file.withBytes(of: name) { span in span.withUnsafeBytes { Array($0) } }
      return (name, StoredTensor(dtype: entry.dtypeName, shape: entry.shape.dimensions, bytes: bytes))
    }
    let pairs = file.header.metadata.sorted { $0.key < $1.key }.map { "\"\($0.key)\":\"\($0.value)\"" }
    metadata = "{" + pairs.joined(separator: ",") + "}"
  }

  subscript(name: String) -> StoredTensor? {
    get { tensors.first { $0.name == name }?.tensor }
    set {
      if let index = tensors.firstIndex(where: { $0.name == name }) {
        if let newValue { tensors[index].tensor = newValue } else { tensors.remove(at: index) }
      } else if let newValue {
        tensors.append((name, newValue))
      }
    }
  }

  /// The file's bytes.
  func bytes() -> [UInt8] { header() + tensors.flatMap(\.tensor.bytes) + tail }

  /// The bytes before the tensors.
  ///
  /// - Parameters:
  ///   - byteCount: how many; nil for no more than needed.
  ///   - end: what `data_offsets` says of a tensor's end, by its name and true end.
  func header(byteCount: Int? = nil, end: (_ name: String, _ end: Int) -> Int = { $1 }) -> [UInt8] {
    var offset = 0, entries = metadata.map { ["\"__metadata__\":\($0)"] } ?? []
    for (name, tensor) in tensors {
      let begin = offset
      offset += tensor.bytes.count
      entries.append(
        "\"\(name)\":{\"dtype\":\"\(tensor.dtype)\",\"shape\":\(tensor.shape),"
          + "\"data_offsets\":[\(begin),\(end(name, offset))]}")
    }
    var header = Array("{\(entries.joined(separator: ","))}".utf8)
    while alignment > 0, header.count % alignment != 0 { header.append(padding) }
    if let byteCount { header += [UInt8](repeating: 0x20, count: byteCount - 8 - header.count) }
    return (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) } + header
  }
}

/// A copy of the tiny checkpoint, or of another, to be changed. Removed at the end of its scope.
struct CheckpointCopy: ~Copyable {
  let directory: TemporaryDirectory
  /// The checkpoint's directory.
  let url: URL

  init(of source: URL = Golden.tinyCheckpoint) throws {
    let directory = try TemporaryDirectory(), url = directory.url.appending(path: "checkpoint")
    try FileManager.default.copyItem(at: source, to: url)
    self.url = url
    self.directory = directory
  }

  func file(_ path: String) -> URL { url.appending(path: path) }

  func remove(_ path: String) throws { try FileManager.default.removeItem(at: file(path)) }

  func write(_ bytes: some Sequence<UInt8>, to path: String) throws { try Data(bytes).write(to: file(path)) }

  func write(_ text: String, to path: String) throws { try Data(text.utf8).write(to: file(path)) }

  func move(_ path: String, to other: String) throws {
    try FileManager.default.moveItem(at: file(path), to: file(other))
  }

  /// Replaces a file by a symbolic link.
  func link(_ path: String, to target: String) throws {
    if (try? FileManager.default.attributesOfItem(atPath: file(path).path)) != nil { try remove(path) }
    try FileManager.default.createSymbolicLink(atPath: file(path).path, withDestinationPath: target)
  }

  /// Changes the members of a JSON object.
  func edit(_ path: String, _ change: (inout [String: Any]) throws -> Void) throws {
    var members = try object(path)
    try change(&members)
    try JSONSerialization.data(withJSONObject: members, options: .sortedKeys).write(to: file(path))
  }

  func object(_ path: String) throws -> [String: Any] {
    try JSONSerialization.jsonObject(with: Data(contentsOf: file(path))) as? [String: Any] ?? [:]
  }

  /// Replaces a component's files by a single one with all tensors, changed.
  func merge(_ component: ModelComponent, _ change: (inout StoredFile) throws -> Void = { _ in }) throws {
    let names = try FileManager.default.contentsOfDirectory(atPath: file(component.rawValue).path)
      .filter { $0.contains(".safetensors") }.sorted()
    var merged = StoredFile(tensors: [])
    for name in names where name.hasSuffix(".safetensors") {
      merged.tensors += try StoredFile(file("\(component.rawValue)/\(name)")).tensors
    }
    for name in names { try remove("\(component.rawValue)/\(name)") }
    try change(&merged)
    try write(merged.bytes(), to: Self.single(component))
  }

  /// The path of a component's single file.
  static func single(_ component: ModelComponent) -> String {
    "\(component.rawValue)/\(component == .textEncoder ? "model" : "diffusion_pytorch_model").safetensors"
  }
}
