import Foundation
import GatewayAPI
import HTTPTypes
import NIOCore
import NIOHTTP1
import NIOHTTPTypes

/// Answers what is not HTTP, or has too large a header, in the API's own shape; without it the answer would have no
/// body.
final class ParserErrorHandler: ChannelDuplexHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPRequestPart
  typealias InboundOut = HTTPRequestPart
  typealias OutboundIn = HTTPResponsePart
  typealias OutboundOut = HTTPResponsePart

  /// Requests that have begun and are not answered.
  private var openRequests = 0

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    if case .head = unwrapInboundIn(data) { openRequests += 1 }
    context.fireChannelRead(data)
  }

  func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    if case .end = unwrapOutboundIn(data) { openRequests -= 1 }
    context.write(data, promise: promise)
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    // An answer that is on its way must not be mixed with another.
    guard let parserError = error as? HTTPParserError, openRequests == 0 else {
      context.fireErrorCaught(error)
      return
    }
    let apiError =
      parserError == .headerOverflow
      ? APIError(.headersTooLarge, "the request's header is larger than the server allows")
      : APIError(.malformedRequest, "the request is not HTTP/1.1: \(parserError)")
    let body = (try? JSONOutput.encode(ErrorEnvelope(apiError))) ?? Data()
    let head = HTTPResponse(
      status: apiError.code.row.status,
      headerFields: [
        .contentType: "application/json", .contentLength: "\(body.count)", .connection: "close", .shouldRetry: "false",
      ])
    context.write(wrapOutboundOut(.head(head)), promise: nil)
    context.write(wrapOutboundOut(.body(ByteBuffer(bytes: body))), promise: nil)
    let channel = context.channel
    context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in
      // Closing while bytes arrive would reset the connection before the client has read the answer.
      channel.close(mode: .output, promise: nil)
      channel.eventLoop.scheduleTask(in: .seconds(2)) { channel.close(promise: nil) }
    }
  }
}
