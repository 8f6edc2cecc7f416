import Foundation
import Synchronization

/// A server on loopback that does with each connection what a test says, byte by byte.
final class ScriptedServer: Sendable {
  /// A connection of a client, used by one thread. Reading blocks, for half a minute at most.
  struct Connection {
    let descriptor: Int32

    /// The header, up to its empty line, and as many bytes of body as it announces; nil: the client has closed the
    /// connection.
    func readRequest() -> (header: String, body: [UInt8])? {
      var bytes: [UInt8] = []
      let end = Array("\r\n\r\n".utf8)
      while bytes.count < 4 || Array(bytes.suffix(4)) != end {
        guard let byte = read(1)?.first else { return nil }
        bytes.append(byte)
      }
      let header = String(decoding: bytes, as: UTF8.self)
      let length = header.lowercased().split(separator: "\r\n").first { $0.hasPrefix("content-length: ") }.flatMap {
        Int($0.dropFirst(16))
      }
      var body: [UInt8] = []
      while body.count < length ?? 0 {
        guard let piece = read(1 << 16) else { return nil }
        body += piece
      }
      return (header, body)
    }

    /// Some bytes; nil when the client has closed the connection.
    func read(_ maxBytes: Int) -> [UInt8]? {
      var bytes = [UInt8](repeating: 0, count: maxBytes)
      let count = recv(descriptor, &bytes, maxBytes, 0)
      return count > 0 ? Array(bytes.prefix(count)) : nil
    }

    /// Sends all of `text`; false: the client has closed the connection.
    @discardableResult
    func write(_ text: String) -> Bool { write(Array(text.utf8)) }

    /// Sends all of `bytes`; false: the client has closed the connection.
    @discardableResult
    func write(_ bytes: [UInt8]) -> Bool {
      var sent = 0
      while sent < bytes.count {
        let count = bytes.withUnsafeBytes {
          send(descriptor, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
        }
        guard count > 0 else { return false }
        sent += count
      }
      return true
    }

    /// Waits until the client has closed the connection.
    func waitUntilClosed() -> Bool {
      while let bytes = read(1 << 16) { if bytes.isEmpty { return false } }
      return true
    }
  }

  /// Where it listens.
  let port: Int
  private let descriptor: Int32
  private let accepted = Count()

  private final class Count: Sendable {
    let value = Mutex(0)
  }

  /// Listens, and runs `serve` for each connection on a thread of its own; the connection is closed after it.
  init(_ serve: @escaping @Sendable (Connection) -> Void) {
    let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = in_addr_t(0x7f00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let status = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        bind(listener, address, length) | listen(listener, 16) | getsockname(listener, address, &length)
      }
    }
    precondition(status == 0, "cannot listen: \(errno)")
    port = Int(UInt16(bigEndian: address.sin_port))
    descriptor = listener
    Thread.detachNewThread { [accepted] in
      while true {
        let connection = accept(listener, nil, nil)
        guard connection >= 0 else { return }
        accepted.value.withLock { $0 += 1 }
        var timeout = timeval(tv_sec: 30, tv_usec: 0)
        setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        Thread.detachNewThread {
          serve(Connection(descriptor: connection))
          close(connection)
        }
      }
    }
  }

  deinit {
    shutdown(descriptor, Int32(SHUT_RDWR))
    close(descriptor)
  }

  /// An address on the server.
  func url(_ path: String = "/") -> String { "http://127.0.0.1:\(port)\(path)" }

  /// Connections that clients have opened.
  var connectionCount: Int { accepted.value.withLock { $0 } }
}
