import CZeroMQ
import Foundation
import Wire

/// One ZeroMQ socket with its monitor. Not thread-safe: it belongs to one `SocketThread`.
final class SocketCore {
  /// A received message, without the routing id that a ROUTER puts in front.
  struct Received {
    var peer: PeerID?
    var frames: [FrameBuffer] = []
    var bytes = 0
    /// Set when the message was too large to keep.
    var error: WireError?
    /// The file descriptor of the connection it came by; nil for inproc.
    var connection: Int32?
    /// What the ZAP handler called the sender.
    var userID: String?
  }

  let socket: UnsafeMutableRawPointer
  private(set) var monitor: UnsafeMutableRawPointer?
  private let isRouter: Bool
  private let limits: WireLimits
  private var context: TransportContext?
  private var isClosed = false

  init(type: Int32, context: TransportContext, options: SocketOptions) throws(TransportError) {
    guard let socket = zmq_socket(context.pointer, type) else { throw .lastError("zmq_socket") }
    self.socket = socket
    self.context = context
    self.isRouter = type == ZMQ_ROUTER
    self.limits = options.limits
    do throws(TransportError) {
      try apply(options)
      try openMonitor(context)
    } catch {
      close()
      throw error
    }
  }

  deinit { close() }

  private func apply(_ options: SocketOptions) throws(TransportError) {
    try set(ZMQ_LINGER, options.lingerMs, "LINGER")
    try set(ZMQ_SNDHWM, options.sendHighWaterMarkMessages, "SNDHWM")
    try set(ZMQ_RCVHWM, options.receiveHighWaterMarkMessages, "RCVHWM")
    try set(ZMQ_TCP_KEEPALIVE, 1, "TCP_KEEPALIVE")
    try set(ZMQ_TCP_KEEPALIVE_IDLE, options.keepAliveIntervalSeconds, "TCP_KEEPALIVE_IDLE")
    try set(ZMQ_TCP_KEEPALIVE_INTVL, options.keepAliveIntervalSeconds, "TCP_KEEPALIVE_INTVL")
    try set(ZMQ_TCP_KEEPALIVE_CNT, 3, "TCP_KEEPALIVE_CNT")
    try set(ZMQ_TCP_MAXRT, options.unacknowledgedTimeoutMs, "TCP_MAXRT")
    try set(ZMQ_HANDSHAKE_IVL, options.handshakeTimeoutMs, "HANDSHAKE_IVL")
    try set(ZMQ_RECONNECT_IVL, options.reconnectIntervalMs, "RECONNECT_IVL")
    try set(ZMQ_RECONNECT_IVL_MAX, options.maxReconnectIntervalMs, "RECONNECT_IVL_MAX")
    try set(ZMQ_IPV6, options.ipv6 ? 1 : 0, "IPV6")
    try set(ZMQ_IMMEDIATE, 1, "IMMEDIATE")
    if isRouter { try set(ZMQ_ROUTER_MANDATORY, 1, "ROUTER_MANDATORY") }
    var maxFrameBytes = Int64(options.limits.maxFrameBytes)
    guard zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &maxFrameBytes, MemoryLayout<Int64>.size) == 0 else {
      throw .lastError("zmq_setsockopt(MAXMSGSIZE)")
    }
  }

  func set(_ option: Int32, _ value: Int, _ name: String) throws(TransportError) {
    var value = Int32(clamping: value)
    guard zmq_setsockopt(socket, option, &value, MemoryLayout<Int32>.size) == 0 else {
      throw .lastError("zmq_setsockopt(\(name))")
    }
  }

  func set(_ option: Int32, _ value: String, _ name: String) throws(TransportError) {
    guard zmq_setsockopt(socket, option, value, value.utf8.count) == 0 else {
      throw .lastError("zmq_setsockopt(\(name))")
    }
  }

  func bind(_ endpoint: String) throws(TransportError) -> String {
    guard zmq_bind(socket, endpoint) == 0 else {
      if zmq_errno() == EADDRINUSE { throw .addressInUse(endpoint: endpoint) }
      throw .lastError("bind \(endpoint)")
    }
    var text = [CChar](repeating: 0, count: 512)
    var count = text.count
    guard zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, &text, &count) == 0 else {
      throw .lastError("zmq_getsockopt(LAST_ENDPOINT)")
    }
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  func connect(_ endpoint: String) throws(TransportError) {
    guard zmq_connect(socket, endpoint) == 0 else { throw .lastError("connect \(endpoint)") }
  }

  /// Connects again to an endpoint that ZeroMQ may have given up; one it has not given up is left first, so that there
  /// is one connection in the end.
  func reconnect(_ endpoint: String) throws(TransportError) {
    try disconnect(endpoint)
    try connect(endpoint)
  }

  /// Leaves an endpoint, which ZeroMQ may have given up before.
  func disconnect(_ endpoint: String) throws(TransportError) {
    guard zmq_disconnect(socket, endpoint) == 0 || zmq_errno() == ENOENT else {
      throw .lastError("disconnect \(endpoint)")
    }
  }

  /// Closes the socket and, when nothing else uses it, ends the context, which waits for the linger time at most.
  func close() {
    guard !isClosed else { return }
    isClosed = true
    if let monitor {
      zmq_socket_monitor(socket, nil, 0)
      zmq_close(monitor)
    }
    monitor = nil
    zmq_close(socket)
    context = nil
  }
}

