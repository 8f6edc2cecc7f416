import Foundation
import NIOCore
import NIOPosix
import Testing

/// A TCP connection on which a test sends whatever bytes it likes.
struct RawClient {
  let channel: NIOAsyncChannel<ByteBuffer, ByteBuffer>

  /// Connects, runs `body`, and closes the connection.
  static func connect<Result>(
    _ port: Int,
    _ body: (inout NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator, NIOAsyncChannelOutboundWriter<ByteBuffer>)
      async throws -> Result
  ) async throws -> Result {
    let channel = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup).connect(
      host: "127.0.0.1", port: port
    ) {
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

  /// Sends `requests` one after the other, as many on a connection as the server allows, and returns the statuses of
  /// the answers. 0: the connection was closed without one.
  static func statuses(_ port: Int, _ requests: [String]) async throws -> [Int] {
    var statuses: [Int] = []
    while statuses.count < requests.count {
      try await connect(port) { inbound, outbound in
        var isFresh = true
        while statuses.count < requests.count {
          let request = requests[statuses.count]
          do { try await outbound.write(ByteBuffer(string: request)) } catch  where !isFresh { return }
          let answer = (try? await read(&inbound) { isWhole($0, isHead: request.hasPrefix("HEAD ")) }) ?? ""
          // The server had closed the connection after the answer before.
          if answer.isEmpty, !isFresh { return }
          statuses.append(Int(answer.split(separator: " ").dropFirst().first ?? "") ?? 0)
          isFresh = false
          if answer.isEmpty || answer.lowercased().contains("\r\nconnection: close\r\n") { return }
        }
      }
    }
    return statuses
  }

  /// Whether an answer with a `content-length` has arrived.
  private static func isWhole(_ answer: String, isHead: Bool) -> Bool {
    guard !isHead, let end = answer.range(of: "\r\n\r\n") else { return false }
    let lines = answer[..<end.lowerBound].lowercased().components(separatedBy: "\r\n")
    guard let length = lines.first(where: { $0.hasPrefix("content-length: ") }).flatMap({ Int($0.dropFirst(16)) })
    else { return false }
    return answer[end.upperBound...].utf8.count >= length
  }

  /// A request with a JSON body.
  static func post(_ body: String, path: String = "/v1/images/generations", headers: String = "") -> String {
    "POST \(path) HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: "
      + "\(body.utf8.count)\r\n\(headers)\r\n\(body)"
  }
}
