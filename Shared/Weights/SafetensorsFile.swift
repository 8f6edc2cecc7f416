import Foundation
import TensorCore

/// A safetensors file, mapped into memory and checked; its tensors are views into the mapping.
public struct SafetensorsFile: Sendable {
  /// Path of the file, as errors name it.
  public let path: String
  /// What the file holds.
  public let header: SafetensorsHeader
  /// Size of the whole file.
  public let fileByteCount: Int
  /// When the file was last written, in nanoseconds since 1970.
  public let modificationTimeNs: Int
  /// CRC-32 of the header's bytes.
  public let headerChecksum: UInt32
  let region: TensorRegion

  /// Opens and checks `url`. Reads the header only; data pages are read when they are first touched.
  public init(_ url: URL) throws(WeightsError) {
    path = url.path
    let file = try OpenFile(path)
    fileByteCount = file.byteCount
    modificationTimeNs = file.modificationTimeNs
    let beginning = try file.read(offset: 0, count: min(file.byteCount, FileKind.prefixByteCount))
    if let kind = FileKind(beginning: beginning, isTextExpected: false) {
      throw .foreignFile(file: path, expected: "a safetensors file", kind: kind)
    }
    guard file.byteCount >= 8 else {
      throw .truncated(file: path, expectedBytes: 8, foundBytes: UInt64(file.byteCount))
    }
    let headerByteCount = beginning[..<8].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    guard headerByteCount <= SafetensorsHeader.maxHeaderBytes else {
      throw .malformedHeader(
        file: path, reason: "length \(headerByteCount), the limit is \(SafetensorsHeader.maxHeaderBytes)")
    }
    let dataOffset = 8 + Int(headerByteCount)
    guard dataOffset <= file.byteCount else {
      throw .truncated(file: path, expectedBytes: UInt64(dataOffset), foundBytes: UInt64(file.byteCount))
    }
    let json = try file.read(offset: 8, count: Int(headerByteCount))
    headerChecksum = CRC32.of(json)
    header = try SafetensorsHeader(json: json, dataByteCount: file.byteCount - dataOffset, file: path)
    region = TensorRegion(
      path: path, entries: header.entries,
      mapping: try FileMapping(descriptor: file.descriptor, byteCount: file.byteCount, file: path),
      dataOffset: dataOffset)
  }

  /// The tensors' names, sorted.
  public var names: [String] { header.entries.keys.sorted() }

  /// The stored bytes of a tensor of any element type.
  public func withBytes<Result>(
    of name: String, _ body: (RawSpan) throws(WeightsError) -> Result
  ) throws(WeightsError) -> Result { try region.withBytes(of: name, body) }

  /// Gives up the memory of a tensor that was read; reading it again takes it back from the file.
  public func releasePages(of name: String) {
    region.releasePages(of: name)
  }

  /// A part of a tensor's stored bytes, read from the file without touching the mapping.
  public func readBytes(of name: String, in range: Range<Int>) throws(WeightsError) -> [UInt8] {
    try region.readBytes(of: name, in: range)
  }

  /// The tensor `name` as a view into the mapping, which lives as long as the view.
  ///
  /// The format does not promise alignment. A tensor whose first element is not aligned to its width is copied instead
  /// of viewed.
  public func tensor(_ name: String) throws(WeightsError) -> Tensor { try region.tensor(name) }

  /// CRC-32 of everything after the header. Reads the whole file, a piece at a time.
  public func dataChecksum() -> UInt32 {
    var checksum = CRC32()
    let piece = 64 << 20
    for start in stride(from: region.dataOffset, to: fileByteCount, by: piece) {
      let range = start..<min(start + piece, fileByteCount)
      region.mapping.withBytes(range) { checksum.update($0) }
      region.mapping.releasePages(range)
    }
    return checksum.value
  }
}
