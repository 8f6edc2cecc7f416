import Tracing

/// The identity of a request across processes: the `traceparent` header of W3C Trace Context, version 00.
public struct TraceContext: Sendable, Hashable {
  /// 16 bytes, not all zero: the whole request.
  public let traceID: [UInt8]
  /// 8 bytes, not all zero: the caller's part of it.
  public let parentID: [UInt8]
  /// Bit 0: the caller may have recorded it.
  public let flags: UInt8

  /// A new request.
  public static func random(sampled: Bool = true) -> TraceContext {
    var generator = SystemRandomNumberGenerator()
    return random(sampled: sampled, using: &generator)
  }

  /// A new request with ids from `generator`.
  public static func random(sampled: Bool = true, using generator: inout some RandomNumberGenerator) -> TraceContext {
    TraceContext(traceID: randomID(16, &generator), parentID: randomID(8, &generator), flags: sampled ? 1 : 0)
  }

  package init(traceID: [UInt8], parentID: [UInt8], flags: UInt8) {
    self.traceID = traceID
    self.parentID = parentID
    self.flags = flags
  }

  /// Parses a header. nil when it is not valid: the request then starts a trace of its own, as the standard asks.
  public init?(traceparent: String) {
    let parts = traceparent.utf8.split(separator: UInt8(ascii: "-"), maxSplits: 4, omittingEmptySubsequences: false)
    guard parts.count >= 4, let version = Self.bytes(parts[0], 1), version[0] != 0xFF,
      version[0] != 0 || parts.count == 4,
      let traceID = Self.bytes(parts[1], 16), traceID.contains(where: { $0 != 0 }),
      let parentID = Self.bytes(parts[2], 8), parentID.contains(where: { $0 != 0 }),
      let flags = Self.bytes(parts[3], 1)
    else { return nil }
    self.init(traceID: traceID, parentID: parentID, flags: flags[0])
  }

  /// The header: `00-<trace id>-<parent id>-<flags>`.
  public var traceparent: String { "00-\(Self.hex(traceID))-\(Self.hex(parentID))-\(Self.hex([flags]))" }

  /// The trace id in hexadecimal, for logs.
  public var traceIDText: String { Self.hex(traceID) }

  /// The parent id in hexadecimal.
  package var parentIDText: String { Self.hex(parentID) }

  /// Whether some process may keep what it records of the trace.
  public var isSampled: Bool { flags & 1 == 1 }

  /// The same request, seen by the next process.
  public func child() -> TraceContext {
    var generator = SystemRandomNumberGenerator()
    return TraceContext(traceID: traceID, parentID: Self.randomID(8, &generator), flags: flags)
  }

  private static func randomID(_ count: Int, _ generator: inout some RandomNumberGenerator) -> [UInt8] {
    while true {
      // The system's generator is asked for eight bytes at a time.
      let words = (0..<(count + 7) / 8).map { _ in generator.next() }
      let id = words.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } }.prefix(count)
      if id.contains(where: { $0 != 0 }) { return Array(id) }
    }
  }

  /// Lower-case hexadecimal, as the standard demands.
  private static func bytes(_ text: Substring.UTF8View, _ count: Int) -> [UInt8]? {
    guard text.count == 2 * count else { return nil }
    var bytes: [UInt8] = []
    var high: UInt8?
    for character in text {
      let digit: UInt8
      switch character {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = character - UInt8(ascii: "0")
      case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = character - UInt8(ascii: "a") + 10
      default: return nil
      }
      if let first = high {
        bytes.append(first << 4 | digit)
        high = nil
      } else {
        high = digit
      }
    }
    return bytes
  }

  private static func hex(_ bytes: [UInt8]) -> String {
    let digits = bytes.flatMap { [$0 >> 4, $0 & 15] }
    return String(decoding: digits.map { $0 + UInt8(ascii: $0 < 10 ? "0" : "W") }, as: UTF8.self)
  }
}

extension ServiceContext {
  private enum TraceContextKey: ServiceContextKey {
    typealias Value = TraceContext
    static let nameOverride: String? = "trace"
  }

  /// The trace that work belongs to, with the span that causes it as the parent.
  public var traceContext: TraceContext? {
    get { self[TraceContextKey.self] }
    set { self[TraceContextKey.self] = newValue }
  }

  /// A context of `trace` and nothing else.
  public static func tracing(_ trace: TraceContext?) -> ServiceContext {
    var context = ServiceContext.topLevel
    context.traceContext = trace
    return context
  }

  /// Runs `body` so that what histograms observe in it points to this trace, if that is sampled.
  public func measuring(_ body: () -> Void) {
    guard traceContext?.isSampled == true else { return body() }
    ServiceContext.$current.withValue(self, operation: body)
  }
}
