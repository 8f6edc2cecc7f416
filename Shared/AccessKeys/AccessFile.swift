import Hashing

/// What is wrong with a line of a file of keys.
public struct AccessFileError: Error, Hashable, Sendable, CustomStringConvertible {
  /// From 1; 0: the file as a whole.
  public let line: Int
  /// For people.
  public let reason: String

  /// What is wrong with the file as a whole.
  public init(_ path: String, _ reason: String) { self.init(line: 0, reason: "\(path) \(reason)") }

  init(line: Int, reason: String) {
    self.line = line
    self.reason = reason
  }

  /// The line and what is wrong with it.
  public var description: String { line > 0 ? "line \(line): \(reason)" : reason }
}

/// The file of keys: a line for each, made of NAME=VALUE fields; `#` begins a comment.
///
///     id=0a1b2c3d4e5f tenant=acme salt=… hmac-sha256=… weight=2 max-jobs=50 requests-per-minute=120
public enum AccessFile {
  /// More keys than this are refused.
  public static let maxEntries = 10_000
  /// A larger file is refused.
  public static let maxBytes = 8 << 20

  /// Reads all entries.
  ///
  /// - Throws: for the first line that is wrong; a key that may do more than was meant is worse than none.
  public static func parse(_ text: String) throws(AccessFileError) -> [AccessEntry] {
    guard text.utf8.count <= maxBytes else {
      throw AccessFileError(line: 0, reason: "the file has \(text.utf8.count) bytes, the limit is \(maxBytes)")
    }
    var entries: [AccessEntry] = []
    var ids: Set<String> = []
    var limits: [String: AccessLimits] = [:]
    for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
      let fields = line.prefix { $0 != "#" }.split(whereSeparator: \.isWhitespace)
      guard !fields.isEmpty else { continue }
      let entry = try AccessEntry(fields, line: index + 1)
      guard ids.insert(entry.id).inserted else {
        throw AccessFileError(line: index + 1, reason: "the id \(entry.id) is there twice")
      }
      guard limits[entry.tenant] ?? entry.limits == entry.limits else {
        throw AccessFileError(line: index + 1, reason: "the tenant \(entry.tenant) has other limits in an earlier line")
      }
      limits[entry.tenant] = entry.limits
      entries.append(entry)
      guard entries.count <= maxEntries else {
        throw AccessFileError(line: index + 1, reason: "there are more than \(maxEntries) keys")
      }
    }
    return entries
  }
}

extension AccessEntry {
  /// Letters, digits and a few marks, so that names are safe in logs, metrics and files.
  public static func isTenantName(_ text: some StringProtocol) -> Bool {
    (1...64).contains(text.utf8.count)
      && text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "-_.".contains($0)) }
  }

  /// The entry as a line of the file.
  public var line: String {
    var fields = ["id=\(id)", "tenant=\(tenant)", "salt=\(hexadecimal(salt))", "hmac-sha256=\(hexadecimal(hash))"]
    if limits.weight != 1 { fields.append("weight=\(limits.weight)") }
    let bounds = [
      ("max-jobs", limits.maxJobs), ("max-pixels", limits.maxPixels), ("max-steps", limits.maxSteps),
      ("requests-per-minute", limits.requestsPerMinute),
    ]
    for case (let name, let value?) in bounds { fields.append("\(name)=\(value)") }
    for case (let name, let text?) in [("webhook", limits.webhook), ("webhook-secret", limits.webhookSecret)] {
      fields.append("\(name)=\(text)")
    }
    return fields.joined(separator: " ")
  }

  fileprivate init(_ fields: [Substring], line: Int) throws(AccessFileError) {
    var values: [Substring: Substring] = [:]
    for field in fields {
      guard let mark = field.firstIndex(of: "=") else {
        throw AccessFileError(line: line, reason: "\"\(field.prefix(20))\" is not NAME=VALUE")
      }
      guard values.updateValue(field[field.index(after: mark)...], forKey: field[..<mark]) == nil else {
        throw AccessFileError(line: line, reason: "\(field[..<mark].prefix(40)) is there twice")
      }
    }
    func take(_ name: String) throws(AccessFileError) -> Substring {
      guard let value = values.removeValue(forKey: Substring(name)) else {
        throw AccessFileError(line: line, reason: "\(name) is missing")
      }
      return value
    }
    func bytes(_ name: String, _ count: Int) throws(AccessFileError) -> [UInt8] {
      guard let bytes = Self.bytes(try take(name)), bytes.count == count else {
        throw AccessFileError(line: line, reason: "\(name) must have \(2 * count) hexadecimal digits")
      }
      return bytes
    }
    func number(_ name: String, _ range: ClosedRange<Int>) throws(AccessFileError) -> Int? {
      guard let text = values.removeValue(forKey: Substring(name)) else { return nil }
      guard let value = Int(text), range.contains(value) else {
        throw AccessFileError(
          line: line,
          reason: "\(name) is \(text.prefix(40)), but must be from \(range.lowerBound) to \(range.upperBound)")
      }
      return value
    }
    id = String(try take("id"))
    guard id.count == 12, id.allSatisfy(\.isLowercaseHexDigit) else {
      throw AccessFileError(line: line, reason: "id must have 12 hexadecimal digits")
    }
    tenant = String(try take("tenant"))
    guard Self.isTenantName(tenant) else {
      throw AccessFileError(line: line, reason: "tenant must be 1 to 64 letters, digits, '-', '_' and '.'")
    }
    salt = try bytes("salt", 16)
    hash = try bytes("hmac-sha256", 32)
    limits = AccessLimits()
    if let text = values.removeValue(forKey: "weight") {
      guard let weight = Double(text), (0.001...1000).contains(weight) else {
        throw AccessFileError(line: line, reason: "weight is \(text.prefix(40)), but must be from 0.001 to 1000")
      }
      limits.weight = weight
    }
    limits.maxJobs = try number("max-jobs", 0...100_000)
    limits.maxPixels = try number("max-pixels", 1...(1 << 32))
    limits.maxSteps = try number("max-steps", 1...100_000)
    limits.requestsPerMinute = try number("requests-per-minute", 1...1_000_000)
    if let text = values.removeValue(forKey: "webhook") {
      guard ["https://", "http://"].contains(where: text.lowercased().hasPrefix), text.utf8.count <= 2048 else {
        throw AccessFileError(
          line: line, reason: "webhook is \(text.prefix(40)), but must be an https address of at most 2048 bytes")
      }
      limits.webhook = String(text)
    }
    if let text = values.removeValue(forKey: "webhook-secret") {
      guard text.hasPrefix("whsec_"), text.utf8.count <= 128 else {
        throw AccessFileError(line: line, reason: "webhook-secret must be \"whsec_\" and 24 to 64 bytes in base64")
      }
      limits.webhookSecret = String(text)
    }
    if let unknown = values.keys.sorted().first {
      throw AccessFileError(line: line, reason: "unknown field \(unknown.prefix(40))")
    }
  }

  static func bytes(_ text: Substring) -> [UInt8]? {
    guard text.utf8.count.isMultiple(of: 2), text.allSatisfy(\.isLowercaseHexDigit) else { return nil }
    var bytes: [UInt8] = []
    var rest = text
    while !rest.isEmpty {
      guard let byte = UInt8(rest.prefix(2), radix: 16) else { return nil }
      bytes.append(byte)
      rest = rest.dropFirst(2)
    }
    return bytes
  }
}
