import ClusterCore
import GatewayAPI
import GatewayPipelines
import Journal
import Scheduling
import Wire

/// What clients do with jobs.
extension Dispatcher {
  /// Accepts a request: when this returns, it is on the disk. A request with the key of an earlier one gives that one's
  /// job.
  ///
  /// - Parameter request: checked against the card of a model in `catalog`.
  /// - Throws: PERMISSION_DENIED when the reviewer refuses it,
  ///   RESOURCE_EXHAUSTED when the queue or the disk is full, UNAVAILABLE when no more jobs are accepted or the prompt
  ///   cannot be rewritten, ALREADY_EXISTS when the key was used for another request.
  public func submit(_ request: JobRequest) async throws(Status) -> JobTicket {
    do throws(Status) { return try await submitOnce(request) } catch {
      // Another gateway was first with the key.
      guard isRace(error), let earlier = try await earlierJob(of: request) else { throw error }
      return earlier
    }
  }

  private func submitOnce(_ request: JobRequest) async throws(Status) -> JobTicket {
    if let admissionRefusal { throw admissionRefusal }
    if let earlier = try await earlierJob(of: request) { return earlier }
    if let admissionRefusal { throw admissionRefusal }
    try checkInputs(request.inputs, of: request.tenant)
    let id = Self.newID
    var request = request
    if reviewer != nil || request.enhancement != nil {
      request = try await considered(request, id)
      // In the meantime another request may have used the same key.
      if let earlier = try await earlierJob(of: request) { return earlier }
      if let admissionRefusal { throw admissionRefusal }
      try checkInputs(request.inputs, of: request.tenant)
    }
    return try await admit([prepared(request, id)])[0]
  }

  /// Accepts all of a tenant's requests or none; those with the key of an earlier request give that one's job.
  ///
  /// - Parameter requests: of one tenant, with different keys.
  /// - Throws: as ``submit(_:)`` does.
  public func submit(_ requests: [JobRequest]) async throws(Status) -> [JobTicket] {
    do throws(Status) { return try await submitOnce(requests) } catch {
      guard isRace(error) else { throw error }
      return try await submitOnce(requests)
    }
  }

  /// Whether the journal has a job's key from another gateway, which this one did not see before it wrote.
  private func isRace(_ error: Status) -> Bool {
    replicas != nil && error.code == .alreadyExists && error.field == nil
  }

  private func submitOnce(_ requests: [JobRequest]) async throws(Status) -> [JobTicket] {
    if let admissionRefusal { throw admissionRefusal }
    var tickets: [Int: JobTicket] = [:]
    for (index, request) in requests.enumerated() { tickets[index] = try await earlierJob(of: request) }
    let ids = requests.map { _ in Self.newID }
    var requests = requests
    for index in requests.indices where tickets[index] == nil {
      requests[index] = try await considered(requests[index], ids[index])
    }
    if let admissionRefusal { throw admissionRefusal }
    let new = requests.indices.filter { tickets[$0] == nil }
    if let first = new.first {
      // In the meantime one of them may have come another way.
      let taken = new.first {
        requests[$0].key.map { jobs.job(of: $0, tenant: requests[first].tenant) != nil } ?? false
      }
      if let taken {
        throw Status(
          .aborted,
          "job \(taken) with the key \(requests[taken].key?.text.prefix(80) ?? "") is being submitted elsewhere"
        )
      }
      try checkInputs(new.flatMap { requests[$0].inputs }, of: requests[first].tenant)
      var prepared: [PreparedJob] = []
      for index in new { prepared.append(try self.prepared(requests[index], ids[index])) }
      for (index, ticket) in zip(new, try await admit(prepared)) { tickets[index] = ticket }
    }
    return requests.indices.compactMap { tickets[$0] }
  }

  /// Whether requests can have their prompts rewritten.
  public nonisolated var enhancesPrompts: Bool { enhancer != nil }

  /// A request as it becomes a job: with prompts rewritten if it asks for that, and judged.
  private func considered(_ request: JobRequest, _ id: String) async throws(Status) -> JobRequest {
    var request = request
    if request.enhancement != nil, let enhancer { request = try await enhancer.enhanced(request, job: id) }
    if let reviewer { try await reviewer.review(request, job: id) }
    return request
  }

