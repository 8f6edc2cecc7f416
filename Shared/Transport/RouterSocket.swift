import CZeroMQ
import Logging
import Wire

/// A message that arrived at a ROUTER.
public struct Inbound: Sendable {
  /// Whom to answer.
  public var peer: PeerID
  /// The name of the sender's key in the allow-list; nil without CURVE.
  public var authenticatedName: String?
  /// The message.
  public var envelope: Envelope
}

/// A message that arrived and cannot be understood.
public struct Malformed: Sendable, Equatable {
  /// What is wrong; `error.status` is what to answer.
  public var error: WireError
  /// What could be read of the message nevertheless.
  public var header: WireCodec.Header
}

/// What happens at a ROUTER.
public enum RouterEvent: Sendable {
  /// A message arrived.
  case message(Inbound)
  /// A message arrived that cannot be understood. It has been counted and logged.
  case malformed(PeerID, Malformed)
  /// The connection of a peer that had sent something is gone. (Over inproc that cannot be seen.)
  case disconnected(PeerID)
}

/// A message to send.
public struct Outbound: Sendable {
  /// Whom it is for.
  public var peer: PeerID
  /// The message.
  public var envelope: Envelope

  /// A message for `peer`.
  public init(_ envelope: Envelope, to peer: PeerID) {
    self.envelope = envelope
    self.peer = peer
  }
}

