import StrictJSON
import TensorCore

/// The parsed and checked header of a safetensors file.
///
/// Format: 8 bytes little-endian header length, a JSON object `{name: {dtype, shape, data_offsets}, "__metadata__":
/// {…}}` that may be padded with spaces, then the tensors' bytes, covered by the offsets without holes or overlaps
/// (https://github.com/huggingface/safetensors, "Format").
public struct SafetensorsHeader: Sendable, Equatable {
  /// Where and what one tensor is.
  public struct Entry: Sendable, Equatable {
    /// The format's name of the element type, such as `BF16`; may be one that `DType` does not have.
    public let dtypeName: String
    /// Extents.
    public let shape: Shape
    /// First byte, counted from the end of the header.
    public let begin: Int
    /// Size in bytes.
    public let byteCount: Int

    /// The element type, if tensors of this project can have it.
    public var dtype: DType? { DType(rawValue: dtypeName) }
  }

  /// The tensors by name.
  public let entries: [String: Entry]
  /// Free text pairs.
  public let metadata: [String: String]
  /// Total size of the tensors' bytes.
  public let dataByteCount: Int

  /// The reference implementation's own limit.
  public static let maxHeaderBytes = 100_000_000
  /// Tensors of higher rank are refused.
  public static let maxRank = 16

  /// Bytes per element of the format's types that are a whole number of bytes.
  private static let widths: [String: Int] = [
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8, "C64": 8,
  ]

  /// Checks `json`, a header followed by `dataByteCount` bytes of tensors. `file` only names the file in errors.
  public init(json: [UInt8], dataByteCount: Int, file: String) throws(WeightsError) {
    guard json.first == UInt8(ascii: "{") else { throw .malformedHeader(file: file, reason: "does not start with '{'") }
    let document: JSON
    do { document = try JSON(json) } catch {
      let isPadding = error.offset < json.count && json[error.offset...].allSatisfy { $0 == 0 }
      throw .malformedHeader(
        file: file, reason: isPadding ? "is padded with NUL bytes, the format allows spaces only" : error.description)
    }
    guard case .object(let members) = document else { throw .malformedHeader(file: file, reason: "is not an object") }

    var entries: [String: Entry] = [:]
    var metadata: [String: String] = [:]
    for (name, value) in members {
      if name == "__metadata__" {
        metadata = try Self.metadata(value, file: file)
      } else {
        do { entries[name] = try Self.entry(value) } catch {
          throw .malformedEntry(file: file, tensor: name, reason: error.reason)
        }
      }
    }
    self.entries = entries
    self.metadata = metadata
    self.dataByteCount = dataByteCount
    try checkCoverage(file: file)
  }

  private struct EntryError: Error { let reason: String }

  private static func metadata(_ value: JSON, file: String) throws(WeightsError) -> [String: String] {
    // The reference implementation takes null for no metadata.
    if value == .null { return [:] }
    guard case .object(let members) = value else {
      throw .malformedHeader(file: file, reason: "__metadata__ is \(value.kind), expected an object")
    }
    var metadata: [String: String] = [:]
    for (key, value) in members {
      guard case .string(let text) = value else {
        throw .malformedHeader(file: file, reason: "__metadata__.\(key) is \(value.kind), expected a string")
      }
      metadata[key] = text
    }
    return metadata
  }

  private static func entry(_ value: JSON) throws(EntryError) -> Entry {
    guard case .object(let fields) = value else {
      throw EntryError(reason: "entry is \(value.kind), expected an object")
    }
    if let unknown = fields.keys.sorted().first(where: { !["dtype", "shape", "data_offsets"].contains($0) }) {
      throw EntryError(reason: "unknown field \"\(unknown)\"")
    }
    guard case .string(let dtypeName)? = fields["dtype"] else { throw EntryError(reason: "dtype is not a string") }
    guard let width = widths[dtypeName] else { throw EntryError(reason: "unknown dtype \"\(dtypeName.prefix(40))\"") }
    let dimensions = try integers(fields["shape"], "shape")
    guard dimensions.count <= maxRank else {
      throw EntryError(reason: "rank \(dimensions.count), the limit is \(maxRank)")
    }
    let offsets = try integers(fields["data_offsets"], "data_offsets")
    guard offsets.count == 2, offsets[0] <= offsets[1] else {
      throw EntryError(reason: "data_offsets \(offsets) is not [begin, end]")
    }

    // Zero extents are left out of the overflow check: code that multiplies in another order must be safe too.
    var byteCount = width
    for extent in dimensions where extent > 0 {
      let (product, overflow) = byteCount.multipliedReportingOverflow(by: extent)
      guard !overflow else { throw EntryError(reason: "shape \(dimensions) overflows") }
      byteCount = product
    }
    if dimensions.contains(0) { byteCount = 0 }
    guard byteCount == offsets[1] - offsets[0] else {
      throw EntryError(
        reason: "\(dtypeName) of shape \(dimensions) takes \(byteCount) bytes, "
          + "data_offsets \(offsets) span \(offsets[1] - offsets[0])")
    }
    return Entry(dtypeName: dtypeName, shape: Shape(dimensions), begin: offsets[0], byteCount: byteCount)
  }

  private static func integers(_ value: JSON?, _ field: String) throws(EntryError) -> [Int] {
    guard case .array(let elements)? = value else { throw EntryError(reason: "\(field) is not an array") }
    var integers: [Int] = []
    for element in elements {
      guard let integer = element.integer, integer >= 0 else {
        throw EntryError(reason: "\(field) holds something else than non-negative integers")
      }
      integers.append(integer)
    }
    return integers
  }

  /// The entries must cover the data exactly: no hole, no overlap, nothing outside, nothing left over.
  private func checkCoverage(file: String) throws(WeightsError) {
    var end = 0
    for (name, entry) in entries.sorted(by: {
      ($0.value.begin, $0.value.byteCount, $0.key) < ($1.value.begin, $1.value.byteCount, $1.key)
    }) {
      guard entry.begin == end else {
        let what = entry.begin < end ? "overlaps its neighbour" : "leaves a hole"
        throw .malformedEntry(
          file: file, tensor: name, reason: "data_offsets begin at \(entry.begin) and \(what), expected \(end)")
      }
      end = entry.begin + entry.byteCount
      guard end <= dataByteCount else {
        throw .malformedEntry(
          file: file, tensor: name,
          reason:
            "data_offsets end at \(end), the file has \(dataByteCount) bytes of data; it is incomplete, download it"
        )
      }
    }
    guard end == dataByteCount else {
      throw .malformedHeader(
        file: file,
        reason: "tensors cover \(end) bytes of data, the file has \(dataByteCount): something was added at its end")
    }
  }
}
