import Foundation
import Logging

/// One log record as both handlers see it: merged, redacted and bounded.
struct LogRecord {
  /// Longer values are cut.
  static let maxValueBytes = 2048
  /// Metadata beyond this is left out.
  static let maxMetadataBytes = 8192
  /// Metadata with these keys is never written.
  static let secretKeys: Set<String> = [
    "authorization", "cookie", "set-cookie", "password", "secret", "secret_key", "api_key", "token", "access_token",
  ]

  let event: LogEvent
  let label: String
  /// Sorted by key.
  let metadata: [(key: String, value: Logger.Metadata.Value)]
  let isTruncated: Bool

  init(_ event: LogEvent, label: String, handler: Logger.Metadata, provider: Logger.MetadataProvider?) {
    self.event = event
    self.label = label
    var merged = handler
    merged.merge(provider?.get() ?? [:]) { $1 }
    merged.merge(event.metadata ?? [:]) { $1 }
    if let error = event.error { merged["error"] = "\(error)" }
    var bytesLeft = Self.maxMetadataBytes
    var kept: [(String, Logger.Metadata.Value)] = []
    for (key, value) in merged.sorted(by: { $0.key < $1.key }) {
      let bounded = Self.secretKeys.contains(key.lowercased()) ? "[redacted]" : Self.bounded(value, depth: 0)
      bytesLeft -= key.utf8.count + Self.size(bounded)
      guard bytesLeft >= 0 else { break }
      kept.append((key, bounded))
    }
    metadata = kept
    isTruncated = kept.count < merged.count
  }

  /// The message, cut when it is too long.
  var message: String { Self.bounded(event.message.description) }

  /// UTC with milliseconds: `2026-01-31T23:59:59.123Z`.
  static func timestamp(_ time: timespec) -> String {
    var seconds = time.tv_sec
    var parts = tm()
    gmtime_r(&seconds, &parts)
    func padded(_ value: Int32, _ width: Int) -> String {
      let digits = String(value)
      return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
    let date = "\(padded(parts.tm_year + 1900, 4))-\(padded(parts.tm_mon + 1, 2))-\(padded(parts.tm_mday, 2))"
    let clock = "\(padded(parts.tm_hour, 2)):\(padded(parts.tm_min, 2)):\(padded(parts.tm_sec, 2))"
    return "\(date)T\(clock).\(padded(Int32(time.tv_nsec / 1_000_000), 3))Z"
  }

  static func now() -> timespec {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return time
  }

  private static func bounded(_ text: String) -> String {
    guard text.utf8.count > maxValueBytes else { return text }
    var end = text.utf8.index(text.utf8.startIndex, offsetBy: maxValueBytes)
    while String.Index(end, within: text.unicodeScalars) == nil { end = text.utf8.index(before: end) }
    return text[..<end] + "…"
  }

  private static func bounded(_ value: Logger.Metadata.Value, depth: Int) -> Logger.Metadata.Value {
    switch value {
    case .string(let text): return .string(bounded(text))
    case .stringConvertible(let convertible): return .string(bounded(convertible.description))
    case .array(let values) where depth < 4: return .array(values.prefix(64).map { bounded($0, depth: depth + 1) })
    case .dictionary(let values) where depth < 4:
      let pairs = values.sorted { $0.key < $1.key }.prefix(64).map { key, value in
        (key, secretKeys.contains(key.lowercased()) ? "[redacted]" : bounded(value, depth: depth + 1))
      }
      return .dictionary(Dictionary(pairs) { $1 })
    case .array, .dictionary: return "…"
    }
  }

  private static func size(_ value: Logger.Metadata.Value) -> Int {
    switch value {
    case .string(let text): text.utf8.count
    case .stringConvertible(let convertible): convertible.description.utf8.count
    case .array(let values): values.reduce(0) { $0 + size($1) }
    case .dictionary(let values): values.reduce(0) { $0 + $1.key.utf8.count + size($1.value) }
    }
  }
}
