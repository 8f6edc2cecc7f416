import Foundation
import Journal
import Logging
import OrderedCollections
import Scheduling
import ServiceLifecycle
import Transport
import Wire

/// Carries out what the scheduler decides: messages from workers and requests from clients go in as events, effects come out as
/// messages to workers and updates of jobs.
public actor Dispatcher: Service {
  /// A picture that the scheduler knows as a job of its own.
  struct Record {
    let picture: PictureReference
    let job: ImageJob
    let traceparent: String?
    var promptTokens = 0
  }

  struct Outgoing {
    var envelope: Envelope
    var worker: WorkerID?
    var peer: PeerID
  }

  /// The models that workers have brought.
  public internal(set) var catalog = ModelCatalog()

  let configuration: DispatcherConfiguration
  let logger: Logger
  var scheduler: Scheduler
  var registry: PeerRegistry
  var payloads: PayloadStore
  var records: [JobID: Record] = [:]
  var openJobs: OrderedDictionary<String, OpenJob> = [:]
  /// Open jobs by the key under which they were sent.
  var keys: [TenantKey: String] = [:]
  var lastListener: UInt64 = 0
  let journal: JournalStore
  var writer: JournalWriter?
  let journalOutcomes: AsyncStream<JournalWriter.Outcome>
  let journalReport: AsyncStream<JournalWriter.Outcome>.Continuation
  /// Why no more jobs are taken; nil: they are.
  var closedReason: Failure?

  private let router: RouterSocket
  private let outgoing: AsyncStream<Outgoing>
  /// Unbounded, but never long: offers are bounded by credits, answers by what workers send.
  let outbox: AsyncStream<Outgoing>.Continuation
  private let clock = ContinuousClock()
  private let start: ContinuousClock.Instant

  /// A dispatcher for the workers that connect to `router`, with the jobs of `journal` that have not ended. It closes both at the end.
  ///
  /// - Throws: when the journal cannot be read, or holds what this program does not understand.
  public init(configuration: DispatcherConfiguration, journal: JournalStore, router: RouterSocket, logger: Logger) async throws(Failure) {
    self.configuration = configuration
    self.journal = journal
    self.router = router
    self.logger = logger
    self.start = clock.now
    scheduler = Scheduler(configuration: configuration.scheduling, run: UInt32(min(journal.run, Int64(Scheduler.maxRun))))
    registry = PeerRegistry(instance: RandomName.make())
    (outgoing, outbox) = AsyncStream.makeStream()
    (journalOutcomes, journalReport) = AsyncStream.makeStream()
    let report = journalReport
    let lastID = try await JournalReader(store: journal).read { store throws(JournalError) in try store.lastPayloadID() }
    payloads = PayloadStore(lastID: lastID)
    writer = JournalWriter(journal) { report.yield($0) }
    try await restore()
  }

  var now: Instant { Instant(sinceZero: clock.now - start) }

  /// Serves until cancelled, or until a graceful shutdown begins. Jobs that are not done then go on with the next run, if the journal is
  /// a file; those which somebody waits for on a connection fail.
  public func run() async throws {
    // Of its own: it goes on while the rest is cancelled, until the last message has left.
    let sender = Task { for await message in outgoing { await send(message) } }
    let listener = Task { for await outcome in journalOutcomes { note(outcome) } }
    await cancelWhenGracefulShutdown {
      await withTaskGroup(of: Void.self) { group in
        group.addTask { for await event in self.router.events { await self.receive(event) } }
        group.addTask { while (try? await Task.sleep(for: self.configuration.tickInterval)) != nil { await self.tick() } }
        await group.waitForAll()
      }
    }
    let reason = Failure(.unavailable, "the gateway is shutting down")
    await end(because: reason)
    await listener.value
    outbox.finish()
    await sender.value
    await router.close()
  }

  private func send(_ message: Outgoing) async {
    do throws(TransportError) {
      try await router.send(message.envelope, to: message.peer)
    } catch {
      logger.warning(
        "a message could not be sent",
        metadata: ["message": "\(message.envelope.body.name)", "peer": "\(message.peer)", "error": "\(error)"])
      guard let worker = message.worker else { return }
      switch (error, message.envelope.task?.attemptID) {
      case (.peerUnreachable, _), (.closed, _): process(.workerLeft(worker, reason: "\(error)"))
      case (.unsendable, .some(let attempt)): process(.taskFailed(attempt, by: worker, Failure(.invalidArgument, "\(error)")))
      case (_, .some(let attempt)): process(.taskFailed(attempt, by: worker, Failure(.unavailable, "\(error)")))
      case (_, nil): break
      }
    }
  }

  private func tick() {
    process(.tick)
    catalog.update(scheduler.status(now: now))
    DispatcherMetrics.record(scheduler.status(now: now), payloadBytes: payloads.byteCount)
  }

  // MARK: Effects

  /// Hands an event to the scheduler and carries out what follows, before anything else happens.
  func process(_ event: Event) {
    var events = [event]
    while !events.isEmpty {
      for effect in scheduler.step(events.removeFirst(), now: now) {
        if let consequence = carryOut(effect) { events.append(consequence) }
      }
    }
  }

  private func carryOut(_ effect: Effect) -> Event? {
    switch effect {
    case .offer(let offer, let worker): return send(offer, to: worker)
    case .cancel(let attempt, let worker, let reason):
      send(.cancel(reason: String(reason.prefix(500))), task: TaskReference(attempt), to: worker)
    case .journal(let sequence, let entry): return write(entry, sequence)
    case .admitted(let id): admit(id)
    case .rejected(let id, let failure): reject(id, failure)
    case .job(let id, let event): tell(id, event)
    case .worker(let id, let event): note(id, event)
    case .release(let payload): payloads.remove(payload)
    }
    return nil
  }

  private func send(_ offer: Offer, to worker: WorkerID) -> Event? {
    guard let record = records[offer.job] else {
      return .taskFailed(offer.attempt, by: worker, Failure(.internal, "job \(offer.job) is not known"))
    }
    let inputs = offer.inputs.compactMap { payloads[$0] }
    let resume = offer.resume.flatMap { checkpoint in payloads[checkpoint.latents].map { (checkpoint.completedSteps, $0) } }
    if record.job.plan.tasks[offer.index].stage == .denoiser {
      records[offer.job]?.promptTokens = inputs.reduce(0) { $0 + $1.shape[0] }
    }
    let (body, tensors) = record.job.request(
      index: offer.index, inputs: inputs, resume: resume, checkpointInterval: configuration.checkpointInterval)
    send(
      body, task: TaskReference(offer.attempt), to: worker, deadlineUnixMs: offer.deadline.map(unixMs),
      traceparent: record.traceparent, tensors: tensors)
    return nil
  }

  /// The wall clock's time of an instant, in milliseconds since 1970.
  private func unixMs(_ instant: Instant) -> UInt64 {
    UInt64(max(1, (Date().timeIntervalSince1970 + (instant - now) / .seconds(1)) * 1000))
  }

  func send(
    _ body: Body, task: TaskReference? = nil, inReplyTo: UInt64? = nil, to worker: WorkerID, deadlineUnixMs: UInt64? = nil,
    traceparent: String? = nil, tensors: [WireTensor] = []
  ) {
    guard let session = registry.session(worker) else { return }
    let envelope = Envelope(
      inReplyTo: inReplyTo, task: task, deadlineUnixMs: deadlineUnixMs, traceparent: traceparent, body: body, tensors: tensors)
    outbox.yield(Outgoing(envelope: envelope, worker: worker, peer: session.peer))
  }

  private func note(_ id: WorkerID, _ event: WorkerEvent) {
    let name = registry.session(id)?.register.workerID ?? "\(id)"
    switch event {
    case .joined: logger.info("a worker has joined", metadata: ["worker": "\(name)"])
    case .gone(let reason):
      logger.info("a worker is gone", metadata: ["worker": "\(name)", "reason": "\(reason)"])
      registry.remove(id)
    case .quarantined(_, let reason):
      logger.warning("a worker pauses", metadata: ["worker": "\(name)", "reason": "\(reason)"])
    }
  }

  // MARK: The cluster as it is

  /// The card to check a request against.
  public func card(named name: String?) throws(APIError) -> ModelCard {
    let status = scheduler.status(now: now)
    catalog.update(status)
    return try catalog.card(named: name, status: status)
  }

  /// The cluster as it is.
  public var status: ClusterStatus { scheduler.status(now: now) }

  /// Pictures that have not ended.
  public var jobCount: Int { records.count }

  /// Whether new jobs are taken.
  public var isOpen: Bool { closedReason == nil }

  /// The tenants that the operator has named, instead of those named before.
  public func setTenants(_ tenants: [Tenant]) { process(.tenantsChanged(tenants)) }

  /// What workers said of themselves: as they registered, and at their last heartbeat.
  public var workerDetails: [WorkerID: (register: Register, heartbeat: Heartbeat?)] {
    registry.sessions.values.reduce(into: [:]) { $0[$1.id] = ($1.register, $1.heartbeat) }
  }
}

/// Names that nobody can guess and that never repeat.
enum RandomName {
  /// 128 random bits in hexadecimal.
  static func make() -> String {
    (0..<2).map { _ in
      let text = String(UInt64.random(in: .min ... .max), radix: 16)
      return String(repeating: "0", count: 16 - text.count) + text
    }.joined()
  }
}
