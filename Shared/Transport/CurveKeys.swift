import CZeroMQ
import Foundation

/// A CURVE public key: 32 bytes, written as 40 characters of Z85.
public struct CurvePublicKey: Sendable, Hashable, CustomStringConvertible {
  /// The Z85 text.
  public let z85: String

  /// The key that `z85` writes.
  ///
  /// - Throws: `TransportError.key` when it is not 40 characters of Z85.
  public init(z85: String) throws(TransportError) {
    guard Z85.isKey(z85) else {
      throw .key(path: "public key", reason: "\"\(z85.prefix(60))\" is not 40 characters of Z85")
    }
    self.z85 = z85
  }

  /// The key in the file at `path`: a line `public KEY`.
  public init(contentsOf path: String) throws(TransportError) {
    let fields = try KeyFile.read(path)
    guard let key = fields["public"] else { throw .key(path: path, reason: "lacks a line \"public KEY\"") }
    guard Z85.isKey(key) else { throw .key(path: path, reason: "the public key is not 40 characters of Z85") }
    self.z85 = key
  }

  /// Writes the key to a file that all users may read.
  public func write(to path: String) throws(TransportError) {
    try KeyFile.write("# CURVE public key of the Qwen-Image cluster\npublic \(z85)\n", to: path, mode: 0o644)
  }

  /// The Z85 text.
  public var description: String { z85 }
}

/// A CURVE key pair. Its description never shows the secret key.
public struct CurveKeyPair: Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  /// What others know it by.
  public let publicKey: CurvePublicKey
  let secretZ85: String

  /// A new key pair from the system's random numbers.
  public static func generate() throws(TransportError) -> CurveKeyPair {
    var publicText = [CChar](repeating: 0, count: 41)
    var secretText = [CChar](repeating: 0, count: 41)
    guard zmq_curve_keypair(&publicText, &secretText) == 0 else { throw .lastError("zmq_curve_keypair") }
    return CurveKeyPair(publicKey: try CurvePublicKey(z85: Z85.text(publicText)), secretZ85: Z85.text(secretText))
  }

  private init(publicKey: CurvePublicKey, secretZ85: String) {
    self.publicKey = publicKey
    self.secretZ85 = secretZ85
  }

  /// The key pair in the file at `path`: a line `secret KEY`; the public key is computed from it.
  ///
  /// - Throws: `TransportError.key` also when others than the owner may read the file.
  public init(contentsOf path: String) throws(TransportError) {
    try KeyFile.requirePrivate(path)
    let fields = try KeyFile.read(path)
    guard let secret = fields["secret"] else { throw .key(path: path, reason: "lacks a line \"secret KEY\"") }
    guard Z85.isKey(secret) else { throw .key(path: path, reason: "the secret key is not 40 characters of Z85") }
    var publicText = [CChar](repeating: 0, count: 41)
    guard zmq_curve_public(&publicText, secret) == 0 else { throw .lastError("zmq_curve_public") }
    let publicKey = try CurvePublicKey(z85: Z85.text(publicText))
    guard fields["public"] == nil || fields["public"] == publicKey.z85 else {
      throw .key(path: path, reason: "the public key does not belong to the secret key")
    }
    self.init(publicKey: publicKey, secretZ85: secret)
  }

  /// Writes both keys to a new file that only the owner may read.
  public func write(to path: String) throws(TransportError) {
    let text =
      "# CURVE key pair of the Qwen-Image cluster: keep it secret\npublic \(publicKey.z85)\nsecret \(secretZ85)\n"
    try KeyFile.write(text, to: path, mode: 0o600)
  }

  /// The public key only.
  public var description: String { "CurveKeyPair(public \(publicKey.z85))" }
  /// The public key only.
  public var debugDescription: String { description }
  /// The public key only.
  public var customMirror: Mirror { Mirror(self, children: ["publicKey": publicKey]) }
}

private enum Z85 {
  static let alphabet = Set(
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#".utf8)

  static func isKey(_ text: String) -> Bool {
    guard text.utf8.count == 40, text.utf8.allSatisfy(alphabet.contains) else { return false }
    var bytes = [UInt8](repeating: 0, count: 32)
    return zmq_z85_decode(&bytes, text) != nil
  }

  static func text(_ characters: [CChar]) -> String {
    String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

/// Lines of a word and a value; `#` starts a comment line.
enum KeyFile {
  /// Larger files are not key files.
  static let maxBytes = 4096

  static func read(_ path: String) throws(TransportError) -> [String: String] {
    let data: Data
    do {
      let handle = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
      defer { try? handle.close() }
      data = try handle.read(upToCount: maxBytes + 1) ?? Data()
    } catch {
      throw .key(path: path, reason: "cannot be read")
    }
    guard data.count <= maxBytes else { throw .key(path: path, reason: "is larger than \(maxBytes) bytes") }
    var fields: [String: String] = [:]
    for line in String(decoding: data, as: UTF8.self).split(whereSeparator: \.isNewline) where !line.hasPrefix("#") {
      let words = line.split(separator: " ", omittingEmptySubsequences: true)
      guard words.count == 2 else { throw .key(path: path, reason: "has a line that is not a word and a value") }
      fields[String(words[0])] = String(words[1])
    }
    return fields
  }

  static func requirePrivate(_ path: String) throws(TransportError) {
    var status = stat()
    guard stat(path, &status) == 0 else { throw .key(path: path, reason: String(cString: strerror(errno))) }
    guard status.st_mode & 0o077 == 0 else {
      throw .key(
        path: path,
        reason: "others than its owner may use it (mode \(String(status.st_mode & 0o777, radix: 8)), must be 600)")
    }
  }

  /// Creates the file with `mode` from the start, so that a secret is never readable by others.
  static func write(_ text: String, to path: String, mode: mode_t) throws(TransportError) {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
    guard descriptor >= 0 else {
      throw .key(path: path, reason: "cannot be created: \(String(cString: strerror(errno)))")
    }
    defer { close(descriptor) }
    let bytes = Array(text.utf8)
    guard fchmod(descriptor, mode) == 0, Foundation.write(descriptor, bytes, bytes.count) == bytes.count,
      fsync(descriptor) == 0
    else {
      // A part of a key would be taken for the key that is there.
      defer { unlink(path) }
      throw .key(path: path, reason: "cannot be written: \(String(cString: strerror(errno)))")
    }
  }
}
