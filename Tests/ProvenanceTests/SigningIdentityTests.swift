import Foundation
import Provenance
import Testing

@Suite("Certificates and keys", .timeLimit(.minutes(2))) struct SigningIdentityTests {
  /// Why a chain or a key is refused; nil: it is not.
  private func problem(
    _ authority: TestAuthority, _ chain: String = "signer.chain", key: String = "signer.key", daysFromNow: Int = 0
  ) -> String? {
    do {
      _ = try SigningIdentity(
        certificateFile: authority.path(chain), keyFile: authority.path(key),
        nowUnix: authority.nowUnix + daysFromNow * 86_400)
      return nil
    } catch {
      return error.description
    }
  }

  @Test("a chain with its key is taken, with or without the issuers")
  func accepted() async throws {
    let authority = try await TestAuthority()
    try await authority.certificate("signer")
    #expect(problem(authority) == nil)
    #expect(problem(authority, "signer.pem") == nil)
    try authority.write(try authority.read("signer.chain") + authority.read("root.pem"), to: "all.chain")
    #expect(problem(authority, "all.chain") == nil)
    let identity = try SigningIdentity(
      certificateFile: authority.path("signer.chain"), keyFile: authority.path("signer.key"), nowUnix: authority.nowUnix
    )
    #expect(identity.subject == "/O=Example/CN=Images")
    #expect(abs(identity.expiresAtUnix - authority.nowUnix - 200 * 86_400) < 7200, "the issuer's lasts the shortest")
    #expect("\(identity)" == "SigningIdentity(/O=Example/CN=Images)" && String(reflecting: identity) == "\(identity)")
    var dumped = ""
    dump(identity, to: &dumped)
    #expect(!dumped.contains("key"), "\(dumped)")
    // The older form of a key's file.
    try await authority.openssl([
      "ec", "-in", authority.path("signer.key"), "-out", authority.path("sec1.key"),
    ])
    #expect(problem(authority, key: "sec1.key") == nil)
  }

  @Test("what is wrong with a certificate is named, with its subject")
  func refusedCertificates() async throws {
    let authority = try await TestAuthority()
    func refused(_ name: String, _ change: (String) -> String, days: Int = 365, digest: String = "-sha256") async throws
      -> String
    {
      try await authority.certificate(
        name, extensions: change(TestAuthority.signerExtensions), days: days, digest: digest)
      let problem = try #require(self.problem(authority, "\(name).chain", key: "\(name).key"), "\(name) was taken")
      #expect(problem.hasPrefix(authority.path("\(name).chain") + ": the certificate of /O=Example/CN=Images "))
      return problem
    }
    #expect(try await refused("old", { $0 }, digest: "-sha1").contains("an algorithm that C2PA does not allow"))
    #expect(
      try await refused("authority", { $0.replacing("CA:FALSE", with: "CA:TRUE") }).contains("certificate authority"))
    #expect(
      try await refused("usage", { $0.replacing("digitalSignature", with: "keyAgreement") }).contains(
        "digitalSignature"))
    #expect(
      try await refused("certifies", { $0.replacing("digitalSignature", with: "digitalSignature, keyCertSign") })
        .contains("keyCertSign"))
    for (name, purpose) in [("server", "serverAuth"), ("any", "anyExtendedKeyUsage, emailProtection")] {
      #expect(
        try await refused(name, { $0.replacing("emailProtection", with: purpose) }).contains("extended key usage"))
    }
    #expect(
      try await refused("without", { $0.replacing("extendedKeyUsage = emailProtection\n", with: "") }).contains(
        "extended key usage"))
    #expect(
      try await refused(
        "nameless", { $0.replacing("authorityKeyIdentifier = keyid", with: "authorityKeyIdentifier = none") }
      )
      .contains("authority key identifier"))
    try await authority.key("large", options: ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"])
    try await authority.certificate("large")
    #expect(
      problem(authority, "large.chain", key: "large.key")?.contains("large.key: it is no key on the curve P-256")
        == true)
    try await authority.key("signer")
    #expect(problem(authority, "large.chain")?.contains("Images has no key on the curve P-256") == true)
    for purpose in ["1.3.6.1.5.5.7.3.36", "1.3.6.1.4.1.62558.2.1"] {
      let extensions = TestAuthority.signerExtensions.replacing("emailProtection", with: purpose)
      try await authority.certificate("signer", extensions: extensions)
      #expect(problem(authority) == nil)
    }
  }

  @Test("certificates that are not valid now are refused, those of issuers too")
  func validity() async throws {
    let authority = try await TestAuthority()
    try await authority.certificate("signer", days: 10)
    #expect(problem(authority, daysFromNow: 9) == nil)
    #expect(problem(authority, daysFromNow: 11)?.contains("/CN=Images has expired: it was valid until 20") == true)
    #expect(problem(authority, daysFromNow: -1)?.contains("is not valid before 20") == true)
    try await authority.certificate("late")
    #expect(
      problem(authority, "late.chain", key: "late.key", daysFromNow: 201)?.contains("/CN=Test issuer has expired")
        == true)
  }

  @Test("the order of a chain and whose key it is are checked")
  func mismatches() async throws {
    let authority = try await TestAuthority()
    try await authority.certificate("signer")
    try await authority.certificate("other")
    let problem = try #require(self.problem(authority, key: "other.key"))
    #expect(problem.hasPrefix(authority.path("other.key")) && problem.contains("not the private key of the first"))
    for parts in [["signer", "root"], ["signer", "root", "issuer"], ["signer", "other"]] {
      try authority.write(try parts.map { try authority.read("\($0).pem") }.joined(), to: "wrong.chain")
      #expect(self.problem(authority, "wrong.chain")?.contains("is not issued by the next one") == true, "\(parts)")
    }
    try authority.write(try authority.read("issuer.pem") + authority.read("signer.pem"), to: "wrong.chain")
    #expect(self.problem(authority, "wrong.chain") != nil)
    // An authority of the same name with another key.
    let impostor = try await TestAuthority()
    try authority.write(try authority.read("signer.pem") + impostor.read("issuer.pem"), to: "wrong.chain")
    #expect(self.problem(authority, "wrong.chain")?.contains("is not issued by the next one") == true)
  }

  @Test("files that are none of PEM, too large, or open to others are refused by name")
  func files() async throws {
    let authority = try await TestAuthority()
    try await authority.certificate("signer")
    #expect(problem(authority, "missing.pem")?.hasSuffix("missing.pem: No such file or directory") == true)
    #expect(problem(authority, key: "missing.key")?.hasSuffix("missing.key: No such file or directory") == true)
    try authority.write("not PEM\n", to: "none")
    #expect(problem(authority, "none")?.contains("it holds no certificate in PEM") == true)
    #expect(problem(authority, key: "none")?.contains("it holds no private key in PEM") == true)
    try authority.write(String(repeating: "x", count: (64 << 10) + 1), to: "large")
    #expect(problem(authority, "large")?.contains("65537 bytes, the limit is 65536") == true)
    try authority.write(
      try String(repeating: authority.read("issuer.pem"), count: 9), to: "many.chain")
    #expect(problem(authority, "many.chain")?.contains("more than 8 certificates") == true)
    for mode in [0o640, 0o604, 0o644] {
      try authority.write(try authority.read("signer.key"), to: "open.key", mode: mode)
      #expect(problem(authority, key: "open.key")?.contains("(mode \(String(mode, radix: 8)), must be 600)") == true)
    }
    // No password is asked for.
    try await authority.openssl([
      "pkcs8", "-topk8", "-in", authority.path("signer.key"), "-passout", "pass:secret", "-out",
      authority.path("encrypted.key"),
    ])
    #expect(problem(authority, key: "encrypted.key")?.contains("a password protects") == true)
    try authority.write("", to: "empty")
    #expect(problem(authority, "empty")?.contains("no certificate") == true)
    #expect(problem(authority, key: "empty")?.contains("no private key") == true)
  }
}
