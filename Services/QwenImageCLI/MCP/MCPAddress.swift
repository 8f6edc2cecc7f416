import ArgumentParser

/// Where the protocol is served over HTTP, and who may use it.
struct MCPAddress: Equatable, Sendable {
  static let tokenVariable = "QWEN_IMAGE_MCP_TOKEN"
  private static let minTokenBytes = 16

  let host: String
  let port: Int
  /// What clients must send as `Authorization: Bearer TOKEN`; nil: nothing.
  let token: String?

  /// Whether only programs of this machine reach it.
  var isLocal: Bool { Self.isLoopback(host) }

  /// - Throws: `ValidationError` when `text` is not HOST:PORT, or other machines reach the host and there is no token.
  init(_ text: String, token: String?) throws(ValidationError) {
    guard let (host, port) = Self.split(text), let port, (0...65_535).contains(port) else {
      throw ValidationError("--http is \(text); it must be HOST:PORT, such as 127.0.0.1:8811, or [::1]:8811")
    }
    (self.host, self.port, self.token) = (host, port, token)
    if let token, token.utf8.count < Self.minTokenBytes || !token.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) {
      throw ValidationError(
        "\(Self.tokenVariable) must have at least \(Self.minTokenBytes) visible ASCII characters; openssl rand -hex 32 "
          + "makes one")
    }
    guard token != nil || isLocal else {
      throw ValidationError(
        "--http is \(text), which other machines reach: set \(Self.tokenVariable), without which every "
          + "client could use the gateway, or use 127.0.0.1")
    }
  }

  /// Host and port; an IPv6 host in brackets. nil: something else.
  private static func split(_ text: String) -> (host: String, port: Int?)? {
    if text.hasPrefix("[") {
      guard let end = text.firstIndex(of: "]") else { return nil }
      let rest = text[text.index(after: end)...]
      guard rest.isEmpty || rest.hasPrefix(":") else { return nil }
      return (String(text[text.index(after: text.startIndex)..<end]), Int(rest.dropFirst()))
    }
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count), !parts[0].isEmpty else { return nil }
    return (String(parts[0]), parts.count == 2 ? Int(parts[1]) : nil)
  }

  /// Whether a host means this machine, whatever a name server says.
  private static func isLoopback(_ host: String) -> Bool {
    let parts = host.split(separator: ".", omittingEmptySubsequences: false)
    return ["localhost", "::1"].contains(host.lowercased())
      || parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
  }

  // MARK: Requests

  /// Whether a request for `authority` may be answered: a web page whose name was made to mean this machine names
  /// itself there.
  func admits(authority: String) -> Bool {
    guard isLocal else { return true }
    return Self.split(authority).map { Self.isLoopback($0.host) } ?? false
  }

  /// Whether a web page of `origin` may send requests: one of this machine.
  static func admits(origin: String) -> Bool {
    for scheme in ["http://", "https://"] where origin.lowercased().hasPrefix(scheme) {
      return split(String(origin.dropFirst(scheme.count))).map { isLoopback($0.host) } ?? false
    }
    return false
  }

  /// Whether `Authorization: header` has the token. It takes as long for every text of the token's length.
  func admits(authorization header: String?) -> Bool {
    guard let token else { return true }
    let parts = header?.split(separator: " ", maxSplits: 1) ?? []
    guard parts.count == 2, parts[0].lowercased() == "bearer" else { return false }
    let (sent, own) = (Array(parts[1].utf8), Array(token.utf8))
    guard sent.count == own.count else { return false }
    return zip(sent, own).reduce(0) { $0 | ($1.0 ^ $1.1) } == 0
  }
}
