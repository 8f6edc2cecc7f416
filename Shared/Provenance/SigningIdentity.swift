import COpenSSL
import Foundation
import Hashing

/// Why a certificate or a key cannot sign; names the file.
public struct SigningIdentityError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The file at fault.
  public let path: String
  /// What is wrong, for people.
  public let reason: String

  init(_ path: String, _ reason: String) { (self.path, self.reason) = (path, reason) }

  /// The file and what is wrong with it.
  public var description: String { "\(path): \(reason)" }
}

/// A private key and the certificates that say whose it is, for signatures with ES256. Its description never shows the
/// key.
public struct SigningIdentity: Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  /// Largest file of certificates or of a key.
  static let maxFileBytes = 64 << 10
  /// Most certificates of a chain.
  static let maxCertificates = 8

  /// The certificates in DER, the signer's first, each next one its issuer's.
  let certificates: [[UInt8]]
  /// The private key in DER. Decoded for each signature: the decoded form cannot be shared by threads without a
  /// promise that the compiler does not check.
  private let key: [UInt8]
  /// The signer, as the certificate names it.
  public let subject: String
  /// When the first of the certificates expires, in seconds since 1970.
  public let expiresAtUnix: Int

  /// Reads and checks certificates and key.
  ///
  /// - Parameters:
  ///   - certificateFile: PEM, the signer's certificate first, then its issuer's and so on; the root may be missing.
  ///   - keyFile: PEM, not encrypted, and only its owner may use it.
  ///   - nowUnix: in seconds since 1970.
  /// - Throws: for files that cannot be read, a key that is not the certificate's, and certificates that have expired
  ///   or that C2PA's validators refuse.
  public init(certificateFile: String, keyFile: String, nowUnix: Int) throws(SigningIdentityError) {
    Libcrypto.prepare()
    let key = try PrivateKey(file: keyFile)
    let chain = try CertificateChain(file: certificateFile)
    try chain.check(nowUnix: nowUnix)
    guard X509_check_private_key(chain.certificates[0].pointer, key.pointer) == 1 else {
      throw SigningIdentityError(
        keyFile,
        "it is not the private key of the first certificate in \(certificateFile), "
          + "that of \(chain.certificates[0].subject)")
    }
    certificates = chain.certificates.map(\.der)
    self.key = key.der
    subject = chain.certificates[0].subject
    expiresAtUnix = chain.certificates.map(\.expiresAtUnix).min() ?? 0
  }

  /// The signature of `message` with ECDSA on P-256 and SHA-256: r and s, 32 bytes each. Another one each time.
  func signature(of message: [UInt8]) throws(ProvenanceError) -> [UInt8] {
    guard let key = PrivateKey(der: key), let context = EVP_MD_CTX_new() else {
      throw .cannotSign(reason: "libcrypto cannot use the key")
    }
    defer { EVP_MD_CTX_free(context) }
    var encoded = [UInt8](repeating: 0, count: 128), count = encoded.count
    guard EVP_DigestSignInit(context, nil, EVP_sha256(), nil, key.pointer) == 1,
      EVP_DigestSign(context, &encoded, &count, message, message.count) == 1
    else { throw .cannotSign(reason: "libcrypto cannot make a signature") }
    guard let numbers = Self.numbers(ofSignature: Array(encoded[..<count])) else {
      throw .cannotSign(reason: "libcrypto has made something that is no signature on P-256")
    }
    return numbers
  }

  /// The two numbers of a signature in DER.
  private static func numbers(ofSignature der: [UInt8]) -> [UInt8]? {
    let signature = der.withUnsafeBufferPointer { bytes in
      var next = bytes.baseAddress
      return d2i_ECDSA_SIG(nil, &next, bytes.count)
    }
    guard let signature else { return nil }
    defer { ECDSA_SIG_free(signature) }
    var bytes = [UInt8](repeating: 0, count: 64)
    let isWhole = bytes.withUnsafeMutableBufferPointer { bytes in
      BN_bn2binpad(ECDSA_SIG_get0_r(signature), bytes.baseAddress, 32) == 32
        && BN_bn2binpad(ECDSA_SIG_get0_s(signature), bytes.baseAddress! + 32, 32) == 32
    }
    return isWhole ? bytes : nil
  }

  /// The signer's name only.
  public var description: String { "SigningIdentity(\(subject))" }
  /// The signer's name only.
  public var debugDescription: String { description }
  /// The signer's name only.
  public var customMirror: Mirror { Mirror(self, children: ["subject": subject]) }
}

