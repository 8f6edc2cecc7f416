import Foundation
import Hashing

/// A key with which a client shows who it is: `qwk-ID-SECRET`. The identifier finds the entry; only a salted hash of
/// the whole is kept.
public struct AccessKey: Sendable {
  private static let prefix = "qwk-"
  private static let idDigits = 12
  private static let secretDigits = 64

  /// Finds the key's entry; no secret.
  public let id: String
  /// The whole key. Never to be logged.
  public let text: String

  /// A new key with 256 random bits.
  public static func generate() -> AccessKey {
    func digits(_ count: Int) -> String {
      var generator = SystemRandomNumberGenerator()
      return (0..<count).map { _ in String(Int.random(in: 0..<16, using: &generator), radix: 16) }.joined()
    }
    let id = digits(idDigits)
    return AccessKey(id: id, text: "\(prefix)\(id)-\(digits(secretDigits))")
  }

  private init(id: String, text: String) {
    self.id = id
    self.text = text
  }

  /// What a client has sent; nil: that is no key.
  public init?(_ text: String) {
    guard text.utf8.count == Self.prefix.count + Self.idDigits + 1 + Self.secretDigits, text.hasPrefix(Self.prefix)
    else { return nil }
    let parts = text.dropFirst(Self.prefix.count).split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count == 2, parts[0].count == Self.idDigits, parts.allSatisfy({ $0.allSatisfy(\.isLowercaseHexDigit) })
    else { return nil }
    self.init(id: String(parts[0]), text: text)
  }
}

extension Character {
  var isLowercaseHexDigit: Bool { isASCII && (isNumber || ("a"..."f").contains(self)) }
}

/// What the server keeps about a key: one line of its file.
public struct AccessEntry: Hashable, Sendable {
  /// The key's identifier.
  public var id: String
  /// Who uses it; several keys may belong to one tenant.
  public var tenant: String
  /// 16 random bytes.
  var salt: [UInt8]
  /// HMAC-SHA-256 of the key under the salt.
  var hash: [UInt8]
  /// What its tenant may do.
  public var limits: AccessLimits

  /// The entry of a new key.
  public init(_ key: AccessKey, tenant: String, limits: AccessLimits) {
    var generator = SystemRandomNumberGenerator()
    let salt = (0..<16).map { _ in UInt8.random(in: 0...255, using: &generator) }
    self.init(
      id: key.id, tenant: tenant, salt: salt, hash: HMACSHA256.code(for: Array(key.text.utf8), key: salt),
      limits: limits)
  }

  private init(id: String, tenant: String, salt: [UInt8], hash: [UInt8], limits: AccessLimits) {
    self.id = id
    self.tenant = tenant
    self.salt = salt
    self.hash = hash
    self.limits = limits
  }

  /// An entry that no key fits, for comparisons whose result is known beforehand.
  public static let dummy = AccessEntry(
    id: "", tenant: "", salt: Array(repeating: 0, count: 16), hash: Array(repeating: 0, count: 32),
    limits: AccessLimits())

  /// Whether this is the key's entry, in a time that does not depend on where they differ.
  public func admits(_ key: AccessKey) -> Bool {
    HMACSHA256.isValid(hash, for: Array(key.text.utf8), key: salt)
  }

  /// A code for `text` that only those can make who have the entry: 64 hexadecimal digits. It is good for as long as
  /// the entry is in the file, and says nothing of the key.
  public func signature(of text: String) -> String {
    hexadecimal(HMACSHA256.code(for: Self.signed(text), key: hash))
  }

  /// Whether `signature` is that of `text`, in a time that does not depend on where they differ.
  public func isSignature(_ signature: String, of text: String) -> Bool {
    guard let code = Self.bytes(signature[...]) else { return false }
    return HMACSHA256.isValid(code, for: Self.signed(text), key: hash)
  }

  /// Nothing else is ever authenticated under the hash, and what is in future will begin otherwise.
  private static func signed(_ text: String) -> [UInt8] {
    Array("signature 1\n\(text)".utf8)
  }
}

/// What a tenant may do; a limit that is nil is the gateway's default.
public struct AccessLimits: Hashable, Sendable {
  /// Its share of the work while other tenants wait, too.
  public var weight = 1.0
  /// Images that it may have queued or running.
  public var maxJobs: Int?
  /// Width × height of an image.
  public var maxPixels: Int?
  /// Denoising steps of an image.
  public var maxSteps: Int?
  /// Requests of any kind.
  public var requestsPerMinute: Int?
  /// Where the tenant is notified of the end of each of its jobs; nil: nowhere.
  public var webhook: String?
  /// What the tenant's notifications are signed with, also those of webhooks of single jobs that have no secret.
  public var webhookSecret: String?

  /// No limits.
  public init() {}
}
