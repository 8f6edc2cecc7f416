import TensorCore

/// The parsed and checked beginning of a GGUF file, version 2 or 3.
///
/// Format: `GGUF`, version (32 bits), number of tensors and of metadata pairs (64 bits each), all little-endian; the
/// pairs (key, type, value); the tensors (name, extents, innermost first, type, offset); then, aligned, the tensors'
/// bytes (https://github.com/ggml-org/ggml, "docs/gguf.md").
public struct GGUFHeader: Sendable, Equatable {
  /// The value of a metadata pair; arrays are kept if they are short and hold numbers or truth values.
  public enum Value: Sendable, Equatable {
    /// A whole number.
    case integer(Int)
    /// A floating-point number.
    case number(Double)
    /// A truth value.
    case bool(Bool)
    /// A string.
    case text(String)
    /// Numbers, or truth values as 0 and 1.
    case integers([Int])
    /// An array that is not kept, with its length.
    case array(count: Int)
  }

  /// The format's version.
  public let version: Int
  /// The tensors by name. Types that safetensors has bear its names, others those of ggml; shapes are outermost first.
  public let entries: [String: SafetensorsHeader.Entry]
  /// The pairs by key.
  public let metadata: [String: Value]
  /// Bytes before the first tensor.
  public let dataOffset: Int

  /// `general.architecture`: `qwen_image`, `qwen2vl`, `clip`.
  public var architecture: String? {
    if case .text(let name)? = metadata["general.architecture"] { name } else { nil }
  }

  /// Files with longer headers are refused.
  public static let maxHeaderBytes = 256 << 20
  /// Most tensors, and most metadata pairs.
  public static let maxCount = 1 << 16
  /// Tensors of higher rank are refused.
  public static let maxRank = 8
  /// Longest name and key, in bytes.
  public static let maxNameBytes = 1 << 16
  static let maxKeptElements = 256
  static let maxAlignment = 1 << 20

  /// Reads `bytes`, the beginning of a file of `fileByteCount` bytes.
  ///
  /// - Parameter file: names the file in errors.
  /// - Returns: nil: the header does not end within `bytes`, and the file is longer.
  /// - Throws: a `WeightsError` naming the file and, where there is one, the tensor.
  public static func read(_ bytes: [UInt8], fileByteCount: Int, file: String) throws(WeightsError) -> GGUFHeader? {
    var reader = GGUFReader(bytes, fileByteCount: fileByteCount)
    do { return try GGUFHeader(&reader) } catch {
      switch error {
      case .incomplete where bytes.count < fileByteCount: return nil
      case .incomplete:
        throw .malformedHeader(file: file, reason: "ends within its GGUF header; it is incomplete, download it again")
      case .malformed(let reason, nil): throw .malformedHeader(file: file, reason: reason)
      case .malformed(let reason, let tensor?): throw .malformedEntry(file: file, tensor: tensor, reason: reason)
      }
    }
  }

  private init(_ reader: inout GGUFReader) throws(GGUFReader.Failure) {
    guard try reader.bytes(4).elementsEqual("GGUF".utf8) else { throw .malformed("does not begin with GGUF", nil) }
    let version = try reader.integer(4)
    guard version & 0xffff != 0 else { throw .malformed("is big-endian, which is not read", nil) }
    guard (2...3).contains(version) else {
      throw .malformed("is of version \(version) of GGUF; read are 2 and 3", nil)
    }
    let tensorCount = try reader.count(of: "tensors"), pairCount = try reader.count(of: "metadata pairs")
    var metadata: [String: Value] = [:]
    for _ in 0..<pairCount {
      let key = try reader.string("a metadata key")
      let value = try reader.value(of: key)
      guard metadata.updateValue(value, forKey: key) == nil else {
        throw .malformed("has the metadata key \"\(printable(key, max: 80))\" twice", nil)
      }
    }
    self.version = version
    self.metadata = metadata
    let alignment = try Self.alignment(metadata)
    var tensors: [GGUFTensor] = []
    for _ in 0..<tensorCount { tensors.append(try reader.tensor(alignment: alignment, metadata)) }
    let dataOffset = (reader.offset + alignment - 1) / alignment * alignment
    self.dataOffset = dataOffset
    entries = try Self.checked(tensors, dataByteCount: reader.fileByteCount - dataOffset)
  }

  private static func alignment(_ metadata: [String: Value]) throws(GGUFReader.Failure) -> Int {
    guard let value = metadata["general.alignment"] else { return 32 }
    guard case .integer(let alignment) = value, (1...maxAlignment).contains(alignment),
      alignment & (alignment - 1) == 0
    else { throw .malformed("has a general.alignment that is no power of two up to \(maxAlignment)", nil) }
    return alignment
  }

  /// Requires that tensors lie in the file, apart from one another, and have names of their own.
  private static func checked(
    _ tensors: [GGUFTensor], dataByteCount: Int
  ) throws(GGUFReader.Failure) -> [String: SafetensorsHeader.Entry] {
    var entries: [String: SafetensorsHeader.Entry] = [:], end = 0
    for tensor in tensors.sorted(by: { ($0.entry.begin, $0.entry.byteCount) < ($1.entry.begin, $1.entry.byteCount) }) {
      guard entries.updateValue(tensor.entry, forKey: tensor.name) == nil else {
        throw .malformed("is there twice", tensor.name)
      }
      guard tensor.entry.begin >= end else {
        throw .malformed(
          "begins at \(tensor.entry.begin) and overlaps its neighbour, which ends at \(end)", tensor.name)
      }
      guard tensor.entry.byteCount <= dataByteCount - tensor.entry.begin else {
        throw .malformed(
          "has \(tensor.entry.byteCount) bytes from \(tensor.entry.begin) on, the file has \(max(dataByteCount, 0)) "
            + "bytes of data; it is incomplete, download it again", tensor.name)
      }
      end = tensor.entry.begin + tensor.entry.byteCount
    }
    return entries
  }
}

/// A tensor as the header describes it.
struct GGUFTensor {
  let name: String
  let entry: SafetensorsHeader.Entry

  /// Names, elements and bytes of blocks, by ggml's numbers of the types.
  static let types: [Int: (name: String, elements: Int, bytes: Int)] = [
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
  ]
}