// MARK: - Messages

extension SocketCore {
  /// Queues a message, or throws and queues nothing.
  func send(_ frames: [FrameBuffer], to peer: PeerID? = nil) throws(TransportError) {
    if let peer {
      let sent = peer.bytes.withUnsafeBytes { zmq_send(socket, $0.baseAddress, $0.count, ZMQ_SNDMORE | ZMQ_DONTWAIT) }
      guard sent >= 0 else { throw sendError(peer) }
    }
    for (index, frame) in frames.enumerated() {
      let flags = ZMQ_DONTWAIT | (index + 1 < frames.count ? ZMQ_SNDMORE : 0)
      var message = zmq_msg_t()
      try Self.fill(&message, frame)
      guard zmq_msg_send(&message, socket, flags) >= 0 else {
        let error = sendError(peer)
        zmq_msg_close(&message)
        throw error
      }
    }
  }

  private func sendError(_ peer: PeerID?) -> TransportError {
    switch (zmq_errno(), peer) {
    case (EHOSTUNREACH, let peer?): .peerUnreachable(peer)
    case (EAGAIN, _): .wouldBlock
    default: .lastError("zmq_msg_send")
    }
  }

  /// Lets libzmq read the frame's own bytes; it is released when they have left.
  private static func fill(_ message: inout zmq_msg_t, _ frame: FrameBuffer) throws(TransportError) {
    let hint = Unmanaged.passRetained(frame).toOpaque()
    let result = frame.withUnsafeBytes { bytes in
      zmq_msg_init_data(
        &message, UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count,
        { _, hint in hint.map { Unmanaged<FrameBuffer>.fromOpaque($0).release() } }, hint)
    }
    guard result == 0 else {
      Unmanaged<FrameBuffer>.fromOpaque(hint).release()
      throw .lastError("zmq_msg_init_data")
    }
  }

  /// The next message, or nil when there is none. Frames beyond the limits are dropped as they come.
  func receive() -> Received? {
    var received = Received()
    var isFirst = true
    while true {
      let message = UnsafeMutablePointer<zmq_msg_t>.allocate(capacity: 1)
      zmq_msg_init(message)
      guard zmq_msg_recv(message, socket, ZMQ_DONTWAIT) >= 0 else {
        zmq_msg_close(message)
        message.deallocate()
        return nil
      }
      let hasMore = zmq_msg_more(message) != 0
      if isRouter && isFirst {
        received.peer = PeerID(
          bytes: Array(UnsafeRawBufferPointer(start: zmq_msg_data(message), count: zmq_msg_size(message))))
        zmq_msg_close(message)
        message.deallocate()
      } else {
        if received.frames.isEmpty && received.error == nil { Self.readProperties(of: message, into: &received) }
        keep(message, in: &received)
      }
      isFirst = false
      if !hasMore { return received }
    }
  }

  private static func readProperties(of message: UnsafeMutablePointer<zmq_msg_t>, into received: inout Received) {
    let connection = zmq_msg_get(message, ZMQ_SRCFD)
    received.connection = connection >= 0 ? connection : nil
    received.userID = zmq_msg_gets(message, "User-Id").map { String(cString: $0) }
  }

