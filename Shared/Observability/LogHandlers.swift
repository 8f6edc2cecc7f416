import Foundation
import Logging
import Synchronization

/// How log records are written.
public enum LogFormat: String, Sendable, CaseIterable {
  /// One JSON object per line: for machines.
  case json
  /// Time, level, message and metadata in one line: for people.
  case plain
}

/// Where log lines go; each call writes one whole line.
public struct LogSink: Sendable {
  let write: @Sendable (String) -> Void

  /// Calls `write` with every line, which ends in a newline.
  public init(_ write: @escaping @Sendable (String) -> Void) { self.write = write }

  /// The standard error stream.
  public static let standardError: LogSink = {
    let lock = Mutex(())
    return LogSink { line in
      lock.withLock { _ in
        var line = line
        line.withUTF8 { bytes in
          var rest = UnsafeRawBufferPointer(bytes)
          while !rest.isEmpty {
            let written = Foundation.write(STDERR_FILENO, rest.baseAddress, rest.count)
            if written < 0 && errno == EINTR { continue }
            // The reader has gone: there is nowhere left to report that.
            guard written > 0 else { return }
            rest = UnsafeRawBufferPointer(rebasing: rest[written...])
          }
        }
      }
    }
  }()
}

/// Makes all loggers of the process write in `format` from `level` on. To be called once, first of all.
public func bootstrapLogging(_ format: LogFormat, level: Logger.Level, sink: LogSink = .standardError) {
  LoggingSystem.bootstrap { label in
    switch format {
    case .json: JSONLogHandler(label: label, level: level, sink: sink)
    case .plain: PlainLogHandler(label: label, level: level, sink: sink)
    }
  }
}

/// Writes records as JSON objects, one per line: `time`, `level`, `logger`, `message`, then the metadata by key.
///
/// Lines are bounded, values of secret-looking keys are left out, and whatever the metadata holds, a record stays one
/// line.
public struct JSONLogHandler: LogHandler {
  /// Keys that the record itself uses; metadata with such a key gets a `_` behind it.
  private static let ownKeys: Set<String> = ["time", "level", "logger", "message", "truncated"]

  /// See `LogHandler`.
  public var metadata: Logger.Metadata = [:]
  /// See `LogHandler`.
  public var metadataProvider: Logger.MetadataProvider?
  /// See `LogHandler`.
  public var logLevel: Logger.Level
  private let label: String
  private let sink: LogSink

  /// A handler for the logger `label`.
  public init(label: String, level: Logger.Level = .info, sink: LogSink = .standardError) {
    self.label = label
    self.logLevel = level
    self.sink = sink
  }

  /// See `LogHandler`.
  public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  /// See `LogHandler`.
  public func log(event: LogEvent) {
    let record = LogRecord(event, label: label, handler: metadata, provider: metadataProvider)
    var line = "{\"time\":\"\(LogRecord.timestamp(LogRecord.now()))\",\"level\":\"\(event.level.rawValue)\",\"logger\":"
    Self.append(label, to: &line)
    line += ",\"message\":"
    Self.append(record.message, to: &line)
    for (key, value) in record.metadata {
      line += ","
      Self.append(Self.ownKeys.contains(key) ? key + "_" : key, to: &line)
      line += ":"
      Self.append(value, to: &line)
    }
    if record.isTruncated { line += ",\"truncated\":true" }
    sink.write(line + "}\n")
  }

  private static func append(_ value: Logger.Metadata.Value, to line: inout String) {
    switch value {
    case .string(let text): append(text, to: &line)
    case .stringConvertible(let convertible): append(convertible.description, to: &line)
    case .array(let values):
      line += "["
      for (index, value) in values.enumerated() {
        if index > 0 { line += "," }
        append(value, to: &line)
      }
      line += "]"
    case .dictionary(let values):
      line += "{"
      for (index, (key, value)) in values.sorted(by: { $0.key < $1.key }).enumerated() {
        if index > 0 { line += "," }
        append(key, to: &line)
        line += ":"
        append(value, to: &line)
      }
      line += "}"
    }
  }

  private static func append(_ text: String, to line: inout String) {
    line += "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": line += "\\\""
      case "\\": line += "\\\\"
      case "\n": line += "\\n"
      case "\r": line += "\\r"
      case "\t": line += "\\t"
      case "\u{0}"..."\u{1F}", "\u{7F}"..."\u{9F}", "\u{2028}", "\u{2029}":
        let digits = String(scalar.value, radix: 16)
        line += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: line.unicodeScalars.append(scalar)
      }
    }
    line += "\""
  }
}

/// Writes records for people: `12:34:56.789 warning router: refused a connection reason=…`.
public struct PlainLogHandler: LogHandler {
  /// See `LogHandler`.
  public var metadata: Logger.Metadata = [:]
  /// See `LogHandler`.
  public var metadataProvider: Logger.MetadataProvider?
  /// See `LogHandler`.
  public var logLevel: Logger.Level
  private let label: String
  private let sink: LogSink

  /// A handler for the logger `label`.
  public init(label: String, level: Logger.Level = .info, sink: LogSink = .standardError) {
    self.label = label
    self.logLevel = level
    self.sink = sink
  }

  /// See `LogHandler`.
  public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  /// See `LogHandler`.
  public func log(event: LogEvent) {
    let record = LogRecord(event, label: label, handler: metadata, provider: metadataProvider)
    let time = LogRecord.timestamp(LogRecord.now()).dropFirst(11).dropLast()
    var line = "\(time) \(event.level.rawValue) \(label): \(record.message)"
    for (key, value) in record.metadata {
      let text = "\(value)"
      line += " \(key)=" + (text.contains(" ") ? "\"\(text)\"" : text)
    }
    if record.isTruncated { line += " …" }
    sink.write(Self.printable(line) + "\n")
  }

  /// Control characters would let a peer's text move the cursor or fake a line.
  private static func printable(_ line: String) -> String {
    guard line.unicodeScalars.contains(where: isControl) else { return line }
    var safe = String.UnicodeScalarView()
    for scalar in line.unicodeScalars { safe.append(isControl(scalar) ? "\u{FFFD}" : scalar) }
    return String(safe)
  }

  private static func isControl(_ scalar: Unicode.Scalar) -> Bool { scalar.properties.generalCategory == .control }
}
