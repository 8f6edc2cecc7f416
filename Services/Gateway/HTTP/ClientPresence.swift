import NIOCore
import Synchronization

/// Whether the client of a connection is still there, for handlers that wait without reading or writing.
///
/// Reading to the end of a request's body shows it as well, but uses up the connection.
final class ClientPresence: Sendable {
  private struct State {
    var hasLeft = false
    var onLeave: (@Sendable () -> Void)?
  }
  private let state = Mutex(State())

  /// Calls `body` when the client ends its side of the connection, at once if it has; nil: calls nothing any more.
  /// Requests of one connection are answered one after the other, so there is one `body` at a time.
  func onLeave(_ body: (@Sendable () -> Void)?) {
    let hasLeft = state.withLock { state in
      state.onLeave = body
      return state.hasLeft
    }
    if hasLeft { body?() }
  }

  func leave() {
    let body = state.withLock { state in
      state.hasLeft = true
      defer { state.onLeave = nil }
      return state.onLeave
    }
    body?()
  }
}

/// Notices that a client ends its side of the connection.
final class PresenceHandler: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = NIOAny

  let presence = ClientPresence()

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if case .inputClosed? = event as? ChannelEvent { presence.leave() }
    context.fireUserInboundEventTriggered(event)
  }

  func channelInactive(context: ChannelHandlerContext) {
    presence.leave()
    context.fireChannelInactive()
  }
}

extension GatewayContext {
  /// Runs `body`, and cancels its task when the client leaves.
  func untilClientLeaves(_ body: @escaping @Sendable () async -> Void) async {
    let task = Task { await body() }
    let channel = channel
    let presence = try? await channel.eventLoop.submit {
      try channel.pipeline.syncOperations.handler(type: PresenceHandler.self).presence
    }.get()
    presence?.onLeave { task.cancel() }
    await withTaskCancellationHandler {
      await task.value
    } onCancel: {
      task.cancel()
    }
    presence?.onLeave(nil)
  }
}