  /// Bytes of decoded images that one request, or several that are submitted together, may have.
  public nonisolated var maxRequestInputBytes: Int {
    min(configuration.maxInputBytes, configuration.maxTenantInputBytes)
  }

  /// A job that is not submitted yet.
  private struct PreparedJob {
    let job: OpenJob
    var images: [ImageJobID: JobRegistry.Image] = [:]
    var submissions: [ImageJobSubmission] = []
  }

  private static var newID: String { "job-\(RandomName.make())" }

  private func prepared(_ request: JobRequest, _ id: String) throws(Status) -> PreparedJob {
    guard let pipeline = pipelines[request.images[0].pipeline] else {
      throw Status(.unimplemented, "the pipeline \(request.images[0].pipeline) is not known", field: "pipeline")
    }
    let nowMs = time.unixMs, limitMs = Int64(configuration.jobTimeout / .milliseconds(1))
    let deadlineAtMs = try request.options.deadlineAtMs(nowMs: nowMs, limitMs: limitMs)
    // No two jobs of one time, so that lists have one order.
    lastSubmittedAtMs = max(lastSubmittedAtMs + 1, nowMs)
    var prepared = PreparedJob(
      job: OpenJob(id: id, request: request, submittedAtMs: lastSubmittedAtMs, deadlineAtMs: deadlineAtMs))
    for (index, spec) in request.images.enumerated() {
      let imageID = ImageJobID(ImageReference(job: id, index: index))
      prepared.images[imageID] = JobRegistry.Image(index, of: prepared.job, pipeline)
      prepared.submissions.append(
        ImageJobSubmission(
          id: imageID, model: spec.card.model, plan: pipeline.plan(spec),
          deadline: now + .milliseconds(deadlineAtMs - nowMs), tenant: request.tenant, priority: request.priority))
    }
    return prepared
  }

  /// Submits jobs, and waits until the journal has them all or they are refused.
  private func admit(_ prepared: [PreparedJob]) async throws(Status) -> [JobTicket] {
    var tickets: [JobTicket] = []
    for new in prepared {
      jobs.insert(new.job, images: new.images)
      // Before anything can happen, so that no event is missed, and so that there is a listener that can leave.
      let events = listen(to: new.job.id, after: nil)
      tickets.append(JobTicket(id: new.job.id, images: new.job.request.images, isNew: true, events: events))
    }
    guard let last = tickets.last else { return [] }
    // They are admitted or refused together, this one as the last.
    let refusal: Status? = await withCheckedContinuation { continuation in
      jobs.awaitAdmission(of: last.id, continuation)
      process(.imagesSubmitted(prepared.flatMap(\.submissions)))
    }
    if let refusal { throw refusal }
    return tickets
  }

  /// Images are kept in memory until the jobs that begin with them have ended.
  private func checkInputs(_ inputs: [InputImage], of tenant: TenantID) throws(Status) {
    let bytes = inputs.reduce(0) { $0 + $1.tensor.bytes.count }
    guard bytes > 0 else { return }
    let largest = maxRequestInputBytes
    guard bytes <= largest else {
      // No waiting helps.
      throw Status(
        .invalidArgument,
        "the images of the request have \(bytes) bytes when they are decoded, the limit is \(largest)", field: "image")
    }
    let newBytes = jobs.inputs.newByteCount(of: inputs)
    // The tenant's own limit first: it is what the client can do something about.
    for (name, bytes, used, limit) in [
      (
        "this tenant", bytes, jobs.inputs.byteCount(of: tenant) + inputBytesElsewhere(of: tenant),
        configuration.maxTenantInputBytes
      ),
      ("all tenants", newBytes, jobs.inputs.byteCount + inputBytesElsewhere(of: nil), configuration.maxInputBytes),
    ] {
      // What earlier runs have accepted may be above a limit that was lowered.
      guard bytes == 0 || bytes <= limit - used else {
        throw Status(
          .resourceExhausted,
          "the images of the request have \(bytes) bytes, and those of the jobs of \(name) \(used); "
            + "the limit is \(limit)",
          retryAfterSeconds: 10, resource: name == "this tenant" ? .tenantQueue : .queue)
      }
    }
  }

