/// Packed weights as parts of mapped files, which may be read before they are needed and given up afterwards.
public struct MappedWeights: Sendable {
  private struct Part: Sendable {
    let file: WeightFile
    let name: String
  }
  private let parts: [Part]
  /// Bytes of all parts.
  public let byteCount: Int

  init(_ parts: [(file: WeightFile, name: String)]) {
    self.parts = parts.map { Part(file: $0.file, name: $0.name) }
    byteCount = parts.reduce(0) { $0 + ($1.file.entries[$1.name]?.byteCount ?? 0) }
  }

  /// Reads everything into memory; returns when it is there.
  public func readAhead() {
    for part in parts { part.file.populatePages(of: part.name) }
  }

  /// Takes everything out of memory, out of the page cache too, except what other processes have mapped.
  public func evict() {
    for part in parts { part.file.evictPages(of: part.name) }
  }
}
