import Foundation
import Subprocess
import Testing

/// A certificate authority in a directory of its own, by OpenSSL's command line.
final class TestAuthority: Sendable {
  let folder: URL

  /// What a certificate of a signer has, unless a test wants it otherwise.
  static let signerExtensions = """
    basicConstraints = critical, CA:FALSE
    keyUsage = critical, digitalSignature
    extendedKeyUsage = emailProtection
    authorityKeyIdentifier = keyid
    subjectKeyIdentifier = hash
    """
  private static let authorityExtensions = """
    basicConstraints = critical, CA:TRUE
    keyUsage = critical, keyCertSign, cRLSign
    authorityKeyIdentifier = keyid
    subjectKeyIdentifier = hash
    """

  /// A root and an intermediate authority, `root.pem` and `issuer.pem` with their keys.
  init() async throws {
    folder = FileManager.default.temporaryDirectory.appending(path: "provenance-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    try await key("root")
    try write(
      "[req]\ndistinguished_name = name\nx509_extensions = own\n[name]\n[own]\nbasicConstraints = critical, CA:TRUE\n"
        + "keyUsage = critical, keyCertSign\nsubjectKeyIdentifier = hash\n", to: "root.cnf")
    try await openssl([
      "req", "-x509", "-new", "-config", path("root.cnf"), "-key", path("root.key"), "-subj", "/CN=Test root", "-days",
      "3650", "-out", path("root.pem"),
    ])
    try await certificate(
      "issuer", subject: "/CN=Test issuer", by: "root", extensions: Self.authorityExtensions, days: 200)
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  /// An hour after the first certificate was made: every one is valid then, however slow the machine is.
  var nowUnix: Int {
    let attributes = try? FileManager.default.attributesOfItem(atPath: path("root.pem"))
    return Int((attributes?[.modificationDate] as? Date)?.timeIntervalSince1970 ?? 0) + 3600
  }

  func path(_ name: String) -> String { folder.appending(path: name).path }

  func read(_ name: String) throws -> String { try String(contentsOfFile: path(name), encoding: .utf8) }

  @discardableResult
  func write(_ text: String, to name: String, mode: Int = 0o600) throws -> String {
    try Data(text.utf8).write(to: folder.appending(path: name))
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path(name))
    return path(name)
  }

  /// Makes `name.key`.
  func key(_ name: String, options: [String] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]) async throws
  {
    try await openssl(["genpkey"] + options + ["-out", path("\(name).key")])
    try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path("\(name).key"))
  }

  /// Makes `name.key`, unless it is there, and `name.pem`; and `name.chain`, with the issuer's certificate.
  func certificate(
    _ name: String, subject: String = "/O=Example/CN=Images", by issuer: String = "issuer",
    extensions: String = signerExtensions, days: Int = 365, digest: String = "-sha256"
  ) async throws {
    if !FileManager.default.fileExists(atPath: path("\(name).key")) { try await key(name) }
    try write("[req]\ndistinguished_name = name\n[name]\n", to: "request.cnf")
    try write(extensions + "\n", to: "\(name).cnf")
    try await openssl([
      "req", "-new", "-config", path("request.cnf"), "-key", path("\(name).key"), "-subj", subject, "-out",
      path("\(name).csr"),
    ])
    try await openssl([
      "x509", "-req", "-in", path("\(name).csr"), "-CA", path("\(issuer).pem"), "-CAkey", path("\(issuer).key"),
      "-set_serial", "\(UInt32.random(in: 1 ... .max))", "-days", "\(days)", digest, "-extfile", path("\(name).cnf"),
      "-out", path("\(name).pem"),
    ])
    try write(try read("\(name).pem") + (try read("\(issuer).pem")), to: "\(name).chain", mode: 0o644)
  }

  /// Runs `openssl`; what it writes.
  @discardableResult
  func openssl(_ arguments: [String]) async throws -> String {
    let result = try await Subprocess.run(
      .name("openssl"), arguments: Arguments(arguments), output: .string(limit: 1 << 20), error: .combinedWithOutput)
    try #require(result.terminationStatus == .exited(0), "openssl \(arguments): \(result.standardOutput)")
    return result.standardOutput
  }
}
