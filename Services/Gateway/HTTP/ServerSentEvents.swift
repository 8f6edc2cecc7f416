import Foundation
import HTTPTypes
import Hummingbird
import NIOCore

/// The format of `text/event-stream`.
enum ServerSentEvent {
  /// Keeps proxies from closing a silent stream; clients ignore it.
  static let keepAlive = ByteBuffer(string: ": still here\n\n")

  /// An event with JSON data.
  static func event(_ name: String, _ data: some Encodable) throws -> ByteBuffer {
    var buffer = ByteBuffer(string: "event: \(name)\ndata: ")
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
}
