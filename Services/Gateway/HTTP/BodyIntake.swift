import HTTPTypes
import Hummingbird
import NIOCore
import NIOHTTPTypes
import Synchronization

/// Whether a request's body was asked for. One for each request.
final class BodyIntake: Sendable {
  /// What has not been asked for, but is no longer than this, is read and dropped, so that the connection can be used
  /// again.
  static let maxDroppedBytes = 64 << 10

  private let begun = Atomic(false)

  var hasBegun: Bool { begun.load(ordering: .relaxed) }

  /// The body is about to be read: a client that holds it back is asked for it.
  func begin(_ request: Request, on channel: any Channel) async {
    guard !begun.exchange(true, ordering: .relaxed), request.holdsBodyBack else { return }
    // If this cannot be written, neither can the answer.
    try? await channel.writeAndFlush(HTTPResponsePart.head(HTTPResponse(status: .continue)))
  }

  /// Whether the connection has to end with the answer, because an unread body is still to come: it may be long, or
  /// never come.
  func leavesBody(of request: Request) -> Bool {
    guard !hasBegun else { return false }
    if request.headers[.transferEncoding] != nil { return true }
    let length = request.headers[.contentLength].map { Int($0) ?? .max } ?? 0
    return length > (request.holdsBodyBack ? 0 : Self.maxDroppedBytes)
  }
}

extension Request {
  /// Whether the client waits for an interim answer before it sends the body: RFC 9110, section 10.1.1.
  var holdsBodyBack: Bool { headers[.expect] != nil }
}
