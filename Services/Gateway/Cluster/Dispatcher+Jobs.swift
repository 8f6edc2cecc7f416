import Foundation
import Journal
import Scheduling
import Wire

/// A key is a tenant's own.
struct TenantKey: Hashable {
  let tenant: TenantID
  let text: String

  init(_ tenant: TenantID, _ key: IdempotencyKey) {
    self.tenant = tenant
    self.text = key.text
  }
}

/// A job as its owner sees it.
public struct JobSnapshot: Sendable {
  /// Its name.
  public let id: String
  /// What was asked for.
  public let request: JobRequest
  /// Wall clock, in milliseconds since 1970.
  public let submittedAtMs: Int64
  /// When its last picture ended; nil: it goes on.
  public let endedAtMs: Int64?
  /// Where each picture has got to.
  let pictures: [PictureState]
}

extension Dispatcher {
  /// Accepts a request: when this returns, it is on the disk. A request with the key of an earlier one gives that one's job.
  ///
  /// - Parameter request: checked against the card of a model in `catalog`.
  /// - Throws: RESOURCE_EXHAUSTED when the queue or the disk is full, UNAVAILABLE when no more jobs are taken, ALREADY_EXISTS when the
  ///   key was used for another request.
  public func submit(_ request: JobRequest) async throws(Failure) -> JobTicket {
    if let closedReason { throw closedReason }
    if let earlier = try await earlierJob(with: request) { return earlier }
    if let closedReason { throw closedReason }
    let id = "job-\(RandomName.make())"
    let timeoutMs = Int64(configuration.jobTimeout / .milliseconds(1))
    openJobs[id] = OpenJob(id: id, request: request, submittedAtMs: wallClockMs, deadlineAtMs: wallClockMs + timeoutMs)
    if let key = request.key { keys[TenantKey(request.tenant, key)] = id }
    let submissions = request.images.enumerated().map { index, image in
      let picture = PictureReference(job: id, index: index)
      records[JobID(picture)] = Record(picture: picture, job: image, traceparent: request.traceparent)
      return JobSubmission(
        id: JobID(picture), model: image.model, plan: image.plan, deadline: now + configuration.jobTimeout, tenant: request.tenant,
        priority: request.priority)
    }
    // Before anything can happen, so that nothing is missed, and so that somebody is there who can leave.
    let events = listen(to: id, after: nil)
    let failure: Failure? = await withCheckedContinuation { continuation in
      openJobs[id]?.admissionWaiters.append(continuation)
      process(.jobsSubmitted(submissions))
    }
    if let failure { throw failure }
    return JobTicket(id: id, images: request.images, isNew: true, events: events)
  }

  /// The job that came with the request's key before.
  private func earlierJob(with request: JobRequest) async throws(Failure) -> JobTicket? {
    guard let key = request.key else { return nil }
    let tenantKey = TenantKey(request.tenant, key)
    if let id = keys[tenantKey] { return try await ticket(ofOpen: id, key) }
    let found = try await JournalReader(store: journal).read { store throws(JournalError) in
      try store.job(ofKey: key.text, tenant: tenantKey.tenant.text)
    }
    // One with the same key may have come meanwhile.
    if let id = keys[tenantKey] { return try await ticket(ofOpen: id, key) }
    guard let found else { return nil }
    guard found.digest == key.digest else { throw Self.reused(key) }
    guard let snapshot = try await snapshot(of: found.job, tenant: request.tenant),
      let events = try await events(of: found.job, tenant: request.tenant, after: nil)
    else { return nil }
    return JobTicket(id: found.job, images: snapshot.request.images, isNew: false, events: events)
  }

  private func ticket(ofOpen id: String, _ key: IdempotencyKey) async throws(Failure) -> JobTicket {
    guard let job = openJobs[id] else { throw Failure(.aborted, "job \(id) has just ended: ask again") }
    guard job.request.key?.digest == key.digest else { throw Self.reused(key) }
    let events = listen(to: id, after: nil)
    if !job.isAdmitted {
      let failure: Failure? = await withCheckedContinuation { openJobs[id]?.admissionWaiters.append($0) }
      if let failure { throw failure }
    }
    return JobTicket(id: id, images: job.request.images, isNew: false, events: events)
  }

  /// The field that tells this failure from others.
  static let keyField = "Idempotency-Key"

  private static func reused(_ key: IdempotencyKey) -> Failure {
    Failure(.alreadyExists, "the key \"\(key.text.prefix(80))\" was sent before with another request", field: keyField)
  }

  // MARK: What the scheduler says

  /// The journal has the job.
  func admit(_ id: JobID) {
    guard let name = records[id]?.picture.job, let job = openJobs[name], !job.isAdmitted else { return }
    openJobs[name]?.isAdmitted = true
    openJobs[name]?.admissionWaiters = []
    for waiter in job.admissionWaiters { waiter.resume(returning: nil) }
  }

