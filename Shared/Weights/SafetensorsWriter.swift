import Foundation
import Synchronization
import TensorCore

/// Writes a safetensors file tensor by tensor, without knowing beforehand which will come.
///
/// Space for the header is reserved and padded with blanks, as the format allows; data follows and is never kept in
/// memory. The file appears under its name only in ``finish()``, by an atomic rename of a finished and synced temporary
/// file beside it; a writer that is dropped before that leaves nothing behind. May be used from several threads.
public final class SafetensorsWriter: Sendable {
  private let url: URL
  private let partial: URL
  private let headerCapacity: Int
  private let state: Mutex<State>

  private struct State {
    var handle: FileHandle?
    var metadata: [String: String]
    var entries: [String] = []
    var names: Set<String> = []
    var headerByteCount: Int
    var dataByteCount = 0
    var dataChecksum = CRC32()
  }

  /// What a finished file's checks need.
  public struct Summary: Sendable, Equatable {
    /// Size of the whole file.
    public let fileByteCount: Int
    /// CRC-32 of the header's bytes.
    public let headerChecksum: UInt32
    /// CRC-32 of everything after the header.
    public let dataChecksum: UInt32
  }

  /// Creates the temporary file.
  /// - Parameters:
  ///   - headerCapacity: Bytes reserved for the header; an entry takes about 80 bytes and the tensor's name.
  public init(_ url: URL, metadata: [String: String] = [:], headerCapacity: Int = 1 << 20) throws(WeightsError) {
    precondition(
      headerCapacity % 8 == 0 && headerCapacity > 0, "a header capacity of \(headerCapacity) would misalign the data")
    self.url = url
    self.headerCapacity = headerCapacity
    let unique = String(UInt64.random(in: 0...UInt64.max), radix: 36)
    partial = url.deletingLastPathComponent().appending(path: ".\(url.lastPathComponent).\(unique).partial")
    guard FileManager.default.createFile(atPath: partial.path, contents: nil) else {
      throw .cannotWrite(file: partial.path, reason: "cannot create it")
    }
    let fixed = Self.header(entries: [], metadata: metadata).count
    guard fixed <= headerCapacity else {
      try? FileManager.default.removeItem(at: partial)
      throw .cannotWrite(
        file: url.path, reason: "metadata takes \(fixed) bytes, \(headerCapacity) are reserved for the header")
    }
    do {
      let handle = try FileHandle(forWritingTo: partial)
      try handle.seek(toOffset: UInt64(8 + headerCapacity))
      state = Mutex(State(handle: handle, metadata: metadata, headerByteCount: fixed))
    } catch {
      try? FileManager.default.removeItem(at: partial)
      throw .cannotWrite(file: partial.path, reason: error.localizedDescription)
    }
  }

  deinit {
    state.withLock {
      guard let handle = $0.handle else { return }
      try? handle.close()
      try? FileManager.default.removeItem(at: partial)
    }
  }

  /// Writes all of `tensors` to `url` at once, with a header no larger than needed, widest elements first so that all
  /// are aligned.
  public static func write(_ tensors: [(name: String, tensor: Tensor)], to url: URL, metadata: [String: String] = [:])
    throws(WeightsError)
  {
    let ordered = tensors.sorted { ($1.tensor.dtype.byteWidth, $0.name) < ($0.tensor.dtype.byteWidth, $1.name) }
    var begin = 0
    var entries: [String] = []
    for (name, tensor) in ordered {
      entries.append(entry(name, tensor.shape, tensor.dtype, begin: begin))
      begin += tensor.byteCount
    }
    let needed = header(entries: entries, metadata: metadata).count
    let writer = try SafetensorsWriter(url, metadata: metadata, headerCapacity: (needed + 7) / 8 * 8)
    for (name, tensor) in ordered { try writer.append(name, tensor) }
    try writer.finish()
  }

  /// Writes one tensor. Names must be unique and not `__metadata__`.
  public func append(_ name: String, _ tensor: Tensor) throws(WeightsError) {
    try append(name, tensor.shape, tensor.dtype, rowsAtATime: max(tensor.shape.dimensions.first ?? 1, 1)) { _ in tensor
    }
  }

