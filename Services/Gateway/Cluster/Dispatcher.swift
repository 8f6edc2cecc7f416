import Foundation
import Logging
import Scheduling
import ServiceLifecycle
import Transport
import Wire

/// Carries out what the scheduler decides: messages from workers and requests from clients go in as events, effects come out as
/// messages to workers and updates of jobs.
public actor Dispatcher: Service {
  struct Record {
    let job: ImageJob
    let traceparent: String?
    let updates: AsyncStream<JobUpdate>.Continuation
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
  var payloads = PayloadStore()
  var records: [JobID: Record] = [:]
  /// Why no more jobs are taken; nil: they are.
  private var closedReason: Failure?

  private let router: RouterSocket
  private let outgoing: AsyncStream<Outgoing>
  /// Unbounded, but never long: offers are bounded by credits, answers by what workers send.
  let outbox: AsyncStream<Outgoing>.Continuation
  private let clock = ContinuousClock()
  private let start: ContinuousClock.Instant

  /// A dispatcher for the workers that connect to `router`, which it closes at the end.
  public init(configuration: DispatcherConfiguration, router: RouterSocket, logger: Logger) {
    self.configuration = configuration
    self.router = router
    self.logger = logger
    self.start = clock.now
    scheduler = Scheduler(configuration: configuration.scheduling)
    registry = PeerRegistry(instance: RandomName.make())
    (outgoing, outbox) = AsyncStream.makeStream()
  }

  var now: Instant { Instant(sinceZero: clock.now - start) }

  /// Serves until cancelled, or until a graceful shutdown begins; jobs that are not done fail then, and workers are told to stop.
  public func run() async throws {
    // Of its own: it goes on while the rest is cancelled, until the last message has left.
    let sender = Task { for await message in outgoing { await send(message) } }
    await cancelWhenGracefulShutdown {
      await withTaskGroup(of: Void.self) { group in
        group.addTask { for await event in self.router.events { await self.receive(event) } }
        group.addTask { while (try? await Task.sleep(for: self.configuration.tickInterval)) != nil { await self.tick() } }
        await group.waitForAll()
      }
    }
    let reason = Failure(.unavailable, "the gateway is shutting down")
    close(because: reason)
    cancelAll(reason: reason)
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
    case .journal(let sequence, _): return .journalled(through: sequence)
    case .admitted: break
    case .job(let id, let event): tell(id, event)
    case .rejected(let id, let failure):
      records.removeValue(forKey: id)?.updates.finish()
      lastRejection = failure
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
      index: offer.index, inputs: inputs, resume: resume, checkpointIntervalSteps: configuration.checkpointIntervalSteps)
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

  private func tell(_ id: JobID, _ event: JobEvent) {
    guard let record = records[id] else { return }
    switch event {
    case .queued(let position, let secondsLeft): record.updates.yield(.queued(position: position, secondsLeft: secondsLeft))
    case .started(let stage, let attempt):
      logger.debug("a task has started", metadata: ["job": "\(id)", "stage": "\(stage.rawValue)", "attempt": "\(attempt)"])
      record.updates.yield(.started(stage))
    case .progressed(let step, let steps, let secondsLeft):
      record.updates.yield(.progressed(step: step, steps: steps, secondsLeft: secondsLeft))
    case .retrying(let stage, let failure):
      logger.warning("a task is tried again", metadata: ["job": "\(id)", "stage": "\(stage.rawValue)", "reason": "\(failure.message)"])
      record.updates.yield(.retrying(stage, reason: failure.message))
    case .held(let failure):
      logger.error("a job's end cannot be stored yet", metadata: ["job": "\(id)", "reason": "\(failure.message)"])
    case .finished(let output):
      let update: JobUpdate =
        if let image = payloads[output] {
          .finished(Picture(bytes: image.bytes, mediaType: "image/png", promptTokens: record.promptTokens))
        } else {
          .failed(Failure(.internal, "the picture of job \(id) is lost"))
        }
      end(id, update)
    case .failed(let failure):
      logger.info("a job has failed", metadata: ["job": "\(id)", "code": "\(failure.code)", "reason": "\(failure.message)"])
      end(id, .failed(failure))
    }
  }

  private func end(_ id: JobID, _ update: JobUpdate) {
    guard let record = records.removeValue(forKey: id) else { return }
    if case .failed = update { DispatcherMetrics.jobsFailed.increment() } else { DispatcherMetrics.jobsFinished.increment() }
    record.updates.yield(update)
    record.updates.finish()
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

  // MARK: Clients

  private var lastRejection: Failure?

  /// Admits jobs, all of them or none. A job is cancelled when the consumer of its updates is, or drops them.
  ///
  /// - Parameters:
  ///   - jobs: checked against the card of a model in `catalog`.
  ///   - traceparent: W3C trace context of the request.
  /// - Throws: RESOURCE_EXHAUSTED when the queue is full, UNAVAILABLE when no more jobs are taken.
  public func submit(_ jobs: [ImageJob], traceparent: String? = nil) throws(Failure) -> [JobHandle] {
    if let closedReason { throw closedReason }
    var handles: [JobHandle] = []
    var submissions: [JobSubmission] = []
    for job in jobs {
      let id = JobID("job-\(RandomName.make())")
      let (updates, continuation) = AsyncStream<JobUpdate>.makeStream()
      // Whoever waited has been cancelled, or has let go of the handle.
      continuation.onTermination = { [weak self] termination in
        guard case .cancelled = termination else { return }
        Task { await self?.cancel([id], reason: Failure(.cancelled, "nobody waits for the job any more")) }
      }
      records[id] = Record(job: job, traceparent: traceparent, updates: continuation)
      handles.append(JobHandle(id: id, job: job, updates: updates))
      submissions.append(
        JobSubmission(id: id, model: job.model, plan: job.plan, deadline: now + configuration.jobTimeout))
    }
    lastRejection = nil
    process(.jobsSubmitted(submissions))
    if let lastRejection { throw lastRejection }
    return handles
  }

  /// Ends jobs that nobody waits for any more; those that have ended are left alone.
  public func cancel(_ ids: [JobID], reason: Failure) {
    for id in ids { process(.jobCancelled(id, reason: reason)) }
  }

  /// Takes no more jobs; those that were admitted go on.
  public func close(because reason: Failure) {
    closedReason = reason
  }

  /// Ends every job.
  public func cancelAll(reason: Failure) {
    cancel(records.keys.sorted { $0.text < $1.text }, reason: reason)
  }

  /// The card to check a request against.
  public func card(named name: String?) throws(APIError) -> ModelCard {
    let status = scheduler.status(now: now)
    catalog.update(status)
    return try catalog.card(named: name, status: status)
  }

  /// The cluster as it is.
  public var status: ClusterStatus { scheduler.status(now: now) }

  /// Jobs that have not ended.
  public var jobCount: Int { records.count }

  /// Whether new jobs are taken.
  public var isOpen: Bool { closedReason == nil }

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