  /// The job that was submitted with the request's key before.
  private func earlierJob(of request: JobRequest) async throws(Status) -> JobTicket? {
    guard let key = request.key else { return nil }
    if let job = jobs.job(of: key, tenant: request.tenant) { return try await ticket(job, key) }
    let tenant = request.tenant.text
    let found = try await journal.read { store throws(JournalError) in try store.job(ofKey: key.text, tenant: tenant) }
    // In the meantime another request may have used the same key.
    if let job = jobs.job(of: key, tenant: request.tenant) { return try await ticket(job, key) }
    guard let found else { return nil }
    guard found.digest == key.digest else { throw Self.reused(key) }
    guard let snapshot = try await snapshot(of: found.job, tenant: request.tenant),
      let events = try await events(of: found.job, tenant: request.tenant, after: nil)
    else { return nil }
    return JobTicket(id: found.job, images: snapshot.request.images, isNew: false, events: events)
  }

  private func ticket(_ job: OpenJob, _ key: IdempotencyKey) async throws(Status) -> JobTicket {
    guard job.request.key?.digest == key.digest else { throw Self.reused(key) }
    let events = listen(to: job.id, after: nil)
    if !job.isAdmitted {
      let refusal: Status? = await withCheckedContinuation { jobs.awaitAdmission(of: job.id, $0) }
      if let refusal { throw refusal }
    }
    return JobTicket(id: job.id, images: job.request.images, isNew: false, events: events)
  }

  private static func reused(_ key: IdempotencyKey) -> Status {
    Status(
      .alreadyExists, "the key \"\(key.text.prefix(80))\" was sent before with another request",
      field: APIError.keyField)
  }

  // MARK: Events

  func listen(to id: String, after last: String?) -> AsyncStream<JobEventRecord> {
    jobs.listen(to: id, after: last) { [weak self] listener in
      Task { await self?.leave(id, listener) }
    }
  }

  func leave(_ id: String, _ listener: UInt64) {
    leaveRemotely(id, listener)
    if jobs.leave(id, listener) { cancel(id, reason: Status(.cancelled, "no client waits for the job any more")) }
  }

  /// What happens to a job: first what was missed since the event `last`, or the state, then what comes.
  ///
  /// - Returns: nil when the tenant has no such job.
  public func events(of id: String, tenant: TenantID, after last: String?) async throws(Status) -> AsyncStream<
    JobEventRecord
  >? {
    if jobs.jobs[id] != nil { return jobs.job(id, of: tenant).map { listen(to: $0.id, after: last) } }
    if let job = replicas?.remote[id] {
      return job.request.tenant == tenant ? listenRemotely(to: id, after: last) : nil
    }
    let record = try await journal.read { store throws(JournalError) in try store.record(of: id, tenant: tenant.text) }
    guard let record else { return nil }
    let ends = try await ends(of: record)
    // In the meantime it may have become this gateway's.
    if jobs.jobs[id] != nil { return jobs.job(id, of: tenant).map { listen(to: $0.id, after: last) } }
    if replicas != nil, ends.count < record.outcomes.count { return try follow(record, ends: ends, after: last) }
    let (events, continuation) = AsyncStream<JobEventRecord>.makeStream()
    for end in ends { continuation.yield(end) }
    continuation.finish()
    return events
  }

  // MARK: What owners ask

  /// A job and how far it has got; nil: the tenant has none of this name.
  public func snapshot(of id: String, tenant: TenantID) async throws(Status) -> JobSnapshot? {
    if jobs.jobs[id] != nil { return jobs.job(id, of: tenant).map { snapshot(of: $0) } }
    let record = try await journal.read { store throws(JournalError) in try store.record(of: id, tenant: tenant.text) }
    guard let record else { return nil }
    return try await snapshots(of: [record])[0]
  }

  /// What an image of an open job looks like; nil: that is not known, or the tenant has no such job.
  public func preview(of id: String, index: Int, tenant: TenantID) -> Preview? {
    jobs.job(id, of: tenant)?.preview(index)
  }

  /// Estimates are made anew when they are older, however often they are asked for.
  private static let estimateAge = Duration.milliseconds(500)