  /// Writes one tensor of which only some rows are in memory at a time: `rows` makes those of a range of the outermost
  /// dimension.
  public func append(
    _ name: String, _ shape: Shape, _ dtype: DType, rowsAtATime: Int,
    _ rows: (Range<Int>) throws(WeightsError) -> Tensor
  ) throws(WeightsError) {
    let byteCount = shape.elementCount * dtype.byteWidth, count = shape.dimensions.first ?? 1
    try state.withLock { state throws(WeightsError) in
      guard let handle = state.handle else {
        throw .cannotWrite(file: url.path, reason: "\"\(name)\" written after the end")
      }
      guard name != "__metadata__", state.names.insert(name).inserted else {
        throw .cannotWrite(file: url.path, reason: "a second tensor or a reserved word as name: \"\(name)\"")
      }
      let entry = Self.entry(name, shape, dtype, begin: state.dataByteCount)
      let comma = state.entries.isEmpty && state.metadata.isEmpty ? 0 : 1
      try reserve(entry.utf8.count + comma, for: name, &state)
      var written = 0
      for start in stride(from: 0, to: count, by: max(rowsAtATime, 1)) {
        let tensor = try rows(start..<min(start + rowsAtATime, count))
        precondition(
          tensor.dtype == dtype && written + tensor.byteCount <= byteCount,
          "rows of another tensor than \(dtype) \(shape)")
        try write(tensor, to: handle, &state.dataChecksum)
        written += tensor.byteCount
      }
      precondition(written == byteCount, "\(written) bytes of a tensor of \(byteCount)")
      state.entries.append(entry)
      state.dataByteCount += byteCount
    }
  }

  /// Adds or replaces a pair of the header's metadata.
  public func setMetadata(_ key: String, _ value: String) throws(WeightsError) {
    try state.withLock { state throws(WeightsError) in
      try reserve(
        Self.quoted(key).utf8.count + Self.quoted(value).utf8.count + 2 + (state.metadata.isEmpty ? 20 : 0), for: key,
        &state)
      state.metadata[key] = value
    }
  }

  private func reserve(_ byteCount: Int, for name: String, _ state: inout State) throws(WeightsError) {
    guard state.headerByteCount + byteCount <= headerCapacity else {
      throw .cannotWrite(
        file: url.path, reason: "the \(headerCapacity) bytes reserved for the header are full at \"\(name)\"")
    }
    state.headerByteCount += byteCount
  }

  private func write(_ tensor: Tensor, to handle: FileHandle, _ checksum: inout CRC32) throws(WeightsError) {
    do {
      try tensor.withBytes { bytes in
        checksum.update(bytes)
        // Foundation writes what a Data holds: here the tensor's own bytes, which it only reads.
        try bytes.withUnsafeBytes {
          guard let base = $0.baseAddress, !$0.isEmpty else { return }
          try handle.write(
            contentsOf: Data(bytesNoCopy: UnsafeMutableRawPointer(mutating: base), count: $0.count, deallocator: .none))
        }
      }
    } catch { throw .cannotWrite(file: partial.path, reason: error.localizedDescription) }
  }

  /// Writes the header, syncs and renames the file to its name. Nothing can be written afterwards.
  @discardableResult public func finish() throws(WeightsError) -> Summary {
    try state.withLock { state throws(WeightsError) in
      guard let handle = state.handle else { throw .cannotWrite(file: url.path, reason: "finished twice") }
      var header = Self.header(entries: state.entries, metadata: state.metadata)
      header += [UInt8](repeating: 0x20, count: headerCapacity - header.count)
      let length = (0..<8).map { UInt8(truncatingIfNeeded: headerCapacity >> (8 * $0)) }
      do {
        try handle.seek(toOffset: 0)
        try handle.write(contentsOf: length + header)
        try handle.synchronize()
        try handle.close()
        state.handle = nil
        guard rename(partial.path, url.path) == 0 else {
          throw WeightsError.cannotWrite(file: url.path, reason: systemError())
        }
      } catch {
        try? FileManager.default.removeItem(at: partial)
        throw error as? WeightsError ?? .cannotWrite(file: url.path, reason: error.localizedDescription)
      }
      return Summary(
        fileByteCount: 8 + headerCapacity + state.dataByteCount, headerChecksum: CRC32.of(header),
        dataChecksum: state.dataChecksum.value)
    }
  }

  // MARK: - The header's text

  private static func header(entries: [String], metadata: [String: String]) -> [UInt8] {
    let pairs = metadata.sorted { $0.key < $1.key }.map { quoted($0.key) + ":" + quoted($0.value) }
    let members = (pairs.isEmpty ? [] : ["\"__metadata__\":{" + pairs.joined(separator: ",") + "}"]) + entries
    return Array("{\(members.joined(separator: ","))}".utf8)
  }

  private static func entry(_ name: String, _ shape: Shape, _ dtype: DType, begin: Int) -> String {
    let extents = shape.dimensions.map(String.init).joined(separator: ","),
      end = begin + shape.elementCount * dtype.byteWidth
    return quoted(name) + ":{\"dtype\":\"\(dtype.rawValue)\",\"shape\":[\(extents)],\"data_offsets\":[\(begin),\(end)]}"
  }

  private static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\u{0}"..<"\u{20}":
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}
