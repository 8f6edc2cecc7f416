import ClusterCore
import GatewayPipelines
import Journal
import Scheduling

/// What clients of this owner do with jobs of others.
extension Dispatcher {
  // MARK: Events

  /// The events of another owner's open job: what was missed since the event `last`, or the state, then what comes.
  ///
  /// - Parameters:
  ///   - record: the job, as the journal has it.
  ///   - ends: of its images that have ended.
  func follow(
    _ record: StoredRecord, ends: [JobEventRecord], after last: String?
  ) throws(Status) -> AsyncStream<JobEventRecord> {
    let id = record.job.id
    if replicas?.remote[id] == nil { replicas?.remote[id] = RemoteJob(try JobSnapshot(record), ends: ends) }
    return listenRemotely(to: id, after: last)
  }

  /// The same of one that others follow already.
  func listenRemotely(to id: String, after last: String?) -> AsyncStream<JobEventRecord> {
    let (events, continuation, number) = jobs.makeListener { [weak self] listener in
      Task { await self?.leave(id, listener) }
    }
    replicas?.remote[id]?.attach(continuation, as: number, after: last)
    if replicas?.remote[id]?.askedAt == nil { replicas?.kick.yield() }
    return events
  }

  /// A listener of a remote job has left; the last one of a job that is made only while a client waits cancels it.
  func leaveRemotely(_ id: String, _ listener: UInt64) {
    guard var job = replicas?.remote[id], job.detach(listener) else { return }
    replicas?.remote[id] = job
    guard !job.hasListeners else { return }
    forgetRemote(id)
    if job.isAttached, !job.hasEnded {
      let reason = Status(.cancelled, "no client waits for the job any more")
      Task { try? await cancel(id, tenant: job.request.tenant, reason: reason) }
    } else if let owner = job.owner {
      replicas?.link.send(.unwatch(job: id), to: owner)
    }
  }

  private func forgetRemote(_ id: String) {
    replicas?.remote[id] = nil
    if replicas?.attachedImageCount == 0 { replicas?.onDetached?() }
  }

  /// Takes what the owner of a followed job sends.
  func follow(_ message: ReplicaMessage, from sender: Int64) async {
    switch message {
    case .event(let id, let at, let index, let update, let atMs):
      await take(update, of: id, index: index, at: at, atMs: atMs, from: sender)
    case .state(_, let id, let at, let images):
      guard let job = replicas?.remote[id], job.owner == sender else { return }
      replicas?.remote[id]?.answeredAt = now
      var ends: [JobEventRecord] = []
      let ended = zip(job.images, images).enumerated().filter { $1.1.hasEnded && !$1.0.isTerminal }.map(\.offset)
      if !ended.isEmpty {
        guard let found = try? await self.ends(of: id, Set(ended)) else { return askAgain(id) }
        // They belong to the state, and a client continues after it.
        ends = found.map { JobEventRecord(id: at.text, index: $0.index, update: $0.update) }
      }
      replicas?.remote[id]?.reset(to: images, at: at, ends: ends)
      endIfOver(id)
    case .unchanged(let id) where replicas?.remote[id]?.owner == sender: replicas?.remote[id]?.answeredAt = now
    case .notMine(let id) where replicas?.remote[id]?.owner == sender:
      // Its images may have ended; else it has another owner soon, which the next look finds.
      replicas?.remote[id]?.loseOwner()
      await closeIfEnded(id)
    case .unchanged, .notMine, .watch, .unwatch, .ask, .cancel, .cancelled: break
    }
  }

  private func take(
    _ update: RemoteUpdate, of id: String, index: Int, at: EventPosition, atMs: Int64?, from sender: Int64
  ) async {
    guard let job = replicas?.remote[id], job.owner == sender, job.images.indices.contains(index) else { return }
    replicas?.remote[id]?.answeredAt = now
    switch job.step(to: at) {
    case .known: return
    case .gap: return askAgain(id)
    case .next: break
    }
    var record: JobEventRecord?
    if let update = update.update {
      record = JobEventRecord(id: at.text, index: index, update: update, atMs: atMs)
    } else if case .ended = update {
      record = try? await ends(of: id, [index]).first
      record?.id = at.text
      record?.atMs = atMs
    }
    // While the journal was read, the job may have become this owner's.
    guard replicas?.remote[id]?.owner == sender, let record else { return askAgain(id) }
    replicas?.remote[id]?.apply(record, at: at)
    endIfOver(id)
  }

