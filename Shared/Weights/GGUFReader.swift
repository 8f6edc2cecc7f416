import TensorCore

/// Reads the parts of a GGUF header one after the other, each within limits.
struct GGUFReader {
  enum Failure: Error {
    /// The bytes at hand end too early.
    case incomplete
    /// The header breaks the format's rules: how, and in the entry of which tensor.
    case malformed(_ reason: String, _ tensor: String?)
  }

  /// The size of the whole file.
  let fileByteCount: Int
  /// Bytes that have been read.
  private(set) var offset = 0
  private let all: [UInt8]

  private static let maxDepth = 4

  /// Numbers that the format gives to types of values.
  private enum ValueType: Int {
    case uint8, int8, uint16, int16, uint32, int32, float32, bool, string, array, uint64, int64, float64

    /// Bytes of a value; nil: it varies.
    var byteCount: Int? {
      switch self {
      case .uint8, .int8, .bool: 1
      case .uint16, .int16: 2
      case .uint32, .int32, .float32: 4
      case .uint64, .int64, .float64: 8
      case .string, .array: nil
      }
    }
  }

  init(_ bytes: [UInt8], fileByteCount: Int) {
    all = bytes
    self.fileByteCount = fileByteCount
  }

  mutating func bytes(_ count: Int) throws(Failure) -> ArraySlice<UInt8> {
    try skip(count)
    return all[offset - count..<offset]
  }

  private mutating func skip(_ count: Int) throws(Failure) {
    guard count <= fileByteCount - offset else {
      throw .malformed(
        "has a value of \(count) bytes at byte \(offset) of \(fileByteCount); it is damaged or incomplete", nil)
    }
    guard count <= all.count - offset else { throw .incomplete }
    offset += count
  }

