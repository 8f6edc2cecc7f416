import Foundation
import TensorCore
import Weights

/// A tensor as a safetensors file has it, of any element type.
package struct StoredTensor: Equatable {
  package var dtype: String
  package var shape: [Int]
  package var bytes: [UInt8]

  package init(dtype: String, shape: [Int], bytes: [UInt8]) {
    (self.dtype, self.shape, self.bytes) = (dtype, shape, bytes)
  }

  /// Bytes of an element; those types that odd files are made with.
  package static let widths = [
    "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
  ]

  package var elementCount: Int { shape.reduce(1, *) }
  package var width: Int { Self.widths[dtype] ?? 0 }

  /// The values of a tensor in F32, BF16 or F16.
  package var floats: [Float] {
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
  package func converted(to dtype: String) -> StoredTensor {
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
package struct StoredFile {
  package var tensors: [(name: String, tensor: StoredTensor)]
  /// The value of `__metadata__`; nil leaves it out.
  package var metadata: String? = #"{"format":"pt"}"#
  /// What the header is filled up with to `alignment` bytes.
  package var padding: UInt8 = 0x20
  package var alignment = 8
  package var tail: [UInt8] = []

  package init(tensors: [(name: String, tensor: StoredTensor)]) { self.tensors = tensors }

  package init(_ url: URL) throws {
    let file = try SafetensorsFile(url)
    let ordered = file.header.entries.sorted { ($0.value.begin, $0.key) < ($1.value.begin, $1.key) }
    tensors = try ordered.map { name, entry in
      let bytes = try file.withBytes(of: name) { span in span.withUnsafeBytes { Array($0) } }
      return (name, StoredTensor(dtype: entry.dtypeName, shape: entry.shape.dimensions, bytes: bytes))
    }
    let pairs = file.header.metadata.sorted { $0.key < $1.key }.map { "\"\($0.key)\":\"\($0.value)\"" }
    metadata = "{" + pairs.joined(separator: ",") + "}"
  }

  package subscript(name: String) -> StoredTensor? {
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
  package func bytes() -> [UInt8] { header() + tensors.flatMap(\.tensor.bytes) + tail }

  /// The bytes before the tensors.
  ///
  /// - Parameters:
  ///   - byteCount: how many; nil for no more than needed.
  ///   - end: what `data_offsets` says of a tensor's end, by its name and true end.
  package func header(byteCount: Int? = nil, end: (_ name: String, _ end: Int) -> Int = { $1 }) -> [UInt8] {
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
