import ClusterCore
import Logging
import Wire

/// What every socket is set to. ZeroMQ's own defaults wait without limit almost everywhere.
public struct SocketOptions: Sendable {
  /// How long closing waits for queued messages to leave.
  public var lingerMs = 1000
  /// Messages queued per peer before `send` throws `wouldBlock`; ZeroMQ counts messages, not bytes.
  public var sendHighWaterMarkMessages = 64
  /// Messages that ZeroMQ reads ahead per peer.
  public var receiveHighWaterMarkMessages = 16
  /// Messages read ahead for the consumer of `events`.
  public var inboundCapacityMessages = 256
  /// Bytes read ahead for the consumer of `events`; one message may exceed it.
  public var inboundCapacityBytes = 64 << 20
  /// The kernel asks a silent TCP peer this often whether it is there. Not ZMTP's pings: libzmq 4.3.4 aborts the
  /// process when one is due on a connection that has just broken while its queue is full (assertion `!_io_error`).
  public var keepAliveIntervalSeconds = 5
  /// A TCP connection whose peer acknowledges nothing for this long is closed.
  public var unacknowledgedTimeoutMs = 15_000
  /// A connection whose handshake takes longer is closed.
  public var handshakeTimeoutMs = 5000
  /// The first pause before connecting again.
  public var reconnectIntervalMs = 100
  /// The pause doubles up to this.
  public var maxReconnectIntervalMs = 5000
  /// Threads that move bytes and encrypt; used when the socket makes its own context.
  public var ioThreads = 1
  /// Whether to use IPv6 too; endpoints with IPv6 addresses in brackets do so anyway.
  public var ipv6 = false
  /// What messages may hold; the largest frame is also ZeroMQ's MAXMSGSIZE.
  public var limits = WireLimits()

  /// The defaults.
  public init() {}
}

/// How a ROUTER knows its peers.
public enum RouterSecurity: Sendable {
  /// No encryption and no authentication: on loopback, ipc and inproc only, unless `allowRemote`.
  case plaintext(allowRemote: Bool = false)
  /// CURVE: the server proves its key, and only clients whose public key is in `allowList` get in.
  case curve(CurveKeyPair, allowList: CurveAllowList)
}

/// How a DEALER knows its server.
public enum DealerSecurity: Sendable {
  /// No encryption and no authentication: on loopback, ipc and inproc only, unless `allowRemote`.
  case plaintext(allowRemote: Bool = false)
  /// CURVE: the client proves its key, and talks only to the holder of `server`.
  case curve(CurveKeyPair, server: CurvePublicKey)
}

/// How a gateway listens.
public struct RouterConfiguration: Sendable {
  /// Where to listen: `tcp://*:5555`, `ipc:///run/qwen/gateway.sock`; `tcp://127.0.0.1:*` takes any free port.
  public var endpoints: [String]
  /// Who gets in.
  public var security: RouterSecurity
  /// Times and limits.
  public var options = SocketOptions()
  /// Shared by sockets that meet over inproc; nil: the socket makes its own.
  public var context: TransportContext?
  /// Paces the log. libzmq has its own clock for what ``options`` say.
  public var time: any TimeSource = SystemTime()
  /// Where refused connections and undecodable messages are logged.
  public var logger = Logger(label: "transport.router")

  /// Listens at `endpoints`.
  public init(endpoints: [String], security: RouterSecurity) {
    self.endpoints = endpoints
    self.security = security
  }
}

/// How a worker connects.
public struct DealerConfiguration: Sendable {
  /// The gateway's address; a host name is resolved again on every reconnection, to one of its addresses.
  public var endpoint: String
  /// Whom to trust.
  public var security: DealerSecurity
  /// Times and limits.
  public var options = SocketOptions()
  /// Shared by sockets that meet over inproc; nil: the socket makes its own.
  public var context: TransportContext?
  /// Paces the log, and what connects again after a refusal or a loss. libzmq has its own clock for what ``options``
  /// say.
  public var time: any TimeSource = SystemTime()
  /// Where refused connections and undecodable messages are logged.
  public var logger = Logger(label: "transport.dealer")

  /// Connects to `endpoint`.
  public init(endpoint: String, security: DealerSecurity) {
    self.endpoint = endpoint
    self.security = security
  }
}
