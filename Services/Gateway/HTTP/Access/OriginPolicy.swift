/// Which web pages of other origins may use the API from a browser.
public enum OriginPolicy: Hashable, Sendable {
  /// Those of these origins, as browsers write them: `https://example.org`, `http://localhost:3000`. Empty: none.
  case only(Set<String>)
  /// All.
  case any

  /// The policy that `allowed` says, origins as `isOrigin` has them; `*`: all.
  public init(allowed: [String]) {
    self = allowed.contains("*") ? .any : .only(Set(allowed.compactMap { Self.origin($0) }))
  }

  /// Whether `text` is a scheme, a host and perhaps a port, without a path.
  static func isOrigin(_ text: String) -> Bool { origin(text) != nil }

  /// The value of `Access-Control-Allow-Origin` for a page of `origin`; nil: it may not use the API.
  func answer(to origin: String) -> String? {
    switch self {
    case .any: "*"
    // Exactly: what a browser sends is in this form already.
    case .only(let origins): origins.contains(origin) ? origin : nil
    }
  }

  /// Whether answers differ by origin, which caches have to know.
  var dependsOnOrigin: Bool {
    switch self {
    case .any: false
    case .only(let origins): !origins.isEmpty
    }
  }

  /// In the form that browsers send: in lower case, without the scheme's own port.
  private static func origin(_ text: String) -> String? {
    let parts = text.lowercased().split(separator: "://", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2, let scheme = parts.first, let first = scheme.first, first.isASCII, first.isLetter,
      scheme.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || "+-.".contains($0)) }), parts[1].last != ":",
      let authority = Authority(parts[1])
    else { return nil }
    let isDefault = authority.port == ["http": 80, "https": 443][String(scheme)]
    return "\(scheme)://" + (isDefault ? authority.host : authority.description)
  }
}