  /// There is no such job.
  func reject(_ id: JobID, _ failure: Failure) {
    guard let name = records.removeValue(forKey: id)?.picture.job, var job = openJobs.removeValue(forKey: name) else { return }
    if let key = job.request.key { keys[TenantKey(job.request.tenant, key)] = nil }
    job.finishListeners()
    for waiter in job.admissionWaiters { waiter.resume(returning: failure) }
  }

  func tell(_ id: JobID, _ event: JobEvent) {
    guard let record = records[id] else { return }
    switch event {
    case .queued(let position, let secondsLeft): pass(.queued(position: position, secondsLeft: secondsLeft), to: record.picture)
    case .started(let stage, let attempt):
      logger.debug("a task has started", metadata: ["job": "\(id)", "stage": "\(stage.rawValue)", "attempt": "\(attempt)"])
      pass(.started(stage), to: record.picture)
    case .progressed(let step, let steps, let secondsLeft):
      pass(.progressed(step: step, steps: steps, secondsLeft: secondsLeft), to: record.picture)
    case .retrying(let stage, let failure):
      logger.warning("a task is tried again", metadata: ["job": "\(id)", "stage": "\(stage.rawValue)", "reason": "\(failure.message)"])
      pass(.retrying(stage, reason: failure.message), to: record.picture)
    case .held(let failure):
      logger.error("the end of a job cannot be written", metadata: ["job": "\(id)", "reason": "\(failure.message)"])
    case .finished(let output):
      DispatcherMetrics.jobsFinished.increment()
      if let image = payloads[output] {
        end(id, .finished(Picture(bytes: image.bytes, promptTokens: record.promptTokens)))
      } else {
        end(id, .failed(Failure(.internal, "the picture of job \(id) is lost")))
      }
    case .failed(let failure):
      DispatcherMetrics.jobsFailed.increment()
      logger.info("a job has failed", metadata: ["job": "\(id)", "code": "\(failure.code)", "reason": "\(failure.message)"])
      end(id, .failed(failure))
    }
  }

  private func pass(_ update: JobUpdate, to picture: PictureReference) {
    openJobs[picture.job]?.tell(picture.index, update, epoch: journal.epoch)
  }

  private func end(_ id: JobID, _ update: JobUpdate) {
    guard let picture = records.removeValue(forKey: id)?.picture else { return }
    pass(update, to: picture)
    guard let job = openJobs[picture.job], job.openCount == 0 else { return }
    openJobs[picture.job]?.finishListeners()
    openJobs[picture.job] = nil
    if let key = job.request.key { keys[TenantKey(job.request.tenant, key)] = nil }
  }

  // MARK: Listening and leaving

  /// What happens to an open job from now on, after what was missed since the event `last`.
  private func listen(to id: String, after last: String?) -> AsyncStream<JobEventRecord> {
    lastListener += 1
    let listener = lastListener
    let (events, continuation) = AsyncStream<JobEventRecord>.makeStream()
    // Whoever listened has been cancelled, or has let go of the stream.
    continuation.onTermination = { [weak self] termination in
      guard case .cancelled = termination else { return }
      Task { await self?.leave(id, listener) }
    }
    openJobs[id]?.attach(continuation, as: listener, after: last, epoch: journal.epoch)
    return events
  }

  private func leave(_ id: String, _ listener: UInt64) {
    openJobs[id]?.detach(listener)
    guard let job = openJobs[id], job.listeners.isEmpty, !job.request.isDetached else { return }
    cancel(id, reason: Failure(.cancelled, "nobody waits for the job any more"))
  }

  /// What happens to a job: first what was missed since the event `last`, or how things are, then what comes.
  ///
  /// - Returns: nil when the tenant has no such job.
  public func events(of id: String, tenant: TenantID, after last: String?) async throws(Failure) -> AsyncStream<JobEventRecord>? {
    if let job = openJobs[id] { return job.isAdmitted && job.request.tenant == tenant ? listen(to: id, after: last) : nil }
    let outcomes: [(Int, StoredOutcome, StoredPayload?)]? = try await JournalReader(store: journal).read { store throws(JournalError) in
      guard let record = try store.record(of: id, tenant: tenant.text) else { return nil }
      var outcomes: [(Int, StoredOutcome, StoredPayload?)] = []
      for (index, outcome) in record.outcomes.enumerated() {
        outcomes.append((index, outcome, try store.result(of: PictureReference(job: id, index: index))))
      }
      return outcomes
    }
    guard let outcomes else { return nil }
    let (events, continuation) = AsyncStream<JobEventRecord>.makeStream()
    for (index, outcome, payload) in outcomes {
      let update: JobUpdate
      switch (outcome, payload?.tensor) {
      case (.finished(_, let promptTokens), let tensor?): update = .finished(Picture(bytes: tensor.bytes, promptTokens: promptTokens))
      case (.failed(let failure), _): update = .failed(failure.failure)
      default: update = .failed(Failure(.dataLoss, "the result of job \(id) cannot be read"))
      }
      continuation.yield(JobEventRecord(id: "end-\(index)", index: index, update: update))
    }
    continuation.finish()
    return events
  }

