import COpenSSL
import Foundation

/// The certificates of a signer, and what C2PA's validators ask of them.
///
/// The rules are those of the C2PA specification, section "X.509 Certificates".
struct CertificateChain {
  let path: String
  /// Not empty; the signer's first, each next one its issuer's.
  let certificates: [Certificate]

  /// Reads a PEM file.
  init(file path: String) throws(SigningIdentityError) {
    self.path = path
    let bytes = try PEMFile.read(path, isSecret: false)
    certificates =
      PEMFile.withSource(bytes) { source in
        var certificates: [Certificate] = []
        while certificates.count <= SigningIdentity.maxCertificates,
          let pointer = PEM_read_bio_X509(source, nil, { _, _, _, _ in -1 }, nil)
        {
          certificates.append(Certificate(pointer))
        }
        return certificates
      } ?? []
    guard !certificates.isEmpty else { throw SigningIdentityError(path, "it holds no certificate in PEM") }
    guard certificates.count <= SigningIdentity.maxCertificates else {
      throw SigningIdentityError(
        path,
        "it holds more than \(SigningIdentity.maxCertificates) certificates; only the signer's chain belongs there")
    }
  }

  /// - Throws: when validators would refuse what the certificates sign.
  func check(nowUnix: Int) throws(SigningIdentityError) {
    for certificate in certificates {
      if let problem = certificate.problem(nowUnix: nowUnix) { throw error(certificate, problem) }
    }
    if let problem = certificates[0].problemAsSigner { throw error(certificates[0], problem) }
    for (certificate, issuer) in zip(certificates, certificates.dropFirst()) {
      guard certificate.isIssued(by: issuer) else {
        throw error(
          certificate,
          "is not issued by the next one, that of \(issuer.subject); the signer's comes first, then its "
            + "issuer's, and so on")
      }
    }
  }

  private func error(_ certificate: Certificate, _ problem: String) -> SigningIdentityError {
    SigningIdentityError(path, "the certificate of \(certificate.subject) \(problem)")
  }
}

/// A decoded certificate.
final class Certificate {
  let pointer: OpaquePointer

  /// Takes over the certificate.
  init(_ pointer: OpaquePointer) { self.pointer = pointer }

  deinit { X509_free(pointer) }

  var der: [UInt8] {
    let count = Int(i2d_X509(pointer, nil))
    guard count > 0 else { return [] }
    return [UInt8](unsafeUninitializedCapacity: count) { bytes, initialized in
      var next = bytes.baseAddress
      initialized = Int(i2d_X509(pointer, &next))
    }
  }

  /// Such as `/O=Example/CN=Images`.
  var subject: String {
    var text = [CChar](repeating: 0, count: 256)
    X509_NAME_oneline(X509_get_subject_name(pointer), &text, CInt(text.count))
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// In seconds since 1970.
  var expiresAtUnix: Int { Self.unix(X509_get0_notAfter(pointer)) }

  private static func unix(_ time: UnsafePointer<ASN1_TIME>?) -> Int {
    var calendar = tm()
    guard ASN1_TIME_to_tm(time, &calendar) == 1 else { return 0 }
    return timegm(&calendar)
  }

  // MARK: Rules

  private static let signatureAlgorithms: Set = [
    NID_ecdsa_with_SHA256, NID_ecdsa_with_SHA384, NID_ecdsa_with_SHA512, NID_sha256WithRSAEncryption,
    NID_sha384WithRSAEncryption, NID_sha512WithRSAEncryption, NID_rsassaPss, NID_ED25519,
  ]

  /// What keeps validators from accepting it anywhere in a chain; nil: nothing.
  func problem(nowUnix: Int) -> String? {
    let begin = Self.unix(X509_get0_notBefore(pointer)), end = expiresAtUnix
    if nowUnix < begin { return "is not valid before \(Self.date(begin))" }
    if nowUnix > end { return "has expired: it was valid until \(Self.date(end))" }
    if X509_get_version(pointer) != 2 { return "is not of version 3" }
    if !Self.signatureAlgorithms.contains(X509_get_signature_nid(pointer)) {
      return "is signed with an algorithm that C2PA does not allow"
    }
    return nil
  }

  /// Purposes that allow the signature of an image: e-mail protection, document signing, C2PA claim signing.
  private static let purposes = ["1.3.6.1.5.5.7.3.4", "1.3.6.1.5.5.7.3.36", "1.3.6.1.4.1.62558.2.1"]
  private static let anyPurpose = "2.5.29.37.0"

  /// What keeps validators from accepting what it signs with ES256; nil: nothing.
  var problemAsSigner: String? {
    guard let key = X509_get0_pubkey(pointer), EllipticCurve.isP256(key) else {
      return "has no key on the curve P-256 (prime256v1), which ES256 signs with"
    }
    // What it says of itself; X509_check_ca would ask for the key usage of an authority, too.
    if X509_get_extension_flags(pointer) & UInt32(EXFLAG_CA) != 0 {
      return "is that of a certificate authority, which must not sign images itself"
    }
    let usage = X509_get_key_usage(pointer)
    // Without the extension every bit is set.
    if usage == UInt32.max || usage & UInt32(KU_DIGITAL_SIGNATURE) == 0 {
      return "does not allow digital signatures (key usage digitalSignature)"
    }
    if usage & UInt32(KU_KEY_CERT_SIGN) != 0 { return "allows signatures of certificates (key usage keyCertSign)" }
    let extended = extendedKeyUsage
    if extended.contains(Self.anyPurpose) || !extended.contains(where: Self.purposes.contains) {
      return "has no extended key usage emailProtection, documentSigning or \(Self.purposes[2]) (C2PA claim signing), "
        + "or has anyExtendedKeyUsage"
    }
    if X509_get0_authority_key_id(pointer) == nil { return "has no authority key identifier" }
    return nil
  }

  /// Object identifiers of the purposes that the certificate is limited to.
  private var extendedKeyUsage: [String] {
    guard let list = X509_get_ext_d2i(pointer, NID_ext_key_usage, nil, nil) else { return [] }
    let stack = OpaquePointer(list)
    defer { EXTENDED_KEY_USAGE_free(stack) }
    return (0..<OPENSSL_sk_num(stack)).compactMap { index in
      guard let object = OPENSSL_sk_value(stack, index) else { return nil }
      var text = [CChar](repeating: 0, count: 80)
      guard OBJ_obj2txt(&text, CInt(text.count), OpaquePointer(object), 1) > 0 else { return nil }
      return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
  }

  /// Whether another one's key has signed this one, and names and identifiers agree.
  func isIssued(by issuer: Certificate) -> Bool {
    defer { ERR_clear_error() }
    guard let key = X509_get0_pubkey(issuer.pointer) else { return false }
    return X509_check_issued(issuer.pointer, pointer) == X509_V_OK && X509_verify(pointer, key) == 1
  }

  private static func date(_ unix: Int) -> String {
    Date(timeIntervalSince1970: Double(unix)).formatted(.iso8601)
  }
}