  /// Something is missing: the owner is to send it again.
  private func askAgain(_ id: String) {
    guard let job = replicas?.remote[id], let owner = job.owner else { return }
    replicas?.link.send(.watch(job: id, after: job.position), to: owner)
  }

  private func endIfOver(_ id: String) {
    guard replicas?.remote[id]?.hasEnded == true else { return }
    replicas?.remote[id]?.finishListeners()
    forgetRemote(id)
  }

  /// Ends a followed job if the journal has the ends of all its images.
  private func closeIfEnded(_ id: String) async {
    guard let job = replicas?.remote[id] else { return }
    let open = job.images.indices.filter { !job.images[$0].isTerminal }
    guard let ends = try? await ends(of: id, Set(open)) else { return }
    replicas?.remote[id]?.end(ends)
    endIfOver(id)
  }

  // MARK: Looking after them

  /// Looks up owners that are not known, and tells owners that their jobs are still followed.
  func tendRemoteJobs() async {
    guard let link = replicas?.link, replicas?.fate != .fenced else { return }
    let now = now
    let due = (replicas?.remote ?? [:]).filter { _, job in
      guard job.owner != nil, let askedAt = job.askedAt else { return true }
      let isSilent = now - askedAt > Replicas.answerLimit && job.answeredAt.map { $0 < askedAt } ?? true
      return isSilent || now - askedAt > Replicas.watchInterval
    }
    guard !due.isEmpty else { return }
    let ids = Array(due.keys)
    let owners = try? await journal.read { _ throws(JournalError) in
      var owners: [String: Int64] = [:]
      for id in ids { owners[id] = try link.store.owner(of: id) }
      return owners
    }
    guard let owners else { return }
    for id in ids {
      guard let job = replicas?.remote[id] else { continue }
      guard let owner = owners[id] else {
        await closeIfEnded(id)
        continue
      }
      // This one's own: it is being adopted, or was handed over and has no new owner yet. One that has ended: its jobs
      // are adopted soon.
      guard owner != jobs.epoch, hasRetired || replicas?.others.contains(owner) == true else { continue }
      replicas?.remote[id]?.owner = owner
      replicas?.remote[id]?.askedAt = self.now
      link.send(.watch(job: id, after: job.position), to: owner)
    }
  }

  // MARK: Asking

  /// Sends a question, and collects the answers until `isEnough`, or for a while.
  private func ask(
    to owner: Int64?, atMost limit: Duration, _ question: (UInt64) -> ReplicaMessage,
    until isEnough: ([ReplicaMessage]) -> Bool
  ) async -> [ReplicaMessage] {
    guard let link = replicas?.link else { return [] }
    replicas?.lastQuestion += 1
    let number = replicas?.lastQuestion ?? 0
    let (answers, continuation) = AsyncStream<ReplicaMessage>.makeStream(bufferingPolicy: .bufferingOldest(1000))
    replicas?.questions[number] = continuation
    link.send(question(number), to: owner)
    let timer = Task { [time] in
      _ = try? await time.sleep(for: limit)
      continuation.finish()
    }
    var received: [ReplicaMessage] = []
    for await answer in answers {
      received.append(answer)
      if isEnough(received) { break }
    }
    timer.cancel()
    replicas?.questions[number] = nil
    return received
  }

  /// How far other owners' open jobs have got, as far as they answer in time.
  func remoteStates(of ids: [String]) async -> [String: [RemoteProgress]] {
    guard replicas?.others.isEmpty == false || replicas?.fate == .handedOver else { return [:] }
    var states: [String: [RemoteProgress]] = [:]
    for start in stride(from: 0, to: ids.count, by: ReplicaMessage.maxJobs) {
      let part = Array(ids.dropFirst(start).prefix(ReplicaMessage.maxJobs))
      let answers = await ask(
        to: nil, atMost: Replicas.patience, { .ask(request: $0, jobs: part) }, until: { $0.count >= part.count })
      for case .state(_, let id, _, let images) in answers { states[id] = images }
    }
    return states
  }

