import ClusterCore
import Journal
import Logging
import Scheduling

/// What a dispatcher knows of the other owners of a shared journal, and what they want of it.
struct Replicas {
  /// Jobs that one owner may watch for its clients.
  static let maxWatches = 8192
  /// How often an owner that watches a job says so again.
  static let watchInterval = Duration.seconds(5)
  /// An owner that has not said so for this long does not watch the job any more.
  static let watchLimit = Duration.seconds(30)
  /// An owner that has not answered for this long is looked up again.
  static let answerLimit = Duration.seconds(3)
  /// How long an answer of other owners is waited for; then the journal's word is all there is.
  static let patience = Duration.milliseconds(500)
  /// Jobs that are adopted in one transaction, so that the others get some as well.
  static let adoptionCount = 64

  /// Why this dispatcher owns no jobs any more.
  enum Fate: Sendable {
    /// Another owner has ended its lease.
    case fenced
    /// It has given its jobs away.
    case handedOver
  }

  struct WatchKey: Hashable {
    let job: String
    let owner: Int64
  }

  /// A job of this owner that another one watches.
  struct Watch {
    let number: UInt64
    let task: Task<Void, Never>
    var expiresAt: Instant
    var sentNumber: UInt64
  }

  let link: ReplicaLink
  /// The epochs of the other owners whose leases hold.
  var others: Set<Int64> = []
  /// What they have said of themselves.
  var notes: [Int64: OwnerNote] = [:]
  /// When the lease was last extended.
  var renewedAt: Instant?
  /// Whether the lease may be over by now, since the journal does not answer.
  var isSuspended = false
  /// Offers that wait for the end of that.
  var heldOffers: [AttemptID: (offer: Offer, worker: WorkerID)] = [:]
  var fate: Fate?
  /// Whether jobs are being adopted, or handed over.
  var isAdopting = false
  var isLeaving = false
  /// Jobs of other owners that clients of this one follow.
  var remote: [String: RemoteJob] = [:]
  /// Called when no client waits for a remote job any more that would end with it.
  var onDetached: (@Sendable () -> Void)?
  var watches: [WatchKey: Watch] = [:]
  var lastWatch: UInt64 = 0
  /// Where the answers to questions go.
  var questions: [UInt64: AsyncStream<ReplicaMessage>.Continuation] = [:]
  var lastQuestion: UInt64 = 0
  /// There may be something to adopt or to look up.
  let kicks: AsyncStream<Void>
  let kick: AsyncStream<Void>.Continuation
  /// Ends when this owner is fenced.
  let fence: AsyncStream<Never>
  let endFence: AsyncStream<Never>.Continuation
  var tendedAt: Instant?

  init(_ store: any SharedJournalStore, logger: Logger) {
    link = ReplicaLink(store, logger: logger)
    (kicks, kick) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    (fence, endFence) = AsyncStream.makeStream()
  }

  /// Images of remote jobs that end when their clients leave.
  var attachedImageCount: Int {
    remote.values.reduce(0) { $0 + ($1.isAttached && $1.hasListeners ? $1.images.count { !$0.isTerminal } : 0) }
  }
}

extension Dispatcher {
  /// What admits no job now, apart from the queue.
  var admissionRefusal: Status? {
    if let closedReason { return closedReason }
    guard replicas?.isSuspended == true else { return nil }
    return Status(.unavailable, "the journal cannot be reached, so no jobs are accepted", retryAfterSeconds: 5)
  }

  /// Whether the journal has not answered for so long that the jobs may be another gateway's by now.
  public var isSuspended: Bool { replicas?.isSuspended ?? false }

  /// The other owners of the journal whose leases hold.
  package var otherOwners: Set<Int64> { replicas?.others ?? [] }
  /// Jobs of others that clients of this gateway follow.
  package var followedJobCount: Int { replicas?.remote.count ?? 0 }

  /// Whether nothing that happens is of consequence any more: the jobs are others'.
  var hasRetired: Bool { replicas?.fate != nil }

  // MARK: The lease

  /// Extends the lease again and again, until the jobs are others'.
  func keepLease() async {
    guard let link = replicas?.link else { return }
    let interval = min(configuration.journalLease / 3, .seconds(1))
    replicas?.renewedAt = now
    DispatcherMetrics.prepareOwner()
    while !Task.isCancelled, !hasRetired {
      let began = now
      let note = ownNote().encoded()
      switch await link.call({ store throws(JournalError) in try store.renewLease(note: note) }) {
      case .success(let owners):
        DispatcherMetrics.LeaseRenewal.extended.counter.increment()
        noteRenewal(owners, at: began)
      case .failure(.fenced): return fence()
      case .failure(let error):
        DispatcherMetrics.LeaseRenewal.failed.counter.increment()
        logger.warning("the lease could not be extended", metadata: ["reason": "\(error)"])
        checkLease()
      }
      guard (try? await time.sleep(for: interval)) != nil else { return }
    }
  }

