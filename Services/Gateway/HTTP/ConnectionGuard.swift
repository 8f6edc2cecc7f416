import HTTPTypes
import NIOCore
import NIOHTTPTypes
import Synchronization

/// Counts the connections of each address.
final class ConnectionCounter: Sendable {
  private let limit: Int
  private let counts = Mutex<[String: Int]>([:])

  init(limit: Int) { self.limit = limit }

  /// Counts one more, unless the address has as many as it may have.
  func enter(_ address: String) -> Bool {
    counts.withLock { counts in
      guard counts[address, default: 0] < limit else { return false }
      counts[address, default: 0] += 1
      return true
    }
  }

  /// One is gone.
  func leave(_ address: String) {
    counts.withLock { counts in
      let count = counts[address, default: 0] - 1
      counts[address] = count > 0 ? count : nil
    }
  }
}

/// Closes connections that use up a place: too many of one address, no whole header within the idle time however busily
/// its bytes trickle in, answers that are not read.
final class ConnectionGuard: ChannelDuplexHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPRequestPart
  typealias InboundOut = HTTPRequestPart
  typealias OutboundIn = HTTPResponsePart
  typealias OutboundOut = HTTPResponsePart

  private let counter: ConnectionCounter
  private let headerTimeout: TimeAmount
  private let writeTimeout: TimeAmount
  private var address: String?
  /// Requests that have begun and are not answered.
  private var openRequests = 0
  private var headerDeadline: Scheduled<Void>?
  private var writeDeadline: Scheduled<Void>?

  init(counter: ConnectionCounter, limits: HTTPLimits) {
    self.counter = counter
    headerTimeout = TimeAmount(limits.idleTimeout)
    writeTimeout = TimeAmount(limits.writeTimeout)
  }

  func handlerAdded(context: ChannelHandlerContext) {
    if context.channel.isActive { begin(context.channel) }
  }

  func channelActive(context: ChannelHandlerContext) {
    begin(context.channel)
    context.fireChannelActive()
  }

  private func begin(_ channel: any Channel) {
    guard headerDeadline == nil else { return }
    // Connections by way of a socket file have no address; they count together.
    let name = channel.remoteAddress?.ipAddress ?? ""
    guard counter.enter(name) else {
      channel.close(promise: nil)
      return
    }
    address = name
    awaitHeader(channel)
  }

  private func awaitHeader(_ channel: any Channel) {
    headerDeadline?.cancel()
    headerDeadline = channel.eventLoop.scheduleTask(in: headerTimeout) { channel.close(promise: nil) }
  }

  func channelInactive(context: ChannelHandlerContext) {
    headerDeadline?.cancel()
    writeDeadline?.cancel()
    if let address { counter.leave(address) }
    address = nil
    context.fireChannelInactive()
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    if case .head = unwrapInboundIn(data) {
      openRequests += 1
      headerDeadline?.cancel()
    }
    context.fireChannelRead(data)
  }

  func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    // Interim answers have a head only.
    if case .end = unwrapOutboundIn(data) {
      openRequests -= 1
      if openRequests == 0 { awaitHeader(context.channel) }
    }
    context.write(data, promise: promise)
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    let channel = context.channel
    writeDeadline?.cancel()
    writeDeadline =
      channel.isWritable ? nil : channel.eventLoop.scheduleTask(in: writeTimeout) { channel.close(promise: nil) }
    context.fireChannelWritabilityChanged()
  }
}
