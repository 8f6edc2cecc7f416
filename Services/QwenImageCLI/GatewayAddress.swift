import Foundation

/// Where a gateway is: scheme, host, port, and the path below which a proxy serves it.
struct GatewayAddress: Equatable, CustomStringConvertible {
  /// What users are likely to have: the API below `/v1`, as OpenAI's clients are given it, down to a route copied from
  /// somewhere.
  private static let routes: Set<[String]> = [[], ["images", "generations"], ["jobs"], ["models"], ["workers"]]
  private static let fallback = "http://127.0.0.1:8080"

  /// The address without `/v1` and without a slash at its end.
  let base: String

  var description: String { base }

  /// Reads an address.
  ///
  /// - Parameters:
  ///   - text: with scheme and host, such as `http://127.0.0.1:8080`, `https://example.org/images` or
  ///     `http://host:8080/v1`.
  ///   - source: the option or variable that it comes from, for messages.
  init(_ text: String, from source: String) throws(GatewayClientError) {
    let text = text.trimmingCharacters(in: .whitespacesAndNewlines)
    func failure(_ reason: String) -> GatewayClientError { .badAddress(source: source, text: text, reason: reason) }
    guard !text.isEmpty else { throw failure("is empty; write for example \(Self.fallback)") }
    guard text.contains("://") else { throw failure("lacks a scheme; write http://\(text) or https://\(text)") }
    guard let parts = URLComponents(string: text), let scheme = parts.scheme?.lowercased() else {
      throw failure("is not an address")
    }
    guard ["http", "https"].contains(scheme) else {
      throw failure("has the scheme \(scheme); a gateway is reached by http or https")
    }
    guard let host = parts.percentEncodedHost, !host.isEmpty else { throw failure("names no host") }
    guard parts.port.map({ (1...65_535).contains($0) }) ?? true else {
      throw failure("has a port that is not from 1 to 65535")
    }
    guard parts.user == nil, parts.password == nil else {
      throw failure("holds a user name; a gateway takes an API key instead, by --api-key or QWEN_IMAGE_API_KEY")
    }
    guard parts.query == nil, parts.fragment == nil else { throw failure("must end with its path, without ? or #") }
    var path = parts.percentEncodedPath.split(separator: "/").map(String.init)
    if let version = path.lastIndex(of: "v1"), Self.routes.contains(Array(path[(version + 1)...])) {
      path.removeSubrange(version...)
    }
    base = (["\(scheme)://\(host)\(parts.port.map { ":\($0)" } ?? "")"] + path).joined(separator: "/")
  }

  /// The address that the option, else the environment's `QWEN_IMAGE_GATEWAY`, names; else a gateway on this machine.
  static func resolve(option: String?) throws(GatewayClientError) -> GatewayAddress {
    if let option { return try GatewayAddress(option, from: "--gateway") }
    let variable = "QWEN_IMAGE_GATEWAY"
    let value = ProcessInfo.processInfo.environment[variable] ?? ""
    if value.isEmpty { return try GatewayAddress(fallback, from: "--gateway") }
    return try GatewayAddress(value, from: variable)
  }
}
