/// Names one connection of a ROUTER socket. A peer that connects again gets another one.
public struct PeerID: Sendable, Hashable {
  /// ZeroMQ's routing id: 1–255 bytes.
  public let bytes: [UInt8]

  /// The peer with the routing id `bytes`.
  public init(bytes: [UInt8]) { self.bytes = bytes }
}

extension PeerID: CustomStringConvertible {
  /// Hexadecimal.
  public var description: String {
    bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
  }
}
