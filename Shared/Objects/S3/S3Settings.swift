import Foundation
import HTTPClient

/// Where a bucket is, and how it is asked.
public struct S3Settings: Hashable, Sendable {
  /// `https://HOST` or `https://HOST:PORT`; empty: Amazon's of the region.
  public var endpoint = ""
  /// Part of every signature. Servers other than Amazon's usually take any.
  public var region = "us-east-1"
  /// The bucket, which must be there.
  public var bucket = ""
  /// What all keys begin with, without slashes at its ends; empty: nothing.
  public var prefix = ""
  /// Whether the bucket is named in the path, as most servers other than Amazon's want it, or in the host.
  public var isPathStyle = false
  /// Whether an endpoint that is not on this machine may be asked without TLS.
  public var allowsInsecure = false
  /// One operation with all its repetitions; a second is added for every MiB.
  public var timeout = Duration.seconds(10)

  /// The defaults.
  public init() {}

  /// - Throws: `settings`, naming what is wrong.
  public func checked() throws(ObjectError) { _ = try address() }

  /// Where requests go.
  struct Address: Hashable, Sendable {
    /// `https` or `http`.
    var scheme: String
    /// With the port, if one was given.
    var host: String
    /// Before the key, ends with a slash.
    var path: String
    /// Before the key in its bucket: the prefix; ends with a slash, unless it is empty.
    var keyPrefix: String
  }

  /// - Throws: `settings`, naming what is wrong.
  func address() throws(ObjectError) -> Address {
    guard Self.isBucket(bucket) else {
      throw .settings("the bucket is \"\(bucket)\", but must be 3 to 63 small letters, digits, '.' and '-'")
    }
    guard !region.isEmpty, region.utf8.count <= 64, region.utf8.allSatisfy(Self.isNamePart) else {
      throw .settings("the region is \"\(region)\", but must be letters, digits, '.', '-' and '_'")
    }
    let prefix = prefix.trimmingCharacters(in: ["/"])
    guard prefix.utf8.count <= 512, prefix.utf8.allSatisfy({ Self.isNamePart($0) || $0 == UInt8(ascii: "/") }),
      !prefix.split(separator: "/", omittingEmptySubsequences: false).contains(where: { ["", ".", ".."].contains($0) })
        || prefix.isEmpty
    else {
      throw .settings("the prefix is \"\(prefix)\", but must be letters, digits, '.', '-', '_' with '/' between them")
    }
    let text = endpoint.isEmpty ? "https://s3.\(region).amazonaws.com" : endpoint
    guard let parts = URLComponents(string: text), let scheme = parts.scheme?.lowercased(), let host = parts.host,
      !host.isEmpty, ["http", "https"].contains(scheme), ["", "/"].contains(parts.path), parts.query == nil,
      parts.fragment == nil, parts.user == nil, parts.password == nil
    else { throw .settings("the endpoint is \"\(text)\", but must be https://HOST or https://HOST:PORT") }
    guard scheme == "https" || allowsInsecure || Self.isLoopback(host) else {
      throw .settings(
        "the endpoint \(text) is not on this machine and has no TLS; https, or the setting that allows it, is needed")
    }
    let named = (isPathStyle ? "" : "\(bucket).") + host.lowercased() + (parts.port.map { ":\($0)" } ?? "")
    return Address(
      scheme: scheme, host: named, path: isPathStyle ? "/\(bucket)/" : "/",
      keyPrefix: prefix.isEmpty ? "" : "\(prefix)/")
  }

  private static func isBucket(_ name: String) -> Bool {
    (3...63).contains(name.utf8.count) && !name.hasPrefix(".") && !name.contains("..")
      && name.utf8.allSatisfy { isNamePart($0) && !(UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) && $0 != 0x5f }
  }

  private static func isNamePart(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"):
      true
    default: false
    }
  }

  private static let loopback = [IPNetwork("127.0.0.0/8")!, IPNetwork("::1")!]

  private static func isLoopback(_ host: String) -> Bool {
    if host.lowercased() == "localhost" { return true }
    guard let address = IPAddress(host.trimmingCharacters(in: ["[", "]"])) else { return false }
    return loopback.contains { $0.contains(address) }
  }
}
