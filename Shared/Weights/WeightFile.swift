import Foundation
import TensorCore

/// A file of weights in one of the formats that are read, mapped into memory and checked.
public struct WeightFile: Sendable {
  /// Path of the file, as errors name it.
  public let path: String
  /// Size of the whole file.
  public let fileByteCount: Int
  /// When the file was last written, in nanoseconds since 1970.
  public let modificationTimeNs: Int
  /// What a safetensors file holds; nil: it is none.
  public let safetensors: SafetensorsFile?
  /// The header of a GGUF file; nil: it is none.
  public let gguf: GGUFHeader?
  let region: TensorRegion

  /// What the names of GGUF files end on.
  static let ggufSuffix = ".gguf"

  /// Opens and checks `url`, whose name says which format it has: GGUF, or else safetensors. Reads the header only;
  /// data pages are read when they are first touched.
  public init(_ url: URL) throws(WeightsError) {
    path = url.path
    guard url.lastPathComponent.lowercased().hasSuffix(Self.ggufSuffix) else {
      let file = try SafetensorsFile(url)
      fileByteCount = file.fileByteCount
      modificationTimeNs = file.modificationTimeNs
      region = file.region
      safetensors = file
      gguf = nil
      return
    }
    let file = try OpenFile(path)
    fileByteCount = file.byteCount
    modificationTimeNs = file.modificationTimeNs
    safetensors = nil
    let header = try Self.ggufHeader(of: file)
    gguf = header
    region = TensorRegion(
      path: path, entries: header.entries,
      mapping: try FileMapping(descriptor: file.descriptor, byteCount: file.byteCount, file: path),
      dataOffset: header.dataOffset)
  }

  /// Reads as much of the file as its header takes.
  private static func ggufHeader(of file: borrowing OpenFile) throws(WeightsError) -> GGUFHeader {
    let path = file.path
    let beginning = try file.read(offset: 0, count: min(file.byteCount, FileKind.prefixByteCount))
    guard beginning.starts(with: "GGUF".utf8) else {
      if let kind = FileKind(beginning: beginning, isTextExpected: false) {
        throw .foreignFile(file: path, expected: "a GGUF file", kind: kind)
      }
      throw .cannotRead(file: path, reason: "it is not a GGUF file, whatever its name says")
    }
    var count = min(file.byteCount, 1 << 16)
    while true {
      let bytes = try file.read(offset: 0, count: count)
      if let header = try GGUFHeader.read(bytes, fileByteCount: file.byteCount, file: path) {
        try requireWhole(header, path)
        return header
      }
      guard count < GGUFHeader.maxHeaderBytes else {
        throw .malformedHeader(file: path, reason: "has more than \(GGUFHeader.maxHeaderBytes) bytes")
      }
      count = min(file.byteCount, min(4 * count, GGUFHeader.maxHeaderBytes))
    }
  }

  private static func requireWhole(_ header: GGUFHeader, _ path: String) throws(WeightsError) {
    guard case .integer(let count)? = header.metadata["split.count"], count > 1 else { return }
    throw .malformedHeader(
      file: path, reason: "is one of \(count) parts; join them with `llama-gguf-split --merge`")
  }

  /// The tensors by name.
  public var entries: [String: SafetensorsHeader.Entry] { region.entries }

  /// The tensors' names, sorted.
  public var names: [String] { entries.keys.sorted() }

  /// CRC-32 of the bytes of a safetensors header.
  public var headerChecksum: UInt32? { safetensors?.headerChecksum }

  /// CRC-32 of everything after the header of a safetensors file. Reads the whole file, a piece at a time.
  public func dataChecksum() -> UInt32? { safetensors?.dataChecksum() }

  func releasePages(of name: String) {
    region.releasePages(of: name)
  }

  func evictPages(of name: String) {
    if let range = region.range(of: name) { region.mapping.evictPages(range) }
  }

  func populatePages(of name: String) {
    if let range = region.range(of: name) { region.mapping.populatePages(range) }
  }
}