  // MARK: What owners ask

  /// A job and where it has got to; nil: the tenant has none of this name.
  public func snapshot(of id: String, tenant: TenantID) async throws(Failure) -> JobSnapshot? {
    if let job = openJobs[id] { return job.isAdmitted && job.request.tenant == tenant ? job.snapshot : nil }
    let record = try await JournalReader(store: journal).read { store throws(JournalError) in
      try store.record(of: id, tenant: tenant.text)
    }
    guard let record else { return nil }
    return try snapshot(of: record)
  }

  /// A tenant's jobs, the newest first.
  ///
  /// - Parameters:
  ///   - tenant: whose.
  ///   - last: the last job of the page before; nil: from the newest.
  ///   - limit: at most so many.
  /// - Returns: nil when there is no job `last`.
  public func jobs(of tenant: TenantID, after last: String?, limit: Int) async throws(Failure) -> [JobSnapshot]? {
    let records: [StoredRecord]? = try await JournalReader(store: journal).read { store throws(JournalError) in
      var number: Int64?
      if let last {
        guard let record = try store.record(of: last, tenant: tenant.text) else { return nil }
        number = record.number
      }
      return try store.records(tenant: tenant.text, before: number, limit: limit)
    }
    guard let records else { return nil }
    var snapshots: [JobSnapshot] = []
    for record in records {
      if let open = openJobs[record.job.id] { snapshots.append(open.snapshot) } else { snapshots.append(try snapshot(of: record)) }
    }
    return snapshots
  }

  private func snapshot(of record: StoredRecord) throws(Failure) -> JobSnapshot {
    let request = try StoredRequest.request(from: record.job.request, tenant: TenantID(record.job.tenant))
    return JobSnapshot(
      id: record.job.id, request: request, submittedAtMs: record.job.submittedAtMs, endedAtMs: record.endedAtMs,
      pictures: zip(request.images, record.outcomes).map { PictureState($0, $1) })
  }

  /// The picture number `index` of a job; nil: it is not done.
  public func picture(of id: String, index: Int) async throws(Failure) -> Picture? {
    let stored = try await JournalReader(store: journal).read { store throws(JournalError) in
      try store.result(of: PictureReference(job: id, index: index))
    }
    return stored?.tensor.map { Picture(bytes: $0.bytes, promptTokens: 0) }
  }

  // MARK: The end

  /// Ends a tenant's job, and waits a while until the journal has that; a job that has ended is left alone.
  public func cancel(_ id: String, tenant: TenantID, reason: Failure) async {
    guard let job = openJobs[id], job.isAdmitted, job.request.tenant == tenant else { return }
    cancel(id, reason: reason)
    await waitForJournal { openJobs[id] == nil }
  }

  /// Waits until the journal has what was just decided, five seconds at most.
  private func waitForJournal(until isDone: () -> Bool) async {
    for _ in 0..<250 where !isDone() { try? await Task.sleep(for: .milliseconds(20)) }
  }

  /// Ends a job.
  func cancel(_ id: String, reason: Failure) {
    for index in openJobs[id]?.pictures.indices ?? 0..<0 {
      process(.jobCancelled(JobID(PictureReference(job: id, index: index)), reason: reason))
    }
  }

  /// Takes no more jobs; those that were admitted go on.
  public func close(because reason: Failure) {
    closedReason = reason
  }

  /// Ends every job that somebody waits for on a connection; all, if they could not go on after a restart. Waits a while until the
  /// journal has that, and who waits is told.
  public func cancelWaitingJobs(reason: Failure) async {
    for (id, job) in openJobs where !job.request.isDetached || journal.path == nil { cancel(id, reason: reason) }
    await waitForJournal { waitingJobCount == 0 }
  }

  /// Pictures that somebody waits for on a connection, or that would be lost with this process.
  public var waitingJobCount: Int {
    openJobs.values.reduce(0) { $0 + (!$1.request.isDetached || journal.path == nil ? $1.openCount : 0) }
  }
}

extension OpenJob {
  fileprivate var snapshot: JobSnapshot {
    JobSnapshot(id: id, request: request, submittedAtMs: submittedAtMs, endedAtMs: nil, pictures: pictures)
  }
}