  private func noteRenewal(_ owners: [JournalOwner], at began: Instant) {
    guard !hasRetired else { return }
    let epoch = jobs.epoch
    // One that ends adopts nothing any more.
    let others = Set(
      owners.lazy.filter { $0.epoch != epoch && OwnerNote($0.note)?.isLeaving != true }.map(\.epoch))
    if others != replicas?.others {
      logger.info(
        "gateways of this journal", metadata: ["others": "\(others.sorted())", "own": "\(epoch)"])
    }
    DispatcherMetrics.record(owners: others.count + 1)
    replicas?.others = others
    replicas?.renewedAt = began
    noteLoad(of: owners.filter { $0.epoch != epoch })
    for (id, job) in replicas?.remote ?? [:] {
      guard let owner = job.owner, !others.contains(owner) else { continue }
      replicas?.remote[id]?.loseOwner()
    }
    if replicas?.isSuspended == true { resume() }
    replicas?.kick.yield()
  }

  /// Stops what others may be doing by now, once the lease may be over. Called at every tick.
  func checkLease() {
    guard let renewedAt = replicas?.renewedAt, !hasRetired, !isSuspended, now - renewedAt > configuration.journalLease
    else { return }
    logger.error("the journal has not answered for the time of the lease: no jobs are accepted, no tasks handed out")
    replicas?.isSuspended = true
  }

  private func resume() {
    logger.info("the journal answers again")
    replicas?.isSuspended = false
    let held = replicas?.heldOffers.values.map { $0 } ?? []
    replicas?.heldOffers = [:]
    for (offer, worker) in held {
      if let consequence = send(offer, to: worker) { process(consequence) }
    }
  }

  /// Another owner has ended the lease: nothing that this one believes counts any more.
  func fence() {
    guard replicas != nil, !hasRetired else { return }
    logger.critical(
      "the lease was over and another gateway has ended it: this one ends", metadata: ["epoch": "\(jobs.epoch)"])
    DispatcherMetrics.LeaseRenewal.lost.counter.increment()
    replicas?.fate = .fenced
    let reason = Status(.unavailable, "the gateway has lost its lease on the journal", retryAfterSeconds: 1)
    close(because: reason)
    for id in jobs.jobs.keys {
      jobs.handOver(id, refusal: reason)?.finishListeners()
    }
    finishRemoteListeners()
    replicas?.endFence.finish()
  }

  /// Returns when this owner was fenced, or the task is cancelled.
  func waitForFence() async {
    guard let fence = replicas?.fence else { return }
    for await _ in fence {}
  }

  // MARK: Adoption

  /// Takes over jobs without an owner and looks after those of others, whenever there may be something to do.
  func tendReplicas() async {
    guard let kicks = replicas?.kicks else { return }
    for await _ in kicks {
      replicas?.tendedAt = now
      await adoptJobs()
      await tendRemoteJobs()
      endSilentWatches()
    }
  }

  private func adoptJobs() async {
    guard let link = replicas?.link, replicas?.isAdopting == false else { return }
    replicas?.isAdopting = true
    defer { replicas?.isAdopting = false }
    while !Task.isCancelled, admissionRefusal == nil {
      let found: OpenJobs
      switch await adoptable(link) {
      case .success(let jobs): found = jobs
      case .failure(.fenced): return fence()
      case .failure(let error):
        logger.warning("no jobs could be adopted", metadata: ["reason": "\(error)"])
        return
      }
      guard !found.jobs.isEmpty || !found.damaged.isEmpty else { return }
      await adopt(found)
    }
  }

  private nonisolated func adoptable(_ link: ReplicaLink) async -> Result<OpenJobs, JournalError> {
    await journal.attempt { _ throws(JournalError) in try link.store.adoptJobs(limit: Replicas.adoptionCount) }
  }