  private mutating func word(_ byteCount: Int) throws(Failure) -> UInt64 {
    try bytes(byteCount).reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  /// An unsigned number that must fit into an `Int`.
  mutating func integer(_ byteCount: Int) throws(Failure) -> Int {
    let word = try word(byteCount)
    guard let integer = Int(exactly: word) else { throw .malformed("has \(word) for a size", nil) }
    return integer
  }

  mutating func count(of what: String) throws(Failure) -> Int {
    let count = try integer(8)
    guard count <= GGUFHeader.maxCount else {
      throw .malformed("has \(count) \(what), the limit is \(GGUFHeader.maxCount)", nil)
    }
    return count
  }

  mutating func string(_ what: String) throws(Failure) -> String {
    let count = try integer(8)
    guard count <= GGUFHeader.maxNameBytes else {
      throw .malformed("has \(what) of \(count) bytes, the limit is \(GGUFHeader.maxNameBytes)", nil)
    }
    guard let text = String(validating: try bytes(count), as: UTF8.self) else {
      throw .malformed("has \(what) at byte \(offset - count) that is not UTF-8", nil)
    }
    return text
  }

  // MARK: - Metadata

  mutating func value(of key: String) throws(Failure) -> GGUFHeader.Value {
    let type = try valueType(of: key)
    return try value(type, key, depth: 0)
  }

  private mutating func valueType(of key: String) throws(Failure) -> ValueType {
    let number = try integer(4)
    guard let type = ValueType(rawValue: number) else {
      throw .malformed("has a value of the unknown type \(number) for \"\(printable(key, max: 80))\"", nil)
    }
    return type
  }

  private mutating func value(_ type: ValueType, _ key: String, depth: Int) throws(Failure) -> GGUFHeader.Value {
    switch type {
    case .array: return try array(key, depth: depth + 1)
    case .string:
      // Templates and licences may be long; they are left out.
      let count = try integer(8)
      let text = try bytes(count)
      return count > GGUFHeader.maxNameBytes ? .array(count: count) : .text(String(decoding: text, as: UTF8.self))
    case .float32: return .number(Double(Float(bitPattern: UInt32(try word(4)))))
    case .float64: return .number(Double(bitPattern: try word(8)))
    case .bool: return .bool(try word(1) != 0)
    default: return .integer(try scalar(type))
    }
  }

  private mutating func scalar(_ type: ValueType) throws(Failure) -> Int {
    let word = try word(type.byteCount ?? 1)
    return switch type {
    case .int8: Int(Int8(truncatingIfNeeded: word))
    case .int16: Int(Int16(truncatingIfNeeded: word))
    case .int32: Int(Int32(truncatingIfNeeded: word))
    case .int64: Int(truncatingIfNeeded: word)
    default: Int(clamping: word)
    }
  }

  private mutating func array(_ key: String, depth: Int) throws(Failure) -> GGUFHeader.Value {
    guard depth <= Self.maxDepth else {
      throw .malformed(
        "has arrays in arrays for \"\(printable(key, max: 80))\", deeper than \(Self.maxDepth)", nil)
    }
    let type = try valueType(of: key), count = try integer(8)
    if let byteCount = type.byteCount {
      let (total, overflow) = count.multipliedReportingOverflow(by: byteCount)
      guard !overflow else { throw .malformed("has an array of \(count) values", nil) }
      guard count <= GGUFHeader.maxKeptElements, type != .float32, type != .float64 else {
        try skip(total)
        return .array(count: count)
      }
      var elements: [Int] = []
      for _ in 0..<count { elements.append(try scalar(type)) }
      return .integers(elements)
    }
    // Every string and every array takes eight bytes at least: the file's size limits the loop.
    for _ in 0..<count {
      if type == .string { try skip(try integer(8)) } else { _ = try array(key, depth: depth + 1) }
    }
    return .array(count: count)
  }

  // MARK: - Tensors

  mutating func tensor(
    alignment: Int, _ metadata: [String: GGUFHeader.Value]
  ) throws(Failure) -> GGUFTensor {
    let name = try string("a tensor's name"), rank = try integer(4)
    guard rank <= GGUFHeader.maxRank else {
      throw .malformed("has rank \(rank), the limit is \(GGUFHeader.maxRank)", name)
    }
    var extents: [Int] = []
    for _ in 0..<rank { extents.append(try integer(8)) }
    let number = try integer(4), begin = try integer(8)
    guard let type = GGUFTensor.types[number] else { throw .malformed("has the unknown type \(number)", name) }
    // Zero extents are left out of the overflow check: code that multiplies in another order must be safe too.
    var count = 1
    for extent in extents where extent > 0 {
      let (product, overflow) = count.multipliedReportingOverflow(by: extent)
      guard !overflow, product <= Int.max / 512 else { throw .malformed("of extents \(extents) overflows", name) }
      count = product
    }
    if extents.contains(0) { count = 0 }
    guard (extents.first ?? 1) % type.elements == 0 else {
      throw .malformed(
        "has \(extents.first ?? 1) elements in a row, \(type.name) has blocks of \(type.elements)", name)
    }
    guard begin % alignment == 0 else {
      throw .malformed("begins at \(begin), which is no multiple of the alignment \(alignment)", name)
    }
    let shape = try originalShape(of: name, Shape(extents.reversed()), count, metadata)
    return GGUFTensor(
      name: name,
      entry: SafetensorsHeader.Entry(
        dtypeName: type.name, shape: shape, begin: begin, byteCount: count / type.elements * type.bytes))
  }

  /// The shape of a tensor that ComfyUI-GGUF has stored in another one, so that its rows have whole blocks.
  private func originalShape(
    of name: String, _ shape: Shape, _ count: Int, _ metadata: [String: GGUFHeader.Value]
  ) throws(Failure) -> Shape {
    guard case .integers(let extents)? = metadata["comfy.gguf.orig_shape.\(name)"] else { return shape }
    var product = 1
    for extent in extents {
      let (next, overflow) = product.multipliedReportingOverflow(by: extent)
      guard extent > 0, !overflow else { throw .malformed("has the original shape \(extents)", name) }
      product = next
    }
    guard extents.count <= SafetensorsHeader.maxRank, product == count else {
      throw .malformed("has \(count) elements, its original shape is \(extents)", name)
    }
    return Shape(extents)
  }
}
