import NIOCore
import NIOPosix
import Testing

/// A TCP connection on which a test sends whatever bytes it likes.
struct RawClient {
  let channel: NIOAsyncChannel<ByteBuffer, ByteBuffer>

  /// Connects, runs `body`, and closes the connection.
  static func connect<Result>(
    _ port: Int,
    _ body: (inout NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator, NIOAsyncChannelOutboundWriter<ByteBuffer>) async throws -> Result
  ) async throws -> Result {
    let channel = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup).connect(host: "127.0.0.1", port: port) {
      channel in
      channel.eventLoop.makeCompletedFuture {
        try NIOAsyncChannel<ByteBuffer, ByteBuffer>(
          wrappingChannelSynchronously: channel, configuration: .init(isOutboundHalfClosureEnabled: true))
      }
    }
    return try await channel.executeThenClose { inbound, outbound in
      var iterator = inbound.makeAsyncIterator()
      return try await body(&iterator, outbound)
    }
  }

  /// Sends `text` and reads until the server closes the connection.
  static func exchange(_ port: Int, _ text: String) async throws -> String {
    try await connect(port) { inbound, outbound in
      try await outbound.write(ByteBuffer(string: text))
      return try await read(&inbound) { _ in false }
    }
  }

  /// Reads until `isEnough`, or the end.
  static func read(
    _ inbound: inout NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator, until isEnough: (String) -> Bool
  ) async throws -> String {
    var all = ByteBuffer()
    while !isEnough(String(buffer: all)) {
      guard var buffer = try await inbound.next() else { break }
      all.writeBuffer(&buffer)
    }
    return String(buffer: all)
  }

  /// A request with a JSON body.
  static func post(_ body: String, path: String = "/v1/images/generations", headers: String = "") -> String {
    "POST \(path) HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: \(body.utf8.count)\r\n\(headers)\r\n\(body)"
  }
}
