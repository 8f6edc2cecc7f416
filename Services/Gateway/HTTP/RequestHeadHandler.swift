import HTTPTypes
import NIOCore
import NIOHTTP1

/// Reads of a request's head what the types above do not carry: the version, the number of `Host` fields, the form of
/// the target.
///
/// Above it every target is a path, and what was wrong or special is in fields of the server's own, which clients
/// cannot set.
final class RequestHeadHandler: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias InboundOut = HTTPServerRequestPart

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard case .head(var head) = unwrapInboundIn(data) else {
      context.fireChannelRead(data)
      return
    }
    for name in [HTTPField.Name.requestVersion, .requestProblem] { head.headers.remove(name: name.rawName) }
    let isHTTP1_0 = head.version.major < 1 || head.version.major == 1 && head.version.minor == 0
    if isHTTP1_0 { head.headers.add(name: HTTPField.Name.requestVersion.rawName, value: "1.0") }
    if let problem = Self.prepare(&head, needsHost: !isHTTP1_0) {
      head.headers.add(name: HTTPField.Name.requestProblem.rawName, value: problem)
    }
    context.fireChannelRead(wrapInboundOut(.head(head)))
  }

  /// Makes the target a path, and `Host` the host that the request is for.
  ///
  /// - Returns: what is wrong by RFC 9112, section 3.2.
  private static func prepare(_ head: inout HTTPRequestHead, needsHost: Bool) -> String? {
    let hosts = head.headers["host"]
    guard hosts.count <= 1 else { return "there are \(hosts.count) Host fields" }
    guard let (path, authority) = split(head.uri) else {
      return "the request target is neither a path nor an address with http://"
    }
    head.uri = path
    // The target's own goes before the field's.
    if let authority { head.headers.replaceOrAdd(name: "host", value: authority) }
    guard let host = authority ?? hosts.first else { return needsHost ? "the Host field is missing" : nil }
    return Authority(host) == nil ? "the Host field is not a host name or an IP address, with or without a port" : nil
  }

  /// The path with the query, and the authority of an absolute target; nil: the target has neither form.
  private static func split(_ target: String) -> (path: String, authority: String?)? {
    if target.utf8.first == UInt8(ascii: "/") || target == "*" { return (target, nil) }
    for scheme in ["http://", "https://"] where target.lowercased().hasPrefix(scheme) {
      let rest = target.dropFirst(scheme.count)
      let end = rest.firstIndex { "/?#".contains($0) } ?? rest.endIndex
      return ((rest[end...].first == "/" ? "" : "/") + rest[end...], String(rest[..<end]))
    }
    return nil
  }
}

extension HTTPField.Name {
  /// "1.0" for a request of HTTP/1.0.
  static let requestVersion = Self("x-gateway-request-version")!
  /// What is wrong with the head.
  static let requestProblem = Self("x-gateway-request-problem")!
}
