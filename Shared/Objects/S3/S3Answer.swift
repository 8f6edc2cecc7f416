import Foundation

/// What a server of S3 has answered.
struct S3Answer: Sendable {
  var status: Int
  var headers: [(name: String, value: String)]
  var body: [UInt8]

  /// The first field of that name, given in lower case.
  func header(_ name: String) -> String? { headers.first { $0.name.lowercased() == name }?.value }

  /// The error's name, such as `NoSuchKey`; empty: there is none.
  var code: String { S3XML.first("Code", in: text) ?? "" }
  /// The error's text for people, cut.
  var message: String { String((S3XML.first("Message", in: text) ?? "").prefix(200)) }

  private var text: String { String(decoding: body.prefix(64 << 10), as: UTF8.self) }

  /// The server's clock; nil: it does not say.
  var date: Date? { header("date").flatMap { S3XML.date($0) } }

  /// How long the server asks to wait.
  var retryAfter: Duration? {
    header("retry-after").flatMap { Int($0) }.map { .seconds(min(max($0, 0), 3600)) }
  }
}

/// The little that is read of the XML which servers of S3 answer with. Elements of the names that are looked for do not
/// nest in themselves there.
package enum S3XML {
  /// The contents of the elements of a name, in order.
  package static func all(_ name: String, in text: some StringProtocol) -> [Substring] {
    var found: [Substring] = [], rest = Substring(text)
    while let start = rest.range(of: "<\(name)>"),
      let end = rest.range(of: "</\(name)>", range: start.upperBound..<rest.endIndex)
    {
      found.append(rest[start.upperBound..<end.lowerBound])
      rest = rest[end.upperBound...]
    }
    return found
  }

  /// The text of the first element of a name; nil: there is none.
  package static func first(_ name: String, in text: some StringProtocol) -> String? {
    let text = Substring(text)
    guard let start = text.range(of: "<\(name)>"),
      let end = text.range(of: "</\(name)>", range: start.upperBound..<text.endIndex)
    else { return nil }
    return decoded(text[start.upperBound..<end.lowerBound])
  }

  private static func decoded(_ text: Substring) -> String {
    guard text.contains("&") else { return String(text) }
    return [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")].reduce(String(text)) {
      $0.replacingOccurrences(of: $1.0, with: $1.1)
    }
  }

  private static let months = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
  ]

  /// - Parameter text: such as `2026-01-31T23:59:58.000Z` (ISO 8601) or `Sat, 31 Jan 2026 23:59:58 GMT` (RFC 9110).
  /// - Returns: nil when it is neither.
  package static func date(_ text: String) -> Date? {
    var numbers = text.split(whereSeparator: { !$0.isASCII || !$0.isNumber }).compactMap { Int32($0) }
    if let month = months.firstIndex(where: { text.contains(" \($0) ") }), numbers.count == 5 {
      numbers = [numbers[1], Int32(month) + 1, numbers[0]] + numbers[2...]
    }
    guard numbers.count >= 6, (1970...9999).contains(numbers[0]), (1...12).contains(numbers[1]),
      (1...31).contains(numbers[2]), (0...23).contains(numbers[3]), (0...59).contains(numbers[4]),
      (0...60).contains(numbers[5])
    else { return nil }
    var parts = tm()
    (parts.tm_year, parts.tm_mon, parts.tm_mday) = (numbers[0] - 1900, numbers[1] - 1, numbers[2])
    (parts.tm_hour, parts.tm_min, parts.tm_sec) = (numbers[3], numbers[4], numbers[5])
    return Date(timeIntervalSince1970: Double(timegm(&parts)))
  }

  /// A page of a list.
  ///
  /// - Parameters:
  ///   - prefix: what the store's keys begin with; others are left out.
  ///   - now: by the server's clock.
  /// - Returns: nil when it is no list.
  package static func page(_ body: [UInt8], prefix: String, now: Date) -> ObjectPage? {
    let text = String(decoding: body, as: UTF8.self)
    guard text.contains("<ListBucketResult") else { return nil }
    var page = ObjectPage(entries: [])
    var last: String?
    for item in all("Contents", in: text) {
      guard let path = first("Key", in: item), path.hasPrefix(prefix) else { continue }
      last = String(path.dropFirst(prefix.count))
      guard let key = ObjectKey(path: path.dropFirst(prefix.count)),
        let byteCount = first("Size", in: item).flatMap({ Int($0) }), byteCount >= 0,
        let written = first("LastModified", in: item).flatMap({ date($0) })
      else { continue }
      page.entries.append(
        .init(key: key, byteCount: byteCount, ageSeconds: Int64(now.timeIntervalSince(written))))
    }
    if first("IsTruncated", in: text) == "true" { page.next = last }
    return page
  }
}