  private func adopt(_ found: OpenJobs) async {
    var failed = found.damaged
    var adopted: [RestoredImageJob] = []
    for (record, images) in found.jobs {
      let id = record.job.id
      var ends: [JobEventRecord] = []
      if replicas?.remote[id] != nil { ends = (try? await self.ends(of: record)) ?? [] }
      guard !hasRetired, jobs.jobs[id] == nil else { continue }
      do throws(Status) {
        let restored = try RestoredJob(record, images, pipelines: pipelines, &payloads, now: now, nowMs: time.unixMs)
        if let remote = replicas?.remote[id] { restored.job.request.isDetached = remote.request.isDetached }
        jobs.insert(restored.job, images: restored.images)
        if var remote = replicas?.remote.removeValue(forKey: id) {
          for (number, continuation) in remote.takeListeners(ends) {
            jobs.attach(continuation, as: number, to: id, after: nil)
          }
        }
        adopted += restored.submissions
      } catch {
        failed.append(DamagedJob(number: record.number, damage: error.message))
      }
    }
    if !failed.isEmpty {
      do throws(Status) { try await fail(failed) } catch {
        logger.error("damaged jobs cannot be failed", metadata: ["reason": "\(error.message)"])
      }
    }
    guard !adopted.isEmpty, !hasRetired else { return }
    logger.info(
      "adopted jobs of another gateway", metadata: ["jobs": "\(found.jobs.count)", "images": "\(adopted.count)"])
    DispatcherMetrics.jobsAdopted.increment(by: adopted.count)
    process(.adopted(adopted))
  }

  // MARK: Handing over

  /// Gives all jobs to the other owners, at once, instead of waiting for their ends. Clients that wait for one, or
  /// follow it, are served from the new owner's events.
  ///
  /// - Returns: false when there is no other owner, or the journal is this gateway's alone.
  public func handOver() async -> Bool {
    guard let link = replicas?.link, !hasRetired, !isSuspended, replicas?.isLeaving == false,
      replicas?.others.isEmpty == false
    else { return false }
    let reason = closedReason ?? Status(.unavailable, "the gateway is shutting down", retryAfterSeconds: 1)
    close(because: reason)
    replicas?.isLeaving = true
    // What is decided is written; a journal that does not answer is not waited for.
    let end = now + .seconds(2)
    while now < end, !hasRetired {
      let status = scheduler.status(now: now)
      guard status.unadmittedImages + status.endingImages > 0 || replicas?.isAdopting == true else { break }
      try? await time.sleep(for: .milliseconds(20))
    }
    guard !hasRetired else { return false }
    replicas?.fate = .handedOver
    for completion in completions.values { completion.task.cancel() }
    completions = [:]
    for watch in replicas?.watches.values.map({ $0 }) ?? [] { watch.task.cancel() }
    replicas?.watches = [:]
    let count = jobs.jobs.count
    for id in jobs.jobs.keys {
      guard let job = jobs.handOver(id, refusal: reason) else { continue }
      DispatcherMetrics.jobsHandedOver.increment(by: job.openCount)
      guard !job.listeners.isEmpty else { continue }
      replicas?.remote[id] = RemoteJob(handedOver: job, epoch: jobs.epoch)
    }
    await settleWrites()
    if case .failure(let error) = await link.call({ store throws(JournalError) in try store.releaseLease() }) {
      logger.warning("the lease could not be ended: others adopt when it is over", metadata: ["reason": "\(error)"])
    }
    logger.info("handed jobs over", metadata: ["jobs": "\(count)", "followed": "\(replicas?.remote.count ?? 0)"])
    replicas?.kick.yield()
    return true
  }

  /// Waits until what was handed to the journal is written, two seconds at most.
  private func settleWrites() async {
    let (settled, signal) = AsyncStream<Never>.makeStream()
    Task { [journal] in
      try? await journal.write([])
      signal.finish()
    }
    let timer = Task { [time] in
      _ = try? await time.sleep(for: .seconds(2))
      signal.finish()
    }
    for await _ in settled {}
    timer.cancel()
  }

  /// Waits until no client waits for an image of a job that was handed over, `limit` at most.
  public func waitUntilUnwatched(atMost limit: Duration) async {
    let timer = Task { [time] in _ = try? await time.sleep(for: limit) }
    replicas?.onDetached = { timer.cancel() }
    if replicas?.attachedImageCount ?? 0 > 0 {
      await withTaskCancellationHandler {
        await timer.value
      } onCancel: {
        timer.cancel()
      }
    }
    timer.cancel()
    replicas?.onDetached = nil
  }

  /// Images of other owners' jobs that clients wait for on a connection.
  public var attachedRemoteImageCount: Int { replicas?.attachedImageCount ?? 0 }

  /// Sends nothing more to those who listen to jobs of others.
  func finishRemoteListeners() {
    for id in replicas?.remote.keys.map({ $0 }) ?? [] { replicas?.remote[id]?.finishListeners() }
    replicas?.remote = [:]
  }
}
