import CZeroMQ
import Foundation

/// Answers libzmq's question whether the client with a given CURVE key may connect (ZeroMQ RFC 27), on a thread of its
/// own.
///
/// libzmq asks at a fixed inproc name, so there is one handler per context. It must listen before the first connection
/// is made.
enum ZAPHandler {
  static let domain = "qwenimage"
  private static let endpoint = "inproc://zeromq.zap.01"

  /// Answers until the context ends.
  static func start(
    in context: TransportContext, allowList: CurveAllowList, log: RateLimitedLog
  ) throws(TransportError) {
    guard let socket = zmq_socket(context.pointer, ZMQ_REP) else { throw .lastError("zmq_socket") }
    var linger: Int32 = 0
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, MemoryLayout<Int32>.size)
    guard zmq_bind(socket, endpoint) == 0 else {
      let error: TransportError =
        zmq_errno() == EADDRINUSE ? .addressInUse(endpoint: endpoint) : .lastError("bind \(endpoint)")
      zmq_close(socket)
      throw error
    }
    // The thread is the only user of the socket from here on. It does not keep the context: the context's end ends the
    // thread.
    nonisolated(unsafe) let owned = socket
    let thread = Thread {
      var log = log
      while let request = receive(owned) {
        let reply = answer(request, allowList, &log)
        guard send(reply, owned) else { break }
      }
      zmq_close(owned)
    }
    thread.name = "zap"
    thread.stackSize = 1 << 19
    thread.start()
  }

  /// Frames of a request: version, request id, domain, address, routing id, mechanism, credentials.
  private static func answer(_ request: [[UInt8]], _ allowList: CurveAllowList, _ log: inout RateLimitedLog)
    -> [[UInt8]]
  {
    let text = { (frame: [UInt8]) in String(decoding: frame, as: UTF8.self) }
    func reply(_ code: String, _ reason: String, user: String = "") -> [[UInt8]] {
      [
        Array("1.0".utf8), request.count > 1 ? request[1] : [], Array(code.utf8), Array(reason.utf8), Array(user.utf8),
        [],
      ]
    }
    guard request.count == 7, text(request[0]) == "1.0", text(request[2]) == domain, text(request[5]) == "CURVE",
      request[6].count == 32
    else { return reply("500", "unexpected request") }
    var encoded = [CChar](repeating: 0, count: 41)
    guard zmq_z85_encode(&encoded, request[6], 32) != nil,
      let key = try? CurvePublicKey(
        z85: String(decoding: encoded.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self))
    else { return reply("500", "no key") }
    guard allowList.name(of: key) != nil else {
      log.warning(
        "refused a client whose key is not in the allow-list", ["address": "\(text(request[3]))", "key": "\(key)"])
      return reply("400", "unknown key")
    }
    return reply("200", "OK", user: key.z85)
  }

  private static func receive(_ socket: UnsafeMutableRawPointer) -> [[UInt8]]? {
    var frames: [[UInt8]] = []
    var message = zmq_msg_t()
    zmq_msg_init(&message)
    defer { zmq_msg_close(&message) }
    while true {
      if zmq_msg_recv(&message, socket, 0) < 0 {
        if zmq_errno() == EINTR { continue }
        return nil
      }
      frames.append(Array(UnsafeRawBufferPointer(start: zmq_msg_data(&message), count: zmq_msg_size(&message))))
      if zmq_msg_more(&message) == 0 { return frames }
    }
  }

  private static func send(_ frames: [[UInt8]], _ socket: UnsafeMutableRawPointer) -> Bool {
    for (index, frame) in frames.enumerated() {
      while zmq_send(socket, frame, frame.count, index + 1 < frames.count ? ZMQ_SNDMORE : 0) < 0 {
        guard zmq_errno() == EINTR else { return false }
      }
    }
    return true
  }
}
