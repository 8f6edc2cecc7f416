import Foundation
import Synchronization
import Testing

/// A server on loopback that answers every request with the bytes that a test wants: also what no gateway would send.
final class FakeServer: Sendable {
  /// What a client sent: the request line, headers and body as one text.
  typealias Answer = @Sendable (_ request: String) -> [UInt8]?

  let port: Int
  private let listener: Int32
  private let answer: Answer
  private let greeting: [UInt8]?
  private let seen = Mutex<[[UInt8]]>([])

  var address: String { "http://127.0.0.1:\(port)" }
  /// The requests that have come.
  var requests: [String] { rawRequests.map { String(decoding: $0, as: UTF8.self) } }
  /// The same as they came.
  var rawRequests: [[UInt8]] { seen.withLock { $0 } }

  /// Starts to listen. A request whose answer is nil gets none: its connection stays open until the client closes it.
  /// An empty answer closes it.
  ///
  /// - Parameter greeting: sent at once instead of an answer, whatever the client says.
  init(greeting: [UInt8]? = nil, _ answer: @escaping Answer = { _ in nil }) throws {
    self.answer = answer
    self.greeting = greeting
    listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let port = withUnsafeMutablePointer(to: &address) { [listener] pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic -> Bool in
        bind(listener, generic, size) == 0 && listen(listener, 16) == 0 && getsockname(listener, generic, &size) == 0
      }
    }
    try #require(port, "no free port")
    self.port = Int(UInt16(bigEndian: address.sin_port))
    Thread.detachNewThread { [self] in
      while case let connection = accept(listener, nil, nil), connection >= 0 {
        Thread.detachNewThread { self.serve(connection) }
      }
    }
  }

  /// Stops listening.
  func stop() {
    shutdown(listener, Int32(SHUT_RDWR))
    close(listener)
  }

  /// Runs `body` with a server.
  static func with<Result>(_ answer: @escaping Answer, _ body: (FakeServer) async throws -> Result) async throws
    -> Result
  {
    let server = try FakeServer(answer)
    defer { server.stop() }
    return try await body(server)
  }

  /// Runs `body` with a server that says `text` to every client.
  static func withGreeting<Result>(_ text: String, _ body: (FakeServer) async throws -> Result) async throws -> Result {
    let server = try FakeServer(greeting: Array(text.utf8))
    defer { server.stop() }
    return try await body(server)
  }

  private func serve(_ connection: Int32) {
    defer { close(connection) }
    var bytes: [UInt8] = [], buffer = [UInt8](repeating: 0, count: 64 << 10)
    if let greeting {
      Self.send(greeting, to: connection)
      while read(connection, &buffer, buffer.count) > 0 {}
      return
    }
    while !Self.isComplete(bytes) {
      let count = read(connection, &buffer, buffer.count)
      guard count > 0 else { return }
      bytes += buffer[..<count]
    }
    let request = String(decoding: bytes, as: UTF8.self)
    seen.withLock { $0.append(bytes) }
    guard let answer = answer(request) else {
      while read(connection, &buffer, buffer.count) > 0 {}
      return
    }
    Self.send(answer, to: connection)
    shutdown(connection, Int32(SHUT_WR))
    while read(connection, &buffer, buffer.count) > 0 {}
  }

  private static func send(_ bytes: [UInt8], to connection: Int32) {
    var sent = 0
    while sent < bytes.count {
      let count = bytes[sent...].withUnsafeBytes {
        Foundation.send(connection, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
      }
      guard count > 0 else { return }
      sent += count
    }
  }

  /// Whether the headers have come, and as much of a body as they announce.
  private static func isComplete(_ bytes: [UInt8]) -> Bool {
    guard let end = bytes.firstRange(of: Array("\r\n\r\n".utf8)) else { return false }
    let headers = String(decoding: bytes[..<end.lowerBound], as: UTF8.self).lowercased()
    if headers.contains("transfer-encoding: chunked") { return bytes.suffix(5) == Array("0\r\n\r\n".utf8) }
    let length = headers.split(separator: "\r\n").first { $0.hasPrefix("content-length:") }?.split(separator: " ").last
    return bytes.count - end.upperBound >= length.flatMap { Int($0) } ?? 0
  }

  // MARK: - Answers

  static func answer(_ status: String, _ contentType: String, _ body: [UInt8], headers: [String] = []) -> [UInt8] {
    let lines =
      ["HTTP/1.1 \(status)", "content-type: \(contentType)", "content-length: \(body.count)", "connection: close"]
      + headers
    return Array((lines.joined(separator: "\r\n") + "\r\n\r\n").utf8) + body
  }

  static func json(_ body: String, _ status: String = "200 OK", headers: [String] = []) -> [UInt8] {
    answer(status, "application/json", Array(body.utf8), headers: headers)
  }

  /// An error as a gateway sends it.
  static func error(_ status: String, _ message: String, headers: [String] = []) throws -> [UInt8] {
    let text = String(decoding: try JSONEncoder().encode(message), as: UTF8.self)
    return json(
      "{\"error\":{\"message\":\(text),\"type\":\"x\",\"param\":null,\"code\":\"x\"}}", status, headers: headers)
  }

  /// A stream of server-sent events.
  static func events(_ events: [(name: String, data: String)]) -> [UInt8] {
    let text = events.map { "event: \($0.name)\ndata: \($0.data)\n\n" }.joined()
    return answer("200 OK", "text/event-stream; charset=utf-8", Array(text.utf8))
  }
}