// MARK: - Keys

/// A decoded private key on P-256.
private final class PrivateKey {
  let pointer: OpaquePointer

  /// Reads a PEM file.
  init(file path: String) throws(SigningIdentityError) {
    let bytes = try PEMFile.read(path, isSecret: true)
    // Without this function libcrypto would ask for a password on the terminal.
    let pointer = PEMFile.withSource(bytes) { PEM_read_bio_PrivateKey($0, nil, { _, _, _, _ in -1 }, nil) }
    guard let pointer else {
      throw SigningIdentityError(path, "it holds no private key in PEM, or one that a password protects")
    }
    self.pointer = pointer
    guard EllipticCurve.isP256(pointer) else {
      throw SigningIdentityError(path, "it is no key on the curve P-256 (prime256v1), which ES256 signs with")
    }
  }

  init?(der: [UInt8]) {
    let pointer = der.withUnsafeBufferPointer { bytes in
      var next = bytes.baseAddress
      return d2i_AutoPrivateKey(nil, &next, bytes.count)
    }
    guard let pointer else { return nil }
    self.pointer = pointer
  }

  deinit { EVP_PKEY_free(pointer) }

  var der: [UInt8] {
    let count = Int(i2d_PrivateKey(pointer, nil))
    guard count > 0 else { return [] }
    return [UInt8](unsafeUninitializedCapacity: count) { bytes, initialized in
      var next = bytes.baseAddress
      initialized = Int(i2d_PrivateKey(pointer, &next))
    }
  }
}

enum EllipticCurve {
  /// Whether a key is on P-256.
  static func isP256(_ key: OpaquePointer) -> Bool {
    var name = [CChar](repeating: 0, count: 64)
    return EVP_PKEY_get_id(key) == EVP_PKEY_EC && EVP_PKEY_get_group_name(key, &name, name.count, nil) == 1
      && String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self) == "prime256v1"
  }
}

/// Files in PEM.
enum PEMFile {
  /// The bytes of a file.
  ///
  /// - Parameter isSecret: only the owner may have access to it.
  static func read(_ path: String, isSecret: Bool) throws(SigningIdentityError) -> [UInt8] {
    var status = stat()
    guard stat(path, &status) == 0 else { throw SigningIdentityError(path, String(cString: strerror(errno))) }
    guard status.st_mode & S_IFMT == S_IFREG else { throw SigningIdentityError(path, "it is no regular file") }
    guard !isSecret || status.st_mode & 0o077 == 0 else {
      throw SigningIdentityError(
        path, "others than its owner may use it (mode \(String(status.st_mode & 0o777, radix: 8)), must be 600)")
    }
    guard status.st_size <= SigningIdentity.maxFileBytes else {
      throw SigningIdentityError(
        path, "it has \(status.st_size) bytes, the limit is \(SigningIdentity.maxFileBytes)")
    }
    do {
      let handle = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
      defer { try? handle.close() }
      return Array(try handle.read(upToCount: SigningIdentity.maxFileBytes) ?? Data())
    } catch {
      throw SigningIdentityError(path, "it cannot be read")
    }
  }

  /// Calls `body` with a source of libcrypto's that gives the bytes; what it complains about is forgotten afterwards.
  static func withSource<Result>(_ bytes: [UInt8], _ body: (OpaquePointer) -> Result?) -> Result? {
    defer { ERR_clear_error() }
    return bytes.withUnsafeBytes { bytes in
      guard let source = BIO_new_mem_buf(bytes.baseAddress, CInt(bytes.count)) else { return nil }
      defer { BIO_free(source) }
      return body(source)
    }
  }
}
