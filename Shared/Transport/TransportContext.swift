import CZeroMQ

/// A ZeroMQ context: the I/O threads, and the space in which inproc names are known.
public final class TransportContext: @unchecked Sendable {
  // @unchecked Sendable: libzmq's contexts may be used by all threads, and the pointer never changes.
  let pointer: UnsafeMutableRawPointer

  /// A context with `ioThreads` threads that move bytes and encrypt.
  public init(ioThreads: Int = 1) throws(TransportError) {
    guard let pointer = zmq_ctx_new() else { throw .lastError("zmq_ctx_new") }
    self.pointer = pointer
    zmq_ctx_set(pointer, ZMQ_IO_THREADS, Int32(clamping: max(1, ioThreads)))
  }

  /// Waits, for the sockets' linger time at most, until what was sent has left. Every socket keeps its context, so all
  /// are closed.
  deinit {
    while zmq_ctx_term(pointer) != 0, zmq_errno() == EINTR {}
  }
}

extension Optional<TransportContext> {
  /// The shared context, or a new one.
  func orNew(_ options: SocketOptions) throws(TransportError) -> TransportContext {
    if let self { return self }
    return try TransportContext(ioThreads: options.ioThreads)
  }
}

extension TransportError {
  /// The error that libzmq's last call on this thread met.
  static func lastError(_ operation: String) -> TransportError {
    let code = zmq_errno()
    return .system(operation: operation, code: code, reason: String(cString: zmq_strerror(code)))
  }
}