  /// An open job, with what is to be expected of it by now.
  func snapshot(of job: OpenJob) -> JobSnapshot {
    let now = now
    var estimates = lastEstimates
    if estimates.map({ now - $0.at > Self.estimateAge || $0.at > now }) ?? true {
      estimates = (now, scheduler.estimates(now: now))
      lastEstimates = estimates
    }
    var images = job.images
    guard let estimates else { return job.snapshot(images) }
    let atMs = time.unixMs - Int64((now - estimates.at) / .milliseconds(1))
    for index in images.indices {
      let id = ImageJobID(ImageReference(job: job.id, index: index))
      if let estimate = estimates.jobs[id] { images[index].expect(estimate, atMs: atMs) }
    }
    return job.snapshot(images)
  }

  /// Pages of the journal that one page of a list may take: open jobs are queued or running, which the journal does not
  /// tell apart.
  private static let maxPages = 8

  /// A page of a tenant's jobs.
  ///
  /// - Parameters:
  ///   - tenant: whose.
  ///   - query: which, in which order, and from where.
  ///   - matches: which of them, as they are now.
  /// - Returns: the jobs and where the rest begins, which may turn out to be empty; nil when the query begins behind a
  ///   job that the tenant does not have.
  public func jobs(
    of tenant: TenantID, _ query: JobQuery, where matches: @Sendable (JobSnapshot) -> Bool = { _ in true }
  ) async throws(Status) -> (jobs: [JobSnapshot], next: JobCursor?)? {
    var query = query
    var found: [JobSnapshot] = []
    for _ in 0..<Self.maxPages {
      let asked = query
      let page = try await journal.read { store throws(JournalError) in try store.page(asked, tenant: tenant.text) }
      guard let page else { return nil }
      for (index, (record, snapshot)) in zip(page.records, try await snapshots(of: page.records)).enumerated() {
        guard matches(snapshot) else { continue }
        found.append(snapshot)
        guard found.count == query.limit, index < page.records.count - 1 else { continue }
        return (found, JobCursor(job: record.job.id, submittedAtMs: record.job.submittedAtMs))
      }
      query.after = page.next
      if found.count >= query.limit || page.next == nil { break }
    }
    return (found, query.after)
  }

  /// The result number `index` of a job; nil: it is not there.
  public func result(of id: String, index: Int) async throws(Status) -> EncodedImage? {
    let stored = try await journal.read { store throws(JournalError) in
      try store.result(of: ImageReference(job: id, index: index))
    }
    return stored?.tensor.map { EncodedImage(bytes: $0.bytes, promptTokens: 0) }
  }

  // MARK: The end

  /// How long a caller waits for the journal to have what was just decided.
  static let journalPatience = Duration.seconds(5)

  /// Cancels a tenant's job, and waits until the journal has that, five seconds at most; a job that has ended is left
  /// alone.
  ///
  /// - Throws: UNAVAILABLE when it is another gateway's, which does not answer.
  public func cancel(_ id: String, tenant: TenantID, reason: Status) async throws(Status) {
    if replicas != nil, jobs.jobs[id] == nil {
      return try await cancelRemotely(id, image: nil, tenant: tenant, reason: reason)
    }
    await cancelLocally(id, tenant: tenant, reason: reason)
  }

  /// The same for a job of this gateway's.
  func cancelLocally(_ id: String, tenant: TenantID, reason: Status) async {
    guard jobs.job(id, of: tenant) != nil else { return }
    cancel(id, reason: reason)
    await wait(atMost: Self.journalPatience) { $0.awaitEnd(of: id, $1) }
  }

  /// Waits until a tenant's job has ended, `limit` at most; returns earlier when the task is cancelled, or when no more
  /// jobs are accepted. Nothing happens to the job.
  public func waitForEnd(of id: String, tenant: TenantID, atMost limit: Duration) async {
    guard closedReason == nil else { return }
    let remote = jobs.jobs[id] == nil ? await remoteEvents(of: id, tenant: tenant) : nil
    guard closedReason == nil, remote != nil || jobs.job(id, of: tenant) != nil else { return }
    let timer = Task { [time] in _ = try? await time.sleep(for: limit) }
    lastPoll += 1
    let poll = lastPoll
    polls[poll] = timer
    if let remote {
      let listener = Task {
        for await _ in remote {}
        timer.cancel()
      }
      await withTaskCancellationHandler {
        await timer.value
      } onCancel: {
        timer.cancel()
      }
      listener.cancel()
    } else {
      await wait(until: timer) { $0.awaitEnd(of: id, $1) }
    }
    polls[poll] = nil
  }

