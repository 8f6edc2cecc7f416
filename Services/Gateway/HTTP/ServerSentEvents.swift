import Foundation
import HTTPTypes
import Hummingbird
import NIOCore

/// The format of `text/event-stream`.
enum ServerSentEvent {
  /// Keeps proxies from closing a silent stream; clients ignore it.
  static let keepAlive = ByteBuffer(string: ": still here\n\n")

  /// An event with JSON data.
  static func event(_ name: String, id: String? = nil, _ data: some Encodable) throws -> ByteBuffer {
    var buffer = ByteBuffer(string: id.map { "id: \($0)\n" } ?? "")
    buffer.writeString("event: \(name)\ndata: ")
    buffer.writeBytes(try JSONOutput.encode(data))
    buffer.writeStaticString("\n\n")
    return buffer
  }

  /// An event that ends a stream early, in the shape in which OpenAI's clients raise it.
  static func error(_ error: APIError) throws -> ByteBuffer { try event("error", ErrorEnvelope(error)) }

  static let headers: HTTPFields = [
    .contentType: "text/event-stream; charset=utf-8", .cacheControl: "no-cache, no-transform", .accelBuffering: "no",
    // Noticing that the client leaves uses up the connection.
    .connection: "close",
  ]

  /// Writes an event for each record, and that the stream is alive while there is none; until the records end or `event` says so.
  ///
  /// - Returns: whether `event` has said so.
  @discardableResult
  static func write<Record: Sendable>(
    _ records: AsyncStream<Record>, to writer: inout any ResponseBodyWriter, keepAliveInterval: Duration,
    _ event: (Record) throws -> (ByteBuffer, isLast: Bool)
  ) async throws -> Bool {
    let (items, continuation) = AsyncStream<Record?>.makeStream()
    let forwarder = Task {
      for await record in records { continuation.yield(record) }
      continuation.finish()
    }
    let timer = Task {
      while (try? await Task.sleep(for: keepAliveInterval)) != nil { continuation.yield(nil) }
    }
    // Not in a group: the records' stream must be let go of at once when the client leaves.
    defer {
      forwarder.cancel()
      timer.cancel()
    }
    for await item in items {
      guard let record = item else {
        try await writer.write(keepAlive)
        continue
      }
      let (buffer, isLast) = try event(record)
      try await writer.write(buffer)
      if isLast { return true }
    }
    return false
  }
}
