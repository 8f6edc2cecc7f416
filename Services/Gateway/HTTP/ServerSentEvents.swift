import AsyncAlgorithms
import Foundation
import GatewayAPI
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

  /// Events that are written together.
  static func joined(_ events: [ByteBuffer]) -> ByteBuffer {
    var buffer = ByteBuffer()
    for event in events { buffer.writeImmutableBuffer(event) }
    return buffer
  }

  /// An event that ends a stream early, in the shape in which OpenAI's clients raise it.
  static func error(_ error: APIError) throws -> ByteBuffer { try event("error", ErrorEnvelope(error)) }

  static let headers: HTTPFields = [
    .contentType: "text/event-stream; charset=utf-8", .cacheControl: "no-cache, no-transform", .accelBuffering: "no",
    // Noticing that the client leaves uses up the connection.
    .connection: "close",
  ]

  /// Writes what `event` makes of each record, and that the stream is alive while there is none; until the records end
  /// or `event` says so.
  ///
  /// - Returns: whether `event` has said so.
  @discardableResult
  static func write<Record: Sendable>(
    _ records: AsyncStream<Record>, to writer: inout any ResponseBodyWriter, keepAliveInterval: Duration,
    _ event: (Record) async throws -> (ByteBuffer?, isLast: Bool)
  ) async throws -> Bool {
    typealias Item = StreamItem<Record>
    let timer = AsyncTimerSequence(interval: keepAliveInterval, clock: .continuous).map { _ in Item.silence }
    // The timer has no end, so the records' end is an item as well. Returning lets go of both.
    for try await item in merge(chain(records.map { Item.record($0) }, [Item.end].async), timer) {
      let record: Record
      switch item {
      case .record(let next): record = next
      case .silence:
        try await writer.write(keepAlive)
        continue
      case .end: return false
      }
      let (buffer, isLast) = try await event(record)
      if let buffer { try await writer.write(buffer) }
      if isLast { return true }
    }
    return false
  }
}

/// What a stream of events is made of.
private enum StreamItem<Record: Sendable>: Sendable {
  case record(Record)
  /// Nothing happened for a while.
  case silence
  /// The records have ended.
  case end
}
