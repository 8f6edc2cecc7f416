import CZeroMQ
import ClusterCore
import Logging
import Wire

/// What happens at a DEALER.
public enum DealerEvent: Sendable {
  /// The connection stands and messages can be sent. The server knows nothing of earlier connections.
  case connected
  /// The connection is gone; what was sent may be lost. The socket connects again by itself.
  case disconnected
  /// The server did not let us in, or is not the one we trust. The socket tries again by itself.
  case refused(reason: String)
  /// A message arrived.
  case message(Envelope)
  /// A message arrived that cannot be understood. It has been counted and logged.
  case malformed(Malformed)
}

/// A DEALER socket that connects to one gateway, on a thread of its own.
public actor DealerSocket {
  /// What happens, in order; for one consumer. When it lags, the socket stops reading and the gateway is held up.
  public nonisolated let events: TransportEvents<DealerEvent>

  private nonisolated let thread: SocketThread
  /// The socket's thread.
  public nonisolated var unownedExecutor: UnownedSerialExecutor { thread.asUnownedSerialExecutor() }

  private let limits: WireLimits
  private let metrics = TransportMetrics(socket: "dealer")
  private var log: RateLimitedLog
  private var lastMessageID: UInt64 = 0
  private var isConnected = false
  private var endpoint: String
  /// inproc has no handshake and tells of no connections.
  private var isInproc: Bool { endpoint.hasPrefix("inproc:") }
  private let time: any TimeSource
  private let retryMs: Int
  private var retry: Task<Void, Never>?
  /// What happened to the connection; reported after the messages that came before.
  private var connectionEvents: [DealerEvent] = []

  /// Starts connecting; `events` tells when the connection stands.
  public init(_ configuration: DealerConfiguration) async throws(TransportError) {
    let options = configuration.options
    let thread = try SocketThread(name: "dealer")
    self.thread = thread
    limits = options.limits
    endpoint = configuration.endpoint
    retryMs = options.maxReconnectIntervalMs
    time = configuration.time
    log = RateLimitedLog(configuration.logger, time: configuration.time)
    events = TransportEvents(
      queue: EventQueue(
        capacityMessages: options.inboundCapacityMessages, capacityBytes: options.inboundCapacityBytes,
        resume: { thread.wake() }))
    try open(configuration)
  }

  deinit {
    retry?.cancel()
    events.queue.finish()
    thread.stop()
  }

  /// Sends `envelope`, numbering it when it has no number yet, and returns the number.
  ///
  /// - Throws: `wouldBlock` (not connected, or the gateway does not keep up), `unsendable`, `closed`.
  @discardableResult
  public func send(_ envelope: Envelope) throws(TransportError) -> UInt64 {
    guard let core = thread.core else { throw .closed }
    var envelope = envelope
    if envelope.messageID == 0 { envelope.messageID = lastMessageID + 1 }
    let frames = try encoded(envelope, limits)
    try core.send(frames)
    lastMessageID = max(lastMessageID, envelope.messageID)
    metrics.messagesOut.increment()
    metrics.bytesOut.increment(by: frames.reduce(0) { $0 + $1.count })
    return envelope.messageID
  }

  /// Drops the connection, if there is one, and connects anew: for a gateway that should have answered. A connection
  /// may be dead without either side's ZeroMQ knowing it: after a message that cannot be deciphered, libzmq 4.3.4
  /// sometimes reads no more and keeps it open.
  public func reconnect() {
    guard thread.core != nil else { return }
    noteLoss()
    connectAgain()
    thread.wake()
  }

  /// Connects to `endpoint` instead, where the same gateway is to be found now. What was sent and has not left is lost.
  ///
  /// - Throws: when it is no endpoint; then nothing has changed.
  public func move(to endpoint: String) throws(TransportError) {
    guard let core = thread.core else { throw .closed }
    _ = try Endpoint(endpoint)
    try core.disconnect(self.endpoint)
    self.endpoint = endpoint
    noteLoss()
    connectAgain()
    thread.wake()
  }

  /// Disconnects, waits for the linger time at most until what was sent has left, and ends `events`.
  public func close() {
    retry?.cancel()
    thread.core?.close()
    thread.core = nil
    events.queue.finish()
  }

  private func open(_ configuration: DealerConfiguration) throws(TransportError) {
    let endpoint = try Endpoint(configuration.endpoint)
    if case .plaintext(allowRemote: false) = configuration.security, !endpoint.isLocal {
      throw .plaintextRefused(endpoint: configuration.endpoint)
    }
    let context = try configuration.context.orNew(configuration.options)
    var options = configuration.options
    if configuration.endpoint.contains("[") { options.ipv6 = true }
    let core = try SocketCore(type: ZMQ_DEALER, context: context, options: options)
    do throws(TransportError) {
      if case .curve(let keys, let server) = configuration.security {
        try core.set(ZMQ_CURVE_SERVERKEY, server.z85, "CURVE_SERVERKEY")
        try core.set(ZMQ_CURVE_PUBLICKEY, keys.publicKey.z85, "CURVE_PUBLICKEY")
        try core.set(ZMQ_CURVE_SECRETKEY, keys.secretZ85, "CURVE_SECRETKEY")
      }
      try core.connect(configuration.endpoint)
    } catch {
      core.close()
      throw error
    }
    if isInproc { events.queue.push(.connected) }
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
      handle(received)
    }
    thread.wake()
  }

  private func handle(_ received: SocketCore.Received) {
    metrics.messagesIn.increment()
    metrics.bytesIn.increment(by: received.bytes)
    switch decoded(received, limits) {
    case .success(let envelope): events.queue.push(.message(envelope), bytes: received.bytes)
    case .failure(let error):
      metrics.malformed.increment()
      log.warning("received a message that cannot be understood", ["error": "\(error)"])
      events.queue.push(.malformed(Malformed(error: error, header: header(of: received, limits))))
    }
  }

  private func readConnectionEvents(_ core: SocketCore) {
    while let event = core.connectionEvent() {
      switch event {
      case .accepted: break
      case .established:
        isConnected = true
        connectionEvents.append(.connected)
      case .lost:
        noteLoss()
        connectAgainLater()
      case .refused(let reason):
        metrics.refused.increment()
        log.warning("the gateway did not let us in", ["reason": "\(reason)"])
        // Said of a connection that stood, it means a message that could not be deciphered: nothing comes by it any
        // more.
        noteLoss()
        connectionEvents.append(.refused(reason: reason))
        connectAgainLater()
      }
    }
  }

  private func noteLoss() {
    guard isConnected else { return }
    isConnected = false
    connectionEvents.append(.disconnected)
  }

  /// ZeroMQ gives an endpoint up for good when authentication fails (the key may be put on the gateway's list later) or
  /// the other side breaks the protocol (bytes may be damaged on the way).
  private func connectAgainLater() {
    guard retry == nil else { return }
    retry = Task { [weak self, time, retryMs] in
      guard (try? await time.sleep(for: .milliseconds(retryMs))) != nil else { return }
      await self?.connectAgain()
    }
  }

  private func connectAgain() {
    retry?.cancel()
    retry = nil
    guard !isConnected, let core = thread.core else { return }
    do throws(TransportError) {
      try core.reconnect(endpoint)
      if isInproc { connectionEvents.append(.connected) }
    } catch {
      log.warning("cannot connect again", ["error": "\(error)"])
      connectAgainLater()
    }
  }

  private func deliverConnectionEvents() {
    for event in connectionEvents { events.queue.push(event) }
    connectionEvents = []
  }
}