  private func keep(_ message: UnsafeMutablePointer<zmq_msg_t>, in received: inout Received) {
    received.bytes += zmq_msg_size(message)
    if received.error == nil {
      // One more than the envelope and its tensors: the seal.
      if received.frames.count == limits.maxFrames + 1 {
        received.error = .tooMany(field: "message: frames", count: limits.maxFrames + 2, limit: limits.maxFrames + 1)
      } else if received.frames.isEmpty && received.bytes > limits.maxEnvelopeBytes {
        received.error = .tooLarge(field: "envelope", bytes: received.bytes, limit: limits.maxEnvelopeBytes)
      } else if received.bytes > limits.maxMessageBytes {
        received.error = .tooLarge(field: "message", bytes: received.bytes, limit: limits.maxMessageBytes)
      } else {
        received.frames.append(Self.buffer(message))
        return
      }
      // The envelope stays: it tells whom to answer.
      received.frames.removeSubrange(min(1, received.frames.count)...)
    }
    zmq_msg_close(message)
    message.deallocate()
  }

  /// The message's own bytes, or a copy where libzmq put them at an address that no tensor element may have.
  private static func buffer(_ message: UnsafeMutablePointer<zmq_msg_t>) -> FrameBuffer {
    let bytes = UnsafeRawBufferPointer(start: zmq_msg_data(message), count: zmq_msg_size(message))
    if Int(bitPattern: bytes.baseAddress) % 16 != 0 {
      defer {
        zmq_msg_close(message)
        message.deallocate()
      }
      return FrameBuffer(copying: bytes)
    }
    nonisolated(unsafe) let owned = message
    return FrameBuffer(bytes) { _ in
      zmq_msg_close(owned)
      owned.deallocate()
    }
  }
}

// MARK: - Connections

extension SocketCore {
  /// What happened to a connection.
  enum ConnectionEvent {
    /// A peer has connected with the file descriptor `connection`; its handshake follows.
    case accepted(connection: Int32)
    /// The handshake is done.
    case established
    /// It is gone.
    case lost(connection: Int32)
    /// The peer was not let in, or did not let us in.
    case refused(reason: String)
  }

  private static let monitored =
    ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
    | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL
    | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL

  private func openMonitor(_ context: TransportContext) throws(TransportError) {
    let endpoint = "inproc://monitor-\(UInt(bitPattern: socket))"
    guard zmq_socket_monitor(socket, endpoint, Self.monitored) == 0 else { throw .lastError("zmq_socket_monitor") }
    guard let monitor = zmq_socket(context.pointer, ZMQ_PAIR) else { throw .lastError("zmq_socket") }
    self.monitor = monitor
    // Events must never be dropped: a lost one would leave a peer connected for ever.
    var unlimited: Int32 = 0
    zmq_setsockopt(monitor, ZMQ_RCVHWM, &unlimited, MemoryLayout<Int32>.size)
    zmq_setsockopt(monitor, ZMQ_LINGER, &unlimited, MemoryLayout<Int32>.size)
    guard zmq_connect(monitor, endpoint) == 0 else { throw .lastError("connect \(endpoint)") }
  }

  /// The next event of the monitor, or nil when there is none.
  func connectionEvent() -> ConnectionEvent? {
    guard let monitor else { return nil }
    var header = [UInt8](repeating: 0, count: 6)
    guard zmq_recv(monitor, &header, header.count, ZMQ_DONTWAIT) == 6 else { return nil }
    var address = [UInt8](repeating: 0, count: 1)
    _ = zmq_recv(monitor, &address, address.count, ZMQ_DONTWAIT)
    let (event, value) = header.withUnsafeBytes {
      (Int32($0.loadUnaligned(as: UInt16.self)), $0.loadUnaligned(fromByteOffset: 2, as: Int32.self))
    }
    switch event {
    case ZMQ_EVENT_ACCEPTED: return .accepted(connection: value)
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED: return .established
    case ZMQ_EVENT_DISCONNECTED: return .lost(connection: value)
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: return .refused(reason: "authentication failed (ZAP status \(value))")
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL: return .refused(reason: Self.protocolError(value))
    default: return .refused(reason: "handshake failed: \(String(cString: zmq_strerror(value)))")
    }
  }

  private static func protocolError(_ value: Int32) -> String {
    switch value {
    case ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: "handshake failed: wrong key"
    case ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH: "handshake failed: one side uses CURVE and the other does not"
    default: "handshake failed: protocol error 0x\(String(UInt32(bitPattern: value), radix: 16))"
    }
  }
}
