import HTTPTypes
import NIOCore
import NIOHTTP1

/// Reads of a request's head what the types above do not carry (the version, the number of `Host` fields, the form of
/// the target), and answers in the version of HTTP that the client speaks.
///
/// Above it every target is a path without the server's base path, every request that ends its connection says
/// `connection: close` and nothing else, and what was wrong or special is in fields of the server's own, which clients
/// cannot set.
final class RequestHeadHandler: ChannelDuplexHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias InboundOut = HTTPServerRequestPart
  typealias OutboundIn = HTTPServerResponsePart
  typealias OutboundOut = HTTPServerResponsePart

  private struct Exchange {
    var isHTTP1_0: Bool
    var endsConnection: Bool
  }

  /// With a slash at its end; empty: none.
  private let basePath: String
  /// Requests that have begun and are not answered, in order.
  private var exchanges: CircularBuffer<Exchange> = []

  init(basePath: PathPrefix) { self.basePath = basePath.text.isEmpty ? "" : basePath.text + "/" }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard case .head(var head) = unwrapInboundIn(data) else {
      context.fireChannelRead(data)
      return
    }
    for name in [HTTPField.Name.requestVersion, .requestProblem] { head.headers.remove(name: name.rawName) }
    let isOld = head.version.major < 1 || head.version.major == 1 && head.version.minor == 0
    let exchange = Exchange(isHTTP1_0: isOld, endsConnection: isOld || !head.isKeepAlive)
    exchanges.append(exchange)
    if let problem = prepare(&head, needsHost: !isOld) {
      head.headers.add(name: HTTPField.Name.requestProblem.rawName, value: problem)
    }
    if exchange.endsConnection { head.headers.replaceOrAdd(name: "connection", value: "close") }
    if exchange.isHTTP1_0 {
      head.headers.add(name: HTTPField.Name.requestVersion.rawName, value: "1.0")
      // RFC 9110, 10.1.1: of such a client it means nothing.
      head.headers.remove(name: "expect")
    }
    context.fireChannelRead(wrapInboundOut(.head(head)))
  }

  func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    switch unwrapOutboundIn(data) {
    case .head(var head) where (head.status.code >= 200):
      guard let exchange = exchanges.first else { break }
      // Without chunks the connection's end is the body's.
      if exchange.isHTTP1_0 { head.version = .http1_0 }
      if exchange.endsConnection { head.headers.replaceOrAdd(name: "connection", value: "close") }
      context.write(wrapOutboundOut(.head(head)), promise: promise)
      return
    case .end: if !exchanges.isEmpty { exchanges.removeFirst() }
    case .head, .body: break
    }
    context.write(data, promise: promise)
  }

  /// Makes the target a path, and `Host` the host that the request is for.
  ///
  /// - Returns: what is wrong by RFC 9112, section 3.2.
  private func prepare(_ head: inout HTTPRequestHead, needsHost: Bool) -> String? {
    let hosts = head.headers["host"]
    guard hosts.count <= 1 else { return "there are \(hosts.count) Host fields" }
    guard let (path, authority) = Self.split(head.uri) else {
      return "the request target is neither a path nor an address with http://"
    }
    head.uri =
      !basePath.isEmpty && path.utf8.starts(with: basePath.utf8)
      ? String(Substring(path.utf8.dropFirst(basePath.utf8.count - 1))) : path
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
