import Foundation
import Hashing

/// What a request to S3 is signed with.
public struct S3Credentials: Hashable, Sendable, CustomStringConvertible {
  /// Names the key; not a secret.
  public var accessKeyID: String
  /// The secret.
  public var secretAccessKey: String
  /// Of temporary credentials; a secret as well.
  public var sessionToken: String?

  /// See the properties.
  public init(accessKeyID: String, secretAccessKey: String, sessionToken: String? = nil) {
    self.accessKeyID = accessKeyID
    self.secretAccessKey = secretAccessKey
    self.sessionToken = sessionToken
  }

  /// Without what is secret.
  public var description: String { "the access key \(accessKeyID)" }
}

/// AWS Signature Version 4 of requests, whose header fields carry it.
///
/// - SeeAlso: "Signature Version 4 signing process" and "Authenticating Requests: Using the Authorization Header" in
///   Amazon's documents.
package struct S3Signature {
  private let credentials: S3Credentials
  private let region: String

  package init(credentials: S3Credentials, region: String) {
    self.credentials = credentials
    self.region = region
  }

  /// The header fields of a request, with those that were given, in the order of their names.
  ///
  /// - Parameters:
  ///   - method: in capitals.
  ///   - host: with the port, if it is not the scheme's own.
  ///   - path: beginning with a slash, not encoded.
  ///   - query: names and values, not encoded.
  ///   - headers: further fields, names in lower case; all are signed.
  ///   - payloadSHA256: of the body, hexadecimal.
  ///   - date: now.
  package func headers(
    method: String, host: String, path: String, query: [(String, String)] = [], headers: [(String, String)] = [],
    payloadSHA256: String, date: Date
  ) -> [(name: String, value: String)] {
    let time = Self.timestamp(date)
    var fields = headers + [("host", host), ("x-amz-content-sha256", payloadSHA256), ("x-amz-date", time)]
    if let token = credentials.sessionToken { fields.append(("x-amz-security-token", token)) }
    fields.sort { $0.0 < $1.0 }
    let names = fields.map(\.0).joined(separator: ";")
    let request = [
      method, Self.encoded(path, keepsSlashes: true), Self.encoded(query),
      fields.map { "\($0.0):\(Self.trimmed($0.1))\n" }.joined(), names, payloadSHA256,
    ].joined(separator: "\n")
    let day = String(time.prefix(8))
    let scope = "\(day)/\(region)/s3/aws4_request"
    let text = ["AWS4-HMAC-SHA256", time, scope, hexadecimal(SHA256.hash(request.utf8))].joined(separator: "\n")
    let key = [day, region, "s3", "aws4_request"].reduce(Array("AWS4\(credentials.secretAccessKey)".utf8)) {
      HMACSHA256.code(for: Array($1.utf8), key: $0)
    }
    let signature = hexadecimal(HMACSHA256.code(for: Array(text.utf8), key: key))
    let authorization =
      "AWS4-HMAC-SHA256 Credential=\(credentials.accessKeyID)/\(scope), SignedHeaders=\(names), Signature=\(signature)"
    return fields.map { (name: $0.0, value: $0.1) } + [(name: "authorization", value: authorization)]
  }

  /// As `20260131T235959Z`.
  package static func timestamp(_ date: Date) -> String {
    var seconds = time_t(date.timeIntervalSince1970.rounded(.down)), parts = tm()
    gmtime_r(&seconds, &parts)
    var text = [CChar](repeating: 0, count: 32)
    strftime(&text, text.count, "%Y%m%dT%H%M%SZ", &parts)
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Everything but RFC 3986's unreserved characters as %XX.
  package static func encoded(_ text: String, keepsSlashes: Bool = false) -> String {
    var result = ""
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
        UInt8(ascii: "~"):
        result.unicodeScalars.append(Unicode.Scalar(byte))
      case UInt8(ascii: "/") where keepsSlashes: result.append("/")
      default: result += (byte < 16 ? "%0" : "%") + String(byte, radix: 16, uppercase: true)
      }
    }
    return result
  }

  /// A query in the order in which it is signed.
  package static func encoded(_ query: [(String, String)]) -> String {
    query.map { (encoded($0.0), encoded($0.1)) }.sorted { $0 < $1 }.map { "\($0.0)=\($0.1)" }.joined(separator: "&")
  }

  /// A field's value without spaces around it, and with one space for several.
  private static func trimmed(_ value: String) -> String {
    value.split(separator: " ", omittingEmptySubsequences: true).joined(separator: " ")
  }
}
