import COpenSSL

/// SHA-256 (FIPS 180-4) of bytes that come in pieces, computed by OpenSSL's libcrypto.
///
/// ```swift
/// var hash = SHA256()
/// hash.update(header)
/// hash.update(body)
/// let digest = hash.finalize()
/// ```
public struct SHA256: ~Copyable {
  /// Length of a digest.
  public static let byteCount = 32

  private let context: OpaquePointer

  /// Begins a digest. Traps when there is no memory, like any allocation.
  public init() {
    Libcrypto.prepare()
    guard let context = EVP_MD_CTX_new(), EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1 else {
      preconditionFailure("libcrypto cannot begin a SHA-256 digest")
    }
    self.context = context
  }

  deinit { EVP_MD_CTX_free(context) }

  /// Appends bytes to what is hashed.
  public mutating func update(_ bytes: UnsafeRawBufferPointer) {
    guard let start = bytes.baseAddress else { return }
    let status = EVP_DigestUpdate(context, start, bytes.count)
    precondition(status == 1, "libcrypto cannot continue a SHA-256 digest")
  }

  /// Appends bytes to what is hashed.
  public mutating func update(_ bytes: RawSpan) { bytes.withUnsafeBytes { update($0) } }

  /// Appends bytes to what is hashed.
  public mutating func update(_ bytes: some Sequence<UInt8>) {
    let isDone: Void? = bytes.withContiguousStorageIfAvailable { update(UnsafeRawBufferPointer($0)) }
    if isDone == nil { Array(bytes).withUnsafeBytes { update($0) } }
  }

  /// The digest, ``byteCount`` bytes.
  public consuming func finalize() -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: Self.byteCount) { bytes, count in
      let status = EVP_DigestFinal_ex(context, bytes.baseAddress, nil)
      precondition(status == 1, "libcrypto cannot end a SHA-256 digest")
      count = Self.byteCount
    }
  }

  /// The digest of bytes that are there at once, ``byteCount`` bytes.
  public static func hash(_ bytes: some Sequence<UInt8>) -> [UInt8] {
    var hash = SHA256()
    hash.update(bytes)
    return hash.finalize()
  }
}

/// HMAC with SHA-256 (RFC 2104), computed by OpenSSL's libcrypto.
public enum HMACSHA256 {
  /// The authentication code of `message` under `key`, 32 bytes.
  public static func code(for message: [UInt8], key: [UInt8]) -> [UInt8] {
    Libcrypto.prepare()
    return [UInt8](unsafeUninitializedCapacity: SHA256.byteCount) { bytes, count in
      let result = HMAC(EVP_sha256(), key, CInt(key.count), message, message.count, bytes.baseAddress, nil)
      precondition(result != nil, "libcrypto cannot make an authentication code")
      count = SHA256.byteCount
    }
  }

  /// Whether `code` is the authentication code of `message` under `key`, in a time that does not depend on where they
  /// differ.
  public static func isValid(_ code: [UInt8], for message: [UInt8], key: [UInt8]) -> Bool {
    let expected = Self.code(for: message, key: key)
    return code.count == expected.count && CRYPTO_memcmp(code, expected, expected.count) == 0
  }
}

/// OpenSSL's library, before its first use.
package enum Libcrypto {
  /// Without its own end: at `exit` it frees what threads that end at the same time still use. The system takes the
  /// memory back anyway.
  private static let isPrepared = OPENSSL_init_crypto(UInt64(OPENSSL_INIT_NO_ATEXIT), nil) == 1

  package static func prepare() { precondition(isPrepared, "libcrypto cannot be initialised") }
}

/// Bytes as lower-case hexadecimal digits, two for each.
public func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
  bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}