/// A ROUTER socket that listens for workers, on a thread of its own.
public actor RouterSocket {
  /// What happens, in order; for one consumer. When it lags, the socket stops reading and the peers are held up.
  public nonisolated let events: TransportEvents<RouterEvent>
  /// Where the socket listens, with the ports that the system chose.
  public private(set) var endpoints: [String] = []

  private nonisolated let thread: SocketThread
  /// The socket's thread.
  public nonisolated var unownedExecutor: UnownedSerialExecutor { thread.asUnownedSerialExecutor() }

  private let limits: WireLimits
  private let allowList: CurveAllowList?
  private let metrics = TransportMetrics(socket: "router")
  private var log: RateLimitedLog
  private var lastMessageID: UInt64 = 0
  /// File descriptors of open connections, those of peers who have sent something, and whose they are.
  private var openConnections: Set<Int32> = []
  private var connections: [PeerID: Int32] = [:]
  private var peers: [Int32: PeerID] = [:]
  /// Peers whose connection is gone but whose last messages may still be there to read.
  private var lostPeers: [PeerID] = []

  /// Listens at all endpoints of `configuration`, or at none and throws.
  public init(_ configuration: RouterConfiguration) async throws(TransportError) {
    let options = configuration.options
    let thread = try SocketThread(name: "router")
    self.thread = thread
    limits = options.limits
    log = RateLimitedLog(configuration.logger, time: configuration.time)
    events = TransportEvents(
      queue: EventQueue(
        capacityMessages: options.inboundCapacityMessages, capacityBytes: options.inboundCapacityBytes,
        resume: { thread.wake() }))
    if case .curve(_, let list) = configuration.security { allowList = list } else { allowList = nil }
    try open(configuration)
  }

  deinit {
    events.queue.finish()
    thread.stop()
  }

  /// Sends `envelope`, numbering it when it has no number yet, and returns the number.
  ///
  /// - Throws: `peerUnreachable`, `wouldBlock` (the peer does not keep up), `unsendable`, `closed`.
  @discardableResult
  public func send(_ envelope: Envelope, to peer: PeerID) throws(TransportError) -> UInt64 {
    guard let core = thread.core else { throw .closed }
    var envelope = envelope
    if envelope.messageID == 0 { envelope.messageID = lastMessageID + 1 }
    let frames = try encoded(envelope, limits)
    try core.send(frames, to: peer)
    lastMessageID = max(lastMessageID, envelope.messageID)
    metrics.messagesOut.increment()
    metrics.bytesOut.increment(by: frames.reduce(0) { $0 + $1.count })
    return envelope.messageID
  }

  /// Sends messages one after the other, as ``send(_:to:)`` does, and returns what was wrong with those that could not
  /// be sent, by their places.
  public func send(_ messages: [Outbound]) -> [Int: TransportError] {
    var errors: [Int: TransportError] = [:]
    for (place, message) in messages.enumerated() {
      do throws(TransportError) { try send(message.envelope, to: message.peer) } catch { errors[place] = error }
    }
    return errors
  }

  /// Stops listening, waits for the linger time at most until what was sent has left, and ends `events`.
  public func close() {
    thread.core?.close()
    thread.core = nil
    events.queue.finish()
  }

  private func open(_ configuration: RouterConfiguration) throws(TransportError) {
    guard !configuration.endpoints.isEmpty else {
      throw .invalidEndpoint("", reason: "a router needs at least one endpoint")
    }
    let context = try configuration.context.orNew(configuration.options)
    var options = configuration.options
    if configuration.endpoints.contains(where: { $0.contains("[") }) { options.ipv6 = true }
    let core = try SocketCore(type: ZMQ_ROUTER, context: context, options: options)
    do throws(TransportError) {
      if case .curve(let keys, let allowList) = configuration.security {
        try ZAPHandler.start(
          in: context, allowList: allowList,
          log: RateLimitedLog(configuration.logger, time: configuration.time))
        try core.set(ZMQ_ZAP_DOMAIN, ZAPHandler.domain, "ZAP_DOMAIN")
        try core.set(ZMQ_CURVE_SERVER, 1, "CURVE_SERVER")
        try core.set(ZMQ_CURVE_SECRETKEY, keys.secretZ85, "CURVE_SECRETKEY")
      }
      for text in configuration.endpoints {
        let endpoint = try Endpoint(text)
        if case .plaintext(allowRemote: false) = configuration.security, !endpoint.isLocal {
          throw .plaintextRefused(endpoint: text)
        }
        endpoints.append(try core.bind(text))
      }
    } catch {
      core.close()
      throw error
    }
    thread.core = core
    thread.onReadable = { [weak self] in self?.assumeIsolated { $0.readable() } }
  }

  private func readable() {
    guard let core = thread.core else { return }
    readConnectionEvents(core)
    // After some messages the jobs of the actor get their turn.
    for _ in 0..<64 {
      guard events.queue.hasSpace() else {
        thread.isReading = false
        return
      }
      guard let received = core.receive() else {
        deliverConnectionEvents()
        thread.isReading = true
        return
      }
      handle(received, core)
    }
    thread.wake()
  }

  private func handle(_ received: SocketCore.Received, _ core: SocketCore) {
    guard let peer = received.peer else { return }
    metrics.messagesIn.increment()
    metrics.bytesIn.increment(by: received.bytes)
    remember(peer, connection: received.connection, core)
    var authenticatedName: String?
    if let allowList {
      guard let user = received.userID, let key = try? CurvePublicKey(z85: user), let name = allowList.name(of: key)
      else {
        log.warning(
          "dropped a message of a client whose key has been revoked",
          ["peer": "\(peer)", "key": "\(received.userID ?? "")"])
        metrics.refused.increment()
        return
      }
      authenticatedName = name
    }
    switch decoded(received, limits) {
    case .success(let envelope):
      let inbound = Inbound(peer: peer, authenticatedName: authenticatedName, envelope: envelope)
      events.queue.push(.message(inbound), bytes: received.bytes)
    case .failure(let error):
      metrics.malformed.increment()
      log.warning("received a message that cannot be understood", ["peer": "\(peer)", "error": "\(error)"])
      let malformed = Malformed(error: error, header: header(of: received, limits))
      events.queue.push(.malformed(peer, malformed))
    }
  }

  /// Notes which connection belongs to a peer.
  ///
  /// The system gives the number of a closed connection to the next one, so a number alone says little. But all events
  /// up to the beginning of the peer's connection are there before its first message is: after they are read, a number
  /// that is not open means that the peer is gone already, and one that still belongs to another peer means that the
  /// other one is gone. (Should a peer be taken for lost that is not: its next message is answered as a stranger's, and
  /// it registers again.)
  private func remember(_ peer: PeerID, connection: Int32?, _ core: SocketCore) {
    guard let connection, connections[peer] == nil else { return }
    readConnectionEvents(core)
    connections[peer] = connection
    guard openConnections.contains(connection) else {
      lostPeers.append(peer)
      return
    }
    if let other = peers[connection] { lostPeers.append(other) }
    peers[connection] = peer
  }

  private func readConnectionEvents(_ core: SocketCore) {
    while let event = core.connectionEvent() {
      switch event {
      case .accepted(let connection): openConnections.insert(connection)
      case .established: break
      case .lost(let connection):
        openConnections.remove(connection)
        if let peer = peers.removeValue(forKey: connection) { lostPeers.append(peer) }
      case .refused(let reason):
        metrics.refused.increment()
        log.warning("refused a connection", ["reason": "\(reason)"])
      }
    }
  }

  /// When all messages are read, those of lost peers are too.
  private func deliverConnectionEvents() {
    for peer in lostPeers {
      connections[peer] = nil
      events.queue.push(.disconnected(peer))
    }
    lostPeers = []
  }
}

func encoded(_ envelope: Envelope, _ limits: WireLimits) throws(TransportError) -> [FrameBuffer] {
  do throws(WireError) {
    return WireCodec.sealed(try WireCodec.encode(envelope, limits: limits))
  } catch {
    throw .unsendable(error)
  }
}

func decoded(_ received: SocketCore.Received, _ limits: WireLimits) -> Result<Envelope, WireError> {
  if let error = received.error { return .failure(error) }
  do throws(WireError) {
    return .success(try WireCodec.decode(try WireCodec.unsealed(received.frames), limits: limits))
  } catch {
    return .failure(error)
  }
}

func header(of received: SocketCore.Received, _ limits: WireLimits) -> WireCodec.Header {
  received.frames.first.map { WireCodec.header(of: $0, limits: limits) } ?? WireCodec.Header()
}
