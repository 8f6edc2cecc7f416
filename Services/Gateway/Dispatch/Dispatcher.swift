import ClusterCore
import GatewayAPI
import GatewayPipelines
import Journal
import Logging
import Observability
import Scheduling
import ServiceLifecycle
import Tracing
import Transport
import Wire

/// Carries out what the scheduler decides: messages from workers and requests from clients go in as events, effects
/// come out as messages to workers, entries of the journal and updates of jobs.
///
/// What it knows lives in four parts: the jobs and their listeners, the workers and their sessions, the payloads, and
/// the way to the journal. This file is the loop around them.
public actor Dispatcher: Service {
  let configuration: DispatcherConfiguration
  /// What clients can ask for.
  public nonisolated let pipelines: PipelineRegistry
  /// What is written into finished files.
  let provenance: ResultProvenance
  /// Judges requests and images; nil: none are judged.
  let reviewer: (any ContentReviewer)?
  /// Rewrites prompts; nil: requests cannot ask for that.
  nonisolated let enhancer: (any PromptEnhancer)?
  let logger: Logger
  let time: any TimeSource
  let journal: JournalLink
  var scheduler: Scheduler
  var jobs: JobRegistry
  var workers: WorkerDirectory
  var payloads: PayloadStore
  var outbox: Outbox
  /// Results that are being completed off this actor. Their workers are done with them and do not report them any
  /// more; to the scheduler they still run.
  var completions: [AttemptID: (worker: WorkerID, task: Task<Void, Never>)] = [:]
  /// For metrics and traces.
  var observer: DispatchObserver
  /// The other owners of the journal; nil: it is this gateway's alone.
  var replicas: Replicas?
  /// Counts the requests that tenants may send; nil: they may send any number.
  var requestRates: (any RequestRates)?
  /// Why no more jobs are accepted; nil: they are.
  var closedReason: Status?
  /// What ends each wait for the end of a job.
  var polls: [Int: Task<Void, Never>] = [:]
  var lastPoll = 0
  /// What was last expected of the jobs, and when.
  var lastEstimates: (at: Instant, jobs: [ImageJobID: JobEstimate])?
  /// Called when there may be something new to deliver.
  var onDelivery: (@Sendable () -> Void)?
  /// Of the newest job, in milliseconds since 1970.
  var lastSubmittedAtMs: Int64 = 0

  /// A dispatcher for the workers that connect to `router`, with the jobs of `journal` that have not ended. It closes
  /// both at the end.
  ///
  /// - Throws: when the journal cannot be read.
  public init(
    configuration: DispatcherConfiguration, pipelines: PipelineRegistry = .standard,
    provenance: ResultProvenance = .none, reviewer: (any ContentReviewer)? = nil,
    enhancer: (any PromptEnhancer)? = nil, journal: any JournalStore, router: RouterSocket,
    time: any TimeSource = SystemTime(), logger: Logger
  ) async throws(Status) {
    self.configuration = configuration
    self.pipelines = pipelines
    self.provenance = provenance
    self.reviewer = reviewer
    self.enhancer = enhancer
    self.logger = logger
    self.time = time
    self.journal = JournalLink(journal)
    let isShared = journal is any SharedJournalStore
    var scheduling = configuration.scheduling
    // A job may be adopted as long after its owner's end.
    if isShared { scheduling.strayGrace = configuration.journalLease + scheduling.adoptionGrace }
    scheduler = Scheduler(
      configuration: scheduling, run: UInt32(min(journal.run, Int64(Scheduler.maxRun))),
      owner: isShared ? journal.epoch : 0)
    jobs = JobRegistry(epoch: journal.epoch, isDurable: journal.isDurable)
    workers = WorkerDirectory(instance: RandomName.make(), catalog: ModelCatalog(pipelines: pipelines))
    payloads = PayloadStore(
      lastID: try await self.journal.read { store throws(JournalError) in try store.lastPayloadID() })
    outbox = Outbox(router)
    observer = DispatchObserver(
      stages: pipelines.pipelines.flatMap(\.stages), drainSeconds: configuration.drainTarget.seconds,
      tracer: InstrumentationSystem.activeTracer)
    replicas = (journal as? any SharedJournalStore).map { Replicas($0, logger: logger) }
    try await restore()
  }

  var now: Instant { Instant(sinceZero: time.elapsed) }

  /// Serves until cancelled, or until a graceful shutdown begins. The next run resumes unfinished jobs if the journal
  /// is a file; those that a client waits for on a connection fail.
  ///
  /// - Throws: `JournalError.fenced` when the jobs of a shared journal were taken over by another gateway.
  public func run() async throws {
    // Unstructured: they keep running while the rest is cancelled, until the last message is sent.
    let sender = Task { for await _ in outbox.signals { await sendWaiting() } }
    let listener = Task { for await outcome in journal.outcomes { note(outcome) } }
    let messages = Task { await takeOwnerMessages() }
    let events = outbox.router.events
    await cancelWhenGracefulShutdown {
      await withTaskGroup(of: Void.self) { group in
        group.addTask {
          while case let received = await events.next(64), !received.isEmpty { await self.receive(received) }
        }
        group.addTask {
          while (try? await self.time.sleep(for: self.configuration.tickInterval)) != nil { await self.tick() }
        }
        guard await self.replicas != nil else { return await group.waitForAll() }
        group.addTask { await self.keepLease() }
        group.addTask { await self.tendReplicas() }
        await self.waitForFence()
        group.cancelAll()
      }
    }
    await end(because: Status(.unavailable, "the gateway is shutting down"))
    messages.cancel()
    await listener.value
    outbox.finish()
    await sender.value
    await outbox.router.close()
    if replicas?.fate == .fenced { throw JournalError.fenced(epoch: jobs.epoch) }
  }

  private func tick() {
    checkLease()
    if let replicas, replicas.tendedAt.map({ now - $0 >= .seconds(1) }) ?? true { replicas.kick.yield() }
    process(.tick)
    let status = scheduler.status(now: now)
    workers.update(status)
    recordMetrics(status)
  }

  // MARK: Effects

  /// Hands an event to the scheduler and carries out what follows, before anything else happens.
  func process(_ event: Event) {
    guard !hasRetired else { return }
    var events = [event]
    while !events.isEmpty {
      observe(events[0])
      for effect in scheduler.step(events.removeFirst(), now: now) {
        observe(effect)
        if let consequence = carryOut(effect) { events.append(consequence) }
      }
    }
  }

  private func carryOut(_ effect: Effect) -> Event? {
    switch effect {
    case .offer(let offer, let worker):
      guard isSuspended else { return send(offer, to: worker) }
      replicas?.heldOffers[offer.attempt] = (offer, worker)
    case .cancel(let attempt, let worker, let reason):
      guard replicas?.heldOffers.removeValue(forKey: attempt) == nil else {
        return .taskFailed(attempt, by: worker, Status(.cancelled, reason))
      }
      cancel(attempt, at: worker, reason: reason)
    case .assistantLost(let attempt, let worker, let reason): tellLoss(of: attempt, at: worker, reason: reason)
    case .switchModel(let worker, let model): switchModel(of: worker, to: model)
    case .journal(let sequence, let entry): return write(entry, sequence)
    case .admitted(let id): jobs.admit(id)
    case .rejected(let id, let status): jobs.reject(id, status)
    case .disowned(let id):
      jobs.reject(id, Status(.unavailable, "another gateway has taken the job over", retryAfterSeconds: 1))
    case .claim(let attempts, let worker): claim(attempts, at: worker)
    case .image(let id, let event): notify(id, event)
    case .worker(let id, let event): note(id, event)
    case .release(let payload): payloads.remove(payload)
    }
    return nil
  }

  /// Hands an entry to the journal. Returns the refusal if it cannot even be made.
  private func write(_ entry: JournalEntry, _ sequence: JournalSequence) -> Event? {
    do throws(Status) {
      journal.write(try entry.changes(jobs, payloads, nowMs: time.unixMs), as: sequence)
      return nil
    } catch {
      logger.error("a journal entry could not be made", metadata: ["reason": "\(error.message)"])
      return .journalRefused(sequence, error)
    }
  }

  private func note(_ outcome: JournalWriter.Outcome) {
    switch outcome {
    case .durable(let number): process(.journalled(through: JournalSequence(number)))
    case .refused(_, .fenced): fence()
    case .refused(let number, let error):
      logger.error("the journal refused an entry", metadata: ["reason": "\(error)"])
      process(.journalRefused(JournalSequence(number), Status(error)))
    }
  }

  private func notify(_ id: ImageJobID, _ event: ImageJobEvent) {
    guard let image = jobs.images[id] else { return }
    let job = image.reference.job, nowMs = time.unixMs
    func notify(_ update: ImageUpdate) { jobs.notify(id, update, atMs: nowMs) }
    switch event {
    case .queued(let position, let secondsLeft, let secondsToStart):
      notify(.queued(position: position, secondsLeft: secondsLeft, secondsToStart: secondsToStart))
    case .started(let stage, let isMain, let attempt):
      logger.debug("task started", metadata: ["job": "\(id)", "stage": "\(stage)", "attempt": "\(attempt)"])
      notify(.started(stage, isMain: isMain))
      if isMain { announceStart(of: job) }
    case .progressed(let step, let steps, let secondsLeft):
      notify(.progressed(step: step, steps: steps, secondsLeft: secondsLeft))
      announceProgress(of: job)
    case .retrying(let stage, let status):
      logger.warning("retrying a task", metadata: ["job": "\(id)", "stage": "\(stage)", "reason": "\(status.message)"])
      notify(.retrying(stage, reason: status.message))
    case .held(let status):
      logger.error("the end of a job cannot be written", metadata: ["job": "\(id)", "reason": "\(status.message)"])
    case .finished(let output):
      if let tensor = payloads[output] {
        notify(.finished(EncodedImage(bytes: tensor.bytes, promptTokens: image.promptTokens)))
      } else {
        notify(.failed(Status(.internal, "the result of job \(id) is lost")))
      }
    case .failed(let status):
      logger.info(
        "job failed", metadata: ["job": "\(id)", "code": "\(status.code.name)", "reason": "\(status.message)"])
      notify(.failed(status))
    }
    // The end of a job is in the journal, and so are its deliveries.
    if event.isTerminal, jobs.jobs[job] == nil { onDelivery?() }
  }

  // MARK: Start and end

  /// Resumes the jobs that an earlier run has left. Those that cannot be read any more fail, without affecting the
  /// others.
  private func restore() async throws(Status) {
    let (stored, damaged) = try await journal.read { store throws(JournalError) in try store.openJobs() }
    var failed = damaged
    var submissions: [RestoredImageJob] = []
    for (record, images) in stored {
      do throws(Status) {
        let restored = try RestoredJob(record, images, pipelines: pipelines, &payloads, now: now, nowMs: time.unixMs)
        jobs.insert(restored.job, images: restored.images)
        submissions += restored.submissions
      } catch {
        failed.append(DamagedJob(number: record.number, damage: error.message))
      }
    }
    if !failed.isEmpty { try await fail(failed) }
    guard !submissions.isEmpty else { return }
    logger.info(
      "resuming jobs of an earlier run", metadata: ["jobs": "\(jobs.jobs.count)", "images": "\(submissions.count)"])
    process(.restored(submissions))
  }

  func fail(_ damaged: [DamagedJob]) async throws(Status) {
    let atMs = time.unixMs
    for job in damaged {
      logger.error("a job of an earlier run is damaged and fails", metadata: ["reason": "\(job.damage)"])
    }
    try await journal.read { store throws(JournalError) in try store.fail(damaged, code: .dataLoss, atMs: atMs) }
  }

  /// Ends this run: jobs that the next run can resume stay as they are, the others fail. Waits until the journal has
  /// written everything.
  private func end(because reason: Status) async {
    close(because: reason)
    // The next run has them made again.
    for completion in completions.values { completion.task.cancel() }
    completions = [:]
    for (id, job) in jobs.jobs {
      if job.isAdmitted, !jobs.isAttached(job) { jobs.finishListeners(of: id) } else { cancel(id, reason: reason) }
    }
    finishRemoteListeners()
    await journal.stop()
    if let link = replicas?.link, !hasRetired {
      // The next run, or another gateway, need not wait for the lease to be over.
      _ = await link.call { store throws(JournalError) in try store.releaseLease() }
    }
  }

  // MARK: The cluster as it is

  /// The models that workers have brought.
  public var catalog: ModelCatalog { workers.catalog }

  /// The card to check a request against.
  public func card(named name: String?) throws(APIError) -> ModelCard {
    updateCatalog()
    return try workers.catalog.servedCard(named: name, status: status)
  }

  /// Takes note of which models are complete now. What every worker does is asked for only when it can matter.
  func updateCatalog() {
    if workers.mayComplete { workers.update(status) }
  }

  /// Pipelines of the model that ``card(named:)`` leaves out, since a stage of them has never had a ready worker.
  public func pendingPipelines(of card: ModelCard) -> [PipelineName] {
    workers.catalog.pendingPipelines(of: card.model, status)
  }

  /// The cluster as it is.
  public var status: ClusterStatus { scheduler.status(now: now) }

  /// Images that have not ended.
  public var openImageCount: Int { jobs.images.count }

  /// The tenants that the operator has named, instead of those named before.
  public func setTenants(_ tenants: [Tenant]) { process(.tenantsChanged(tenants)) }

  /// What workers said of themselves: as they registered, at their last heartbeat, and of their adapters.
  public var workerDetails: [WorkerID: (register: Register, heartbeat: Heartbeat?, adapters: [ServedAdapter])] {
    workers.sessions.values.reduce(into: [:]) { $0[$1.id] = ($1.register, $1.heartbeat, $1.adapters) }
  }
}

/// Names that cannot be guessed and never repeat.
enum RandomName {
  /// 128 random bits in hexadecimal.
  static func make() -> String {
    (0..<2).map { _ in
      let text = String(UInt64.random(in: .min ... .max), radix: 16)
      return String(repeating: "0", count: 16 - text.count) + text
    }.joined()
  }
}
