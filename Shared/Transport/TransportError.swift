import Wire

/// Why a socket cannot do what it was asked to.
public enum TransportError: Error, Sendable, Equatable {
  /// The endpoint is not one that this project uses.
  case invalidEndpoint(String, reason: String)
  /// Messages would cross the network in the clear.
  case plaintextRefused(endpoint: String)
  /// Somebody else listens there.
  case addressInUse(endpoint: String)
  /// A call of libzmq failed.
  case system(operation: String, code: Int32, reason: String)
  /// No such peer is connected.
  case peerUnreachable(PeerID)
  /// Nothing more can be queued: the peer does not keep up, or no peer is connected.
  case wouldBlock
  /// The socket is closed.
  case closed
  /// The message breaks the wire's rules.
  case unsendable(WireError)
  /// A key file or directory cannot be used.
  case key(path: String, reason: String)
}

extension TransportError: CustomStringConvertible {
  /// One sentence for people.
  public var description: String {
    switch self {
    case .invalidEndpoint(let endpoint, let reason): "endpoint \"\(endpoint)\": \(reason)"
    case .plaintextRefused(let endpoint):
      "endpoint \"\(endpoint)\": reaches beyond this machine, so it needs CURVE keys (or plaintext must be allowed "
        + "explicitly)"
    case .addressInUse(let endpoint): "endpoint \"\(endpoint)\": the address is in use"
    case .system(let operation, let code, let reason): "\(operation): \(reason) (error \(code))"
    case .peerUnreachable(let peer): "peer \(peer): not connected"
    case .wouldBlock: "the send queue is full or no peer is connected"
    case .closed: "the socket is closed"
    case .unsendable(let error): "message cannot be sent: \(error)"
    case .key(let path, let reason): "\(path): \(reason)"
    }
  }
}
