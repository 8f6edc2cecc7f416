/// Splits a stream of bytes into the lines of MCP's standard streams, each of which is a message. Longer ones than the
/// limit are dropped up to their end, and said to have been there.
public struct LineSplitter: Sendable {
  /// What the stream has brought.
  public enum Line: Hashable, Sendable {
    /// A line without its end.
    case complete([UInt8])
    /// One that has more bytes than the limit.
    case tooLong
  }

  private let maxBytes: Int
  private var line: [UInt8] = []
  private var isTooLong = false

  /// - Parameter maxBytes: most bytes of a line, without its end.
  public init(maxBytes: Int) { self.maxBytes = maxBytes }

  /// Takes the next bytes, and returns the lines that they complete. Empty lines are left out; a carriage return before
  /// the end belongs to it.
  public mutating func append(_ bytes: some Collection<UInt8>) -> [Line] {
    var lines: [Line] = []
    var rest = bytes[...]
    while let end = rest.firstIndex(of: 0x0A) {
      take(rest[..<end])
      rest = rest[rest.index(after: end)...]
      if line.last == 0x0D { line.removeLast() }
      if isTooLong || line.count > maxBytes {
        lines.append(.tooLong)
      } else if !line.isEmpty {
        lines.append(.complete(line))
      }
      line = []
      isTooLong = false
    }
    take(rest)
    return lines
  }

  private mutating func take(_ bytes: some Collection<UInt8>) {
    guard !isTooLong else { return }
    // A carriage return does not count.
    guard bytes.count <= maxBytes - line.count + 1 else {
      isTooLong = true
      line = []
      return
    }
    line += bytes
  }
}
