import CLoad
import Foundation
import Wire

/// The context of all workers' sockets.
final class WorkerContext {
  let pointer: UnsafeMutableRawPointer
  let options: Options
  /// Keys of one worker, and the gateway's public one; nil: plaintext.
  let curve: (publicKey: String, secretKey: String, serverKey: String)?

  init(_ options: Options, keys: URL?) throws {
    guard let pointer = zmq_ctx_new() else { throw Failure("zmq_ctx_new failed") }
    zmq_ctx_set(pointer, ZMQ_MAX_SOCKETS, 60_000)
    zmq_ctx_set(pointer, ZMQ_IO_THREADS, 1)
    self.pointer = pointer
    self.options = options
    curve = try keys.map { keys in
      func key(_ file: String, _ name: String) throws -> String {
        let text = try String(contentsOf: keys.appending(path: file), encoding: .utf8)
        let line = text.split(separator: "\n").first { $0.hasPrefix(name + " ") }
        guard let line else { throw Failure("\(file) has no line \"\(name) KEY\"") }
        return String(line.dropFirst(name.count + 1))
      }
      return (
        try key("worker/worker.secret", "public"), try key("worker/worker.secret", "secret"),
        try key("worker/gateway.public", "public")
      )
    }
  }
}

/// A DEALER socket of a worker. Used by one thread.
final class WorkerSocket {
  private let socket: UnsafeMutableRawPointer
  private var lastMessageID: UInt64 = 0

  /// A message, or what is wrong with one.
  enum Received {
    case envelope(Envelope)
    case broken
  }

  init(_ endpoint: String, _ context: WorkerContext) throws {
    guard let socket = zmq_socket(context.pointer, ZMQ_DEALER) else {
      throw Failure("zmq_socket: \(String(cString: zmq_strerror(zmq_errno())))")
    }
    self.socket = socket
    for (option, value) in [(ZMQ_LINGER, 0), (ZMQ_SNDHWM, 1000), (ZMQ_RCVHWM, 1000), (ZMQ_RECONNECT_IVL, 200)] {
      var value = Int32(value)
      zmq_setsockopt(socket, option, &value, MemoryLayout<Int32>.size)
    }
    if let curve = context.curve {
      for (option, key) in [
        (ZMQ_CURVE_SERVERKEY, curve.serverKey), (ZMQ_CURVE_PUBLICKEY, curve.publicKey),
        (ZMQ_CURVE_SECRETKEY, curve.secretKey),
      ] {
        zmq_setsockopt(socket, option, key, key.utf8.count)
      }
    }
    guard zmq_connect(socket, endpoint) == 0 else {
      throw Failure("connect \(endpoint): \(String(cString: zmq_strerror(zmq_errno())))")
    }
  }

  deinit { zmq_close(socket) }

  /// Readable when ``hasMessage`` may have changed.
  var descriptor: Int32 {
    var descriptor: Int32 = -1, count = MemoryLayout<Int32>.size
    zmq_getsockopt(socket, ZMQ_FD, &descriptor, &count)
    return descriptor
  }

  /// Asking makes the descriptor silent until something happens: to be asked until it is false, also after sending.
  var hasMessage: Bool {
    var events: Int32 = 0, count = MemoryLayout<Int32>.size
    guard zmq_getsockopt(socket, ZMQ_EVENTS, &events, &count) == 0 else { return false }
    return events & Int32(ZMQ_POLLIN) != 0
  }

  /// Whether the message was queued.
  func send(_ envelope: Envelope) -> Bool {
    var envelope = envelope
    envelope.messageID = lastMessageID + 1
    guard let frames = try? WireCodec.sealed(WireCodec.encode(envelope)) else { return false }
    for (index, frame) in frames.enumerated() {
      let flags = ZMQ_DONTWAIT | (index + 1 < frames.count ? ZMQ_SNDMORE : 0)
      let sent = frame.withUnsafeBytes { zmq_send(socket, $0.baseAddress, $0.count, flags) }
      guard sent >= 0 else { return false }
    }
    lastMessageID += 1
    return true
  }

  /// The next message; nil: there is none.
  func receive() -> Received? {
    var frames: [FrameBuffer] = []
    while true {
      var message = zmq_msg_t()
      zmq_msg_init(&message)
      defer { zmq_msg_close(&message) }
      guard zmq_msg_recv(&message, socket, ZMQ_DONTWAIT) >= 0 else { return frames.isEmpty ? nil : .broken }
      frames.append(
        FrameBuffer(copying: UnsafeRawBufferPointer(start: zmq_msg_data(&message), count: zmq_msg_size(&message))))
      if zmq_msg_more(&message) == 0 { break }
    }
    guard let envelope = try? WireCodec.decode(WireCodec.unsealed(frames)) else { return .broken }
    return .envelope(envelope)
  }
}
