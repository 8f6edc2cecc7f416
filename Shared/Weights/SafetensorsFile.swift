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
  private let mapping: FileMapping
  private let dataOffset: Int

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
    dataOffset = 8 + Int(headerByteCount)
    guard dataOffset <= file.byteCount else {
      throw .truncated(file: path, expectedBytes: UInt64(dataOffset), foundBytes: UInt64(file.byteCount))
    }
    let json = try file.read(offset: 8, count: Int(headerByteCount))
    headerChecksum = CRC32.of(json)
    header = try SafetensorsHeader(json: json, dataByteCount: file.byteCount - dataOffset, file: path)
    mapping = try FileMapping(descriptor: file.descriptor, byteCount: file.byteCount, file: path)
  }

  /// The tensors' names, sorted.
  public var names: [String] { header.entries.keys.sorted() }

  /// The stored bytes of a tensor of any element type.
  public func withBytes<Result>(
    of name: String, _ body: (RawSpan) throws(WeightsError) -> Result
  ) throws(WeightsError) -> Result {
    try mapping.withBytes(range(try entry(name)), body)
  }

  /// A part of a tensor's stored bytes, read from the file without touching the mapping.
  ///
  /// For samples here and there: touching a page of a mapping makes the kernel read megabytes around it, which took 15
  /// s instead of a fraction of one for a sample of every tensor of a 40 GB file.
  public func readBytes(of name: String, in range: Range<Int>) throws(WeightsError) -> [UInt8] {
    let entry = try entry(name)
    precondition(range.lowerBound >= 0 && range.upperBound <= entry.byteCount, "bytes \(range) of \(entry.byteCount)")
    let file = try OpenFile(path)
    file.adviseRandomAccess()
    return try file.read(offset: dataOffset + entry.begin + range.lowerBound, count: range.count)
  }

  /// The tensor `name` as a view into the mapping, which lives as long as the view.
  ///
  /// The format does not promise alignment. A tensor whose first element is not aligned to its width is copied instead
  /// of viewed.
  public func tensor(_ name: String) throws(WeightsError) -> Tensor {
    let entry = try entry(name)
    guard let dtype = entry.dtype else {
      throw .unsupportedDType(
        file: path, tensor: name, found: entry.dtypeName, supported: DType.allCases.map(\.rawValue))
    }
    return mapping.tensor(range(entry), shape: entry.shape, dtype: dtype)
  }

  /// Takes the tensor's pages out of this process's memory until they are next accessed.
  public func releasePages(of name: String) {
    if let range = range(of: name) { mapping.releasePages(range) }
  }

  /// Takes the tensor's pages out of memory, out of the page cache too, except what other processes have mapped.
  public func evictPages(of name: String) {
    if let range = range(of: name) { mapping.evictPages(range) }
  }

  /// Reads the tensor's pages into memory; returns when they are there.
  public func populatePages(of name: String) {
    if let range = range(of: name) { mapping.populatePages(range) }
  }

  /// CRC-32 of everything after the header. Reads the whole file, a piece at a time.
  public func dataChecksum() -> UInt32 {
    var checksum = CRC32()
    let piece = 64 << 20
    for start in stride(from: dataOffset, to: fileByteCount, by: piece) {
      let range = start..<min(start + piece, fileByteCount)
      mapping.withBytes(range) { checksum.update($0) }
      mapping.releasePages(range)
    }
    return checksum.value
  }

  private func entry(_ name: String) throws(WeightsError) -> SafetensorsHeader.Entry {
    guard let entry = header.entries[name] else { throw .missingTensor(component: path, tensor: name, expected: nil) }
    return entry
  }

  /// Where the file holds the tensor.
  private func range(of name: String) -> Range<Int>? { header.entries[name].map(range) }

  private func range(_ entry: SafetensorsHeader.Entry) -> Range<Int> {
    dataOffset + entry.begin..<dataOffset + entry.begin + entry.byteCount
  }
}