  /// Jobs of the journal, with what their owners know of those that have not ended.
  func snapshots(of records: [StoredRecord]) async throws(Status) -> [JobSnapshot] {
    let open =
      replicas == nil
      ? [] : records.lazy.filter { $0.outcomes.contains(.open) && self.jobs.jobs[$0.job.id] == nil }.map(\.job.id)
    var states: [String: [RemoteProgress]] = [:]
    var unknown: [String] = []
    for id in open {
      if let job = replicas?.remote[id], job.isCurrent {
        states[id] = job.images.map { RemoteProgress($0) }
      } else {
        unknown.append(id)
      }
    }
    if !unknown.isEmpty { states.merge(await remoteStates(of: unknown)) { $1 } }
    var snapshots: [JobSnapshot] = []
    for record in records {
      if let job = jobs.jobs[record.job.id] {
        snapshots.append(snapshot(of: job))
      } else {
        snapshots.append(try JobSnapshot(record, states[record.job.id] ?? []))
      }
    }
    return snapshots
  }

  /// Has another owner cancel a job, or one image of it, and waits until the journal has that.
  ///
  /// - Throws: UNAVAILABLE when the owner does not answer in time, or there is none now.
  func cancelRemotely(_ id: String, image: Int?, tenant: TenantID, reason: Status) async throws(Status) {
    guard let link = replicas?.link else { return }
    let end = now + Self.journalPatience
    while now < end {
      if jobs.job(id, of: tenant) != nil {
        if let image { return cancelLocally(id, image: image, tenant: tenant, reason: reason) }
        return await cancelLocally(id, tenant: tenant, reason: reason)
      }
      let (owner, record) = try await journal.read { store throws(JournalError) in
        (try link.store.owner(of: id), try store.record(of: id, tenant: tenant.text))
      }
      guard let record,
        image.map({ record.outcomes.indices.contains($0) && record.outcomes[$0] == .open })
          ?? record.outcomes.contains(.open)
      else { return }
      if let owner, owner != jobs.epoch {
        let text = String(reason.message.prefix(500))
        let answers = await ask(
          to: owner, atMost: min(.seconds(2), end - now),
          { .cancel(request: $0, job: id, tenant: tenant.text, image: image, reason: text) },
          until: { !$0.isEmpty })
        if !answers.isEmpty { return }
      } else {
        try? await time.sleep(for: .milliseconds(200))
      }
      if Task.isCancelled { break }
    }
    throw Status(
      .unavailable, "the gateway that owns job \(id) does not answer: it may be cancelled later", retryAfterSeconds: 2)
  }

  // MARK: The journal

  /// How images of a job have ended, those of `wanted` that have; nil: of all.
  private func ends(of id: String, _ wanted: Set<Int>? = nil) async throws(Status) -> [JobEventRecord] {
    let found = try await journal.read { store throws(JournalError) in try store.record(of: id, tenant: nil) }
    guard let found else { throw Status(.notFound, "job \(id) is not kept any more") }
    return try await ends(of: found, wanted)
  }

  /// The same of a job that was read.
  func ends(of record: StoredRecord, _ wanted: Set<Int>? = nil) async throws(Status) -> [JobEventRecord] {
    let id = record.job.id, outcomes = record.outcomes
    return try await journal.read { store throws(JournalError) in
      var ends: [JobEventRecord] = []
      for (index, outcome) in outcomes.enumerated() where outcome != .open && wanted?.contains(index) ?? true {
        let payload = try store.result(of: ImageReference(job: id, index: index))
        ends.append(JobEventRecord(endOf: id, index: index, outcome, payload))
      }
      return ends
    }
  }
}

extension JobEventRecord {
  /// The end of an image, as the journal has it.
  init(endOf id: String, index: Int, _ outcome: StoredOutcome, _ payload: StoredPayload?) {
    let update: ImageUpdate =
      switch (outcome, payload?.tensor) {
      case (.finished(_, let promptTokens), let tensor?):
        .finished(EncodedImage(bytes: tensor.bytes, promptTokens: promptTokens))
      case (.failed(let status), _): .failed(status)
      default: .failed(Status(.dataLoss, "the result of job \(id) cannot be read"))
      }
    self.init(id: "end-\(index)", index: index, update: update)
  }
}