  /// The events of a job that another gateway has; nil: there is no such open job.
  private func remoteEvents(of id: String, tenant: TenantID) async -> AsyncStream<JobEventRecord>? {
    guard replicas != nil else { return nil }
    let record = try? await journal.read { store throws(JournalError) in try store.record(of: id, tenant: tenant.text) }
    guard let record, record.outcomes.contains(.open) else { return nil }
    return try? await events(of: id, tenant: tenant, after: nil)
  }

  /// Calls of ``waitForEnd(of:tenant:atMost:)`` that have not returned.
  package var pollCount: Int { polls.count }

  /// Cancels one image of a tenant's job; the others are made. One that has ended is left alone.
  ///
  /// - Throws: UNAVAILABLE when it is another gateway's, which does not answer.
  public func cancel(_ id: String, image index: Int, tenant: TenantID, reason: Status) async throws(Status) {
    if replicas != nil, jobs.jobs[id] == nil {
      return try await cancelRemotely(id, image: index, tenant: tenant, reason: reason)
    }
    cancelLocally(id, image: index, tenant: tenant, reason: reason)
  }

  /// The same for a job of this gateway's.
  func cancelLocally(_ id: String, image index: Int, tenant: TenantID, reason: Status) {
    guard let job = jobs.job(id, of: tenant), job.images.indices.contains(index), !job.images[index].isTerminal else {
      return
    }
    process(.imageCancelled(ImageJobID(ImageReference(job: id, index: index)), reason: reason))
  }

  /// Cancels a job.
  func cancel(_ id: String, reason: Status) {
    for image in jobs.imageIDs(of: id) { process(.imageCancelled(image, reason: reason)) }
  }

  /// Whether new jobs are accepted.
  public var isOpen: Bool { closedReason == nil }

  /// Accepts no more jobs; those that were admitted keep running. Calls of ``waitForEnd(of:tenant:atMost:)`` return.
  public func close(because reason: Status) {
    closedReason = reason
    for timer in polls.values { timer.cancel() }
  }

  /// Images that a client waits for on a connection, or that would be lost with this process.
  public var attachedImageCount: Int { jobs.attachedImageCount }

  /// Waits until no client waits for an image any more, `limit` at most.
  public func waitUntilDetached(atMost limit: Duration) async { await wait(atMost: limit) { $0.awaitIdle($1) } }

  /// Cancels every job that a client waits for on a connection, or all jobs if they cannot be resumed after a restart.
  /// Waits until the clients are notified, five seconds at most.
  public func cancelAttachedJobs(reason: Status) async {
    for (id, job) in jobs.jobs where jobs.isAttached(job) { cancel(id, reason: reason) }
    await waitUntilDetached(atMost: Self.journalPatience)
  }

  /// Suspends until the registry resumes the continuation, `limit` at most.
  private func wait(
    atMost limit: Duration, _ register: (inout JobRegistry, CheckedContinuation<Void, Never>) -> JobRegistry.WaiterID?
  ) async {
    await wait(until: Task { [time] in _ = try? await time.sleep(for: limit) }, register)
  }

  /// Suspends until the registry resumes the continuation, or the timer or this task ends.
  private func wait(
    until timer: Task<Void, Never>,
    _ register: (inout JobRegistry, CheckedContinuation<Void, Never>) -> JobRegistry.WaiterID?
  ) async {
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        guard let waiter = register(&jobs, continuation) else { return }
        Task {
          await timer.value
          jobs.giveUp(waiter)
        }
      }
    } onCancel: {
      timer.cancel()
    }
    timer.cancel()
  }
}

extension JobSnapshot {
  /// A job as the journal has it.
  ///
  /// - Parameter states: what its owner knows of its images; empty: nothing.
  init(_ record: StoredRecord, _ states: [RemoteProgress] = []) throws(Status) {
    let request = try JobRequest(record.job)
    var images = zip(request.images, record.outcomes).map { ImageProgress(steps: $0.stepCount, $1) }
    for (index, state) in zip(images.indices, states) where !images[index].isTerminal && !state.hasEnded {
      images[index].take(state)
    }
    self.init(
      id: record.job.id, request: request, submittedAtMs: record.job.submittedAtMs,
      deadlineAtMs: record.job.deadlineAtMs, endedAtMs: record.endedAtMs, images: images)
  }
}
