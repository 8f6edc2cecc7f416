import ClusterCore
import Foundation
import Logging
import Observability
import ServiceLifecycle
import Transport
import Wire

/// Serves a stage to gateways: registers, takes tasks within its credits, answers, drains and leaves.
///
/// All that happens goes through one mailbox and is handled in order. Computing happens on threads of its own.
public actor Worker: Service {
  enum Event: Sendable {
    case link(LinkID, DealerEvent)
    /// The addresses of a gateway's name.
    case resolved(Int, Result<[String], NameResolutionError>)
    case tellCredits
    case progress(TaskReference, Body, [WireTensor])
    case finished(TaskReference, Result<StageOutput, Status>)
    case tick
    case drain(reason: String)
  }

  /// The worker's life.
  enum Phase: Equatable {
    case serving
    /// New tasks are refused; what still runs at `stopAt` is stopped, what has not stopped at `leaveAt` is left behind.
    case draining(reason: String, stopAt: Duration, leaveAt: Duration)
    case left
  }

  let stage: any Stage
  let configuration: WorkerConfiguration
  let time: any TimeSource
  let mailbox: AsyncStream<Event>.Continuation
  private let events: AsyncStream<Event>
  let metrics: WorkerMetrics
  var logger: Logger
  var links: [LinkID: WorkerLink] = [:]
  var lastLink = 0
  /// Of links that are open and not read yet.
  var newReaders: [LinkReader] = []
  var names = GatewayNames([], every: .zero)
  /// Shared by all links.
  var context: TransportContext?
  var isTellingCreditsLater = false
  var running: [TaskReference: RunningTask] = [:]
  var pending: [TaskReference: PendingAnswer] = [:]
  var phase = Phase.serving
  /// The standby model that a gateway wants loaded; after ``run()``: the process is to load it and to run a worker with
  /// it.
  public private(set) var nextModel: ModelIdentity?
  var tasksDone: UInt64 = 0
  var tasksFailed: UInt64 = 0
  var compute: ComputeThreads?
  private var hasRun = false
  /// Lets the next tick be waited for: ticks do not pile up in the mailbox of a worker that lags.
  private var tickHandled: AsyncStream<Void>.Continuation?
  private var healthWrittenAt: Duration?

  /// A worker that computes `stage`. Nothing is opened before `run`.
  ///
  /// - Parameter time: the clock of all that the worker does at certain times. (libzmq has its own.)
  public init(stage: any Stage, configuration: WorkerConfiguration, time: any TimeSource = SystemTime()) {
    self.stage = stage
    self.configuration = configuration
    self.time = time
    (events, mailbox) = AsyncStream.makeStream(of: Event.self)
    metrics = WorkerMetrics(stage: stage.name, credits: configuration.credits)
    logger = configuration.logger
    logger[metadataKey: "worker"] = "\(configuration.workerID)"
    logger[metadataKey: "stage"] = "\(stage.name.text)"
  }

  /// Serves until ``drain(reason:)`` or a graceful shutdown (SIGTERM) drains the worker, or the task is cancelled.
  ///
  /// - Throws: `WorkerConfigurationError`, or `TransportError` when an address or a key is no good. Lost connections
  ///   are not errors: the worker looks for its gateways for ever.
  public func run() async throws {
    precondition(!hasRun, "a worker runs once")
    hasRun = true
    try configuration.validate()
    try await withGracefulShutdownHandler {
      try await serve()
    } onGracefulShutdown: {
      self.drain(reason: "shutting down")
    }
  }

  /// Refuses new tasks, finishes what runs within the configured grace, and ends `run`.
  public nonisolated func drain(reason: String) { mailbox.yield(.drain(reason: reason)) }

  private func serve() async throws {
    do {
      try await openLinks()
    } catch {
      await leave()
      throw error
    }
    compute = ComputeThreads(count: configuration.credits, name: stage.name.text)
    logger.info(
      "worker started", metadata: ["gateways": "\(configuration.gateways)", "credits": "\(configuration.credits)"])
    await withDiscardingTaskGroup { group in
      let (ticks, tickHandled) = AsyncStream.makeStream(of: Void.self)
      self.tickHandled = tickHandled
      group.addTask { [mailbox, configuration, time] in
        var handled = ticks.makeAsyncIterator()
        while (try? await time.sleep(for: .milliseconds(configuration.tickMs))) != nil {
          mailbox.yield(.tick)
          guard await handled.next() != nil else { return }
        }
      }
      startReaders(in: &group)
      for await event in events {
        await handle(event)
        if phase == .left { break }
        startReaders(in: &group)
      }
      group.cancelAll()
    }
    await leave()
  }

  private func startReaders(in group: inout DiscardingTaskGroup) {
    for reader in newReaders { group.addTask { [mailbox] in await reader.run(mailbox) } }
    newReaders = []
  }

  private func handle(_ event: Event) async {
    switch event {
    case .link(let id, let event):
      // Of a link that is closed, nothing counts.
      guard links[id] != nil else { return }
      await handle(event, link: id)
      links[id]?.handled.yield()
    case .resolved(let index, let result): await take(result, of: index)
    case .tellCredits: isTellingCreditsLater = false
    case .progress(let reference, let body, let tensors): await report(reference, body, tensors)
    case .finished(let reference, let result): await finish(reference, result)
    case .tick: await tick()
    case .drain(let reason): await startDraining(reason: reason)
    }
    await continueDraining()
    await tellCredits()
    if case .tick = event { tickHandled?.yield() }
  }

  /// Stops everything at once; what was not answered by now is not.
  private func leave() async {
    phase = .left
    for task in running.values { task.context.cancel(Status(.unavailable, "the worker is leaving")) }
    compute?.stop()
    mailbox.finish()
    for id in linkIDs {
      links[id]?.handled.finish()
      await links[id]?.socket.close()
    }
    context = nil
    configuration.healthFile.map { HealthFile(path: $0).remove() }
    logger.info("worker left", metadata: ["tasks_done": "\(tasksDone)", "tasks_failed": "\(tasksFailed)"])
  }

  // MARK: - Time

  /// In the order in which they were opened.
  var linkIDs: [LinkID] { links.keys.sorted() }

  private func tick() async {
    let now = time.elapsed
    askForNames()
    for id in linkIDs { await lookAfter(link: id, now) }
    await closeUnwantedLinks()
    for reference in pending.keys.sorted(by: { $0.description < $1.description }) { await deliver(reference) }
    let registered = registeredLinks
    metrics.registeredGateways(registered)
    metrics.running(running.count)
    writeHealth(registered, now)
  }

  private func lookAfter(link id: LinkID, _ now: Duration) async {
    guard let link = links[id] else { return }
    let silence = now - link.heardAt
    switch link.session {
    case .disconnected: break
    case .unregistered(let retryAt): if now >= retryAt { await register(link: id) }
    case .redundant(let gateway):
      // Its other link is gone.
      if !hasSession(with: gateway) { await register(link: id) }
    case .registering(let since):
      if now - since >= .milliseconds(configuration.registrationRetryMs) { await register(link: id) }
    case .open(let registered):
      if silence >= .milliseconds(registered.leaseMs) {
        // The gateway has no session of ours any more, whether it is there or not.
        logger.warning("the gateway is silent, registering again", metadata: ["gateway": "\(link.endpoint)"])
        names.askSoon(now: now)
        await register(link: id)
      } else if link.saidAssists != assists {
        await register(link: id)
      } else if now >= link.heartbeatAt {
        links[id]?.heartbeatAt = now + .milliseconds(registered.heartbeatIntervalMs)
        await sendHeartbeat(registered, link: id, now)
      }
      await announceAdapters(link: id)
    }
    if let link = links[id], link.needsRenewal(now, retryMs: configuration.registrationRetryMs) {
      logger.warning("nothing is heard from the gateway, connecting anew", metadata: ["gateway": "\(link.endpoint)"])
      links[id]?.renewed = (now, (link.renewed?.count ?? 0) + 1)
      await link.socket.reconnect()
    }
    if silence > .milliseconds(link.leaseMs + configuration.orphanTimeoutMs) { abandonTasks(of: id) }
  }

  private func abandonTasks(of link: LinkID) {
    for task in running.values where task.link == link && !task.context.isCancelled {
      logger.warning("giving a task up: its gateway is gone", metadata: ["task": "\(task.reference)"])
      task.context.cancel(Status(.unavailable, "the gateway is gone"))
    }
    pending = pending.filter { $0.value.link != link }
  }

  private func writeHealth(_ registered: Int, _ now: Duration) {
    guard let path = configuration.healthFile else { return }
    if let healthWrittenAt, now - healthWrittenAt < .seconds(1) { return }
    healthWrittenAt = now
    let state: HealthReport.State = phase != .serving ? .draining : registered > 0 ? .ready : .connecting
    let report = HealthReport(
      stage: stage.name, state: state, running: running.count, registeredGateways: registered, time: time)
    do {
      try HealthFile(path: path).write(report)
    } catch {
      logger.warning("the health file cannot be written", metadata: ["path": "\(path)", "error": "\(error)"])
    }
  }

  // MARK: - Draining

  /// To load another model, running tasks are waited for without a limit; a shutdown comes before it.
  func startDraining(reason: String, thenLoading model: ModelIdentity? = nil) async {
    guard phase == .serving || (nextModel != nil && model == nil) else { return }
    nextModel = model
    let stopAt = model == nil ? time.elapsed + .milliseconds(configuration.drainGraceMs) : Self.never
    phase = .draining(reason: reason, stopAt: stopAt, leaveAt: stopAt + .milliseconds(configuration.stopWaitMs))
    logger.info("draining", metadata: ["reason": "\(reason)", "running": "\(running.count)"])
    for id in linkIDs where links[id]?.registered != nil {
      await send(Envelope(body: .draining(reason: reason)), link: id)
    }
  }

  private static let never = Duration.seconds(1 << 40)

  private func continueDraining() async {
    guard case .draining(let reason, let stopAt, let leaveAt) = phase else { return }
    let now = time.elapsed
    if now >= stopAt {
      for task in running.values { task.context.cancel(Status(.unavailable, "the worker is leaving: \(reason)")) }
    }
    let isDone = running.isEmpty && (pending.isEmpty || now >= stopAt)
    guard isDone || now >= leaveAt else { return }
    for task in running.values.sorted(by: { $0.reference.description < $1.reference.description }) {
      let status = Status(.unavailable, "the worker left before the step ended: \(reason)")
      await send(
        Envelope(
          inReplyTo: task.requestMessageID, task: task.reference, traceparent: task.context.traceparent,
          body: .failed(status)),
        link: task.link)
    }
    for id in linkIDs where links[id]?.registered != nil {
      await send(Envelope(body: .goodbye(reason: reason)), link: id)
    }
    phase = .left
  }
}
