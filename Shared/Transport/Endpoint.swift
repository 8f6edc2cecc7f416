/// A ZeroMQ address: `tcp://host:port`, `ipc://path` or `inproc://name`.
struct Endpoint {
  enum Scheme: String, CaseIterable {
    case tcp
    case ipc
    case inproc
  }

  let text: String
  let scheme: Scheme
  /// What follows `://`.
  let address: String

  init(_ text: String) throws(TransportError) {
    guard let scheme = Scheme.allCases.first(where: { text.hasPrefix("\($0.rawValue)://") }) else {
      throw .invalidEndpoint(text, reason: "must start with tcp://, ipc:// or inproc://")
    }
    guard !text.unicodeScalars.contains(where: { $0.value <= 0x20 }) else {
      throw .invalidEndpoint(text, reason: "holds a space or a control character")
    }
    self.text = text
    self.scheme = scheme
    self.address = String(text.dropFirst(scheme.rawValue.count + 3))
    guard !address.isEmpty else { throw .invalidEndpoint(text, reason: "lacks an address") }
    if scheme == .tcp { try checkPort() }
    // sockaddr_un holds 108 bytes with the final NUL.
    if scheme == .ipc, address.utf8.count > 107 {
      throw .invalidEndpoint(text, reason: "the path is longer than 107 bytes")
    }
  }

  private func checkPort() throws(TransportError) {
    guard let colon = address.lastIndex(of: ":"), colon > address.startIndex else {
      throw .invalidEndpoint(text, reason: "lacks a host or a port")
    }
    let port = address[address.index(after: colon)...]
    guard port == "*" || (UInt16(port) ?? 0) > 0 else {
      throw .invalidEndpoint(text, reason: "\"\(port)\" is not a port")
    }
  }

  /// Whether messages stay on this machine.
  var isLocal: Bool {
    guard scheme == .tcp, let colon = address.lastIndex(of: ":") else { return true }
    let host = address[..<colon]
    return host == "localhost" || host == "[::1]" || host.wholeMatch(of: /127\.\d{1,3}\.\d{1,3}\.\d{1,3}/) != nil
  }
}
