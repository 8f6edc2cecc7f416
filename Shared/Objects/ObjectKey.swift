import Foundation
import Hashing

/// Names an object by its content and a number that no other object has: what is read can be checked against the name
/// alone, and no name is used for two writings, so that deleting one never takes what another one has written.
public struct ObjectKey: Hashable, Sendable {
  /// SHA-256 of the content in hexadecimal digits, a hyphen and 16 hexadecimal digits of chance.
  public let name: String

  /// A new key for this content.
  public init(of bytes: Data) {
    let nonce = UInt64.random(in: 0 ... .max)
    name =
      "\(Self.digest(of: bytes))-\(String(repeating: "0", count: nonce.leadingZeroBitCount / 4))"
      + (nonce == 0 ? "" : String(nonce, radix: 16))
  }

  /// - Returns: nil when `name` is no key's.
  public init?(_ name: some StringProtocol) {
    let bytes = Array(name.utf8)
    let isSound =
      bytes.count == Self.nameBytes
      && bytes.indices.allSatisfy { index in
        switch bytes[index] {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"): index != Self.digestDigits
        case UInt8(ascii: "-"): index == Self.digestDigits
        default: false
        }
      }
    guard isSound else { return nil }
    self.name = String(name)
  }

  /// - Returns: nil when `path` is not a key's ``path``.
  public init?(path: some StringProtocol) {
    guard let key = ObjectKey(path.dropFirst(3)), key.path == path else { return nil }
    self = key
  }

  /// Where it is below its store's beginning: one of 256 folders, and the name.
  public var path: String { "\(name.prefix(2))/\(name)" }

  /// SHA-256 of the content.
  public var sha256: [UInt8] {
    let digits = Array(name.utf8.prefix(Self.digestDigits)).map { $0 < 0x40 ? $0 - 0x30 : $0 - 0x57 }
    return (0..<SHA256.byteCount).map { digits[2 * $0] << 4 | digits[2 * $0 + 1] }
  }

  /// Whether these bytes are the object's.
  public func isKey(of bytes: Data) -> Bool { name.hasPrefix(Self.digest(of: bytes)) }

  private static let digestDigits = 2 * SHA256.byteCount
  private static let nameBytes = digestDigits + 1 + 16

  private static func digest(of bytes: Data) -> String {
    hexadecimal(SHA256.hash(bytes))
  }
}
