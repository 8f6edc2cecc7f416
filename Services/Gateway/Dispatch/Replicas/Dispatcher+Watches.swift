import ClusterCore
import GatewayPipelines
import Journal
import Scheduling

/// What this owner tells the others of its jobs.
extension Dispatcher {
  /// Takes what other owners send, in order, until the journal is closed.
  func takeOwnerMessages() async {
    guard let link = replicas?.link else { return }
    for await message in link.store.messages {
      switch message {
      case .lookForJobs:
        lookAgain()
        replicas?.kick.yield()
      case .message(let sender, let data):
        guard sender != jobs.epoch, replicas?.fate != .fenced else { continue }
        guard let messages = ReplicaFrame.messages(in: data) else {
          logger.warning(
            "a message of another gateway cannot be read",
            metadata: ["from": "\(sender)", "bytes": "\(data.count)"])
          continue
        }
        for message in messages { await take(message, from: sender, link) }
      }
    }
  }

  /// Owners may have changed, and messages may have been lost.
  private func lookAgain() {
    for (id, job) in replicas?.remote ?? [:] {
      if let owner = job.owner, replicas?.others.contains(owner) == true {
        replicas?.remote[id]?.askedAt = nil
      } else {
        replicas?.remote[id]?.loseOwner()
      }
    }
  }

  private func take(_ message: ReplicaMessage, from sender: Int64, _ link: ReplicaLink) async {
    switch message {
    case .watch(let job, let position): watch(job, after: position, for: sender, link)
    case .unwatch(let job): endWatch(Replicas.WatchKey(job: job, owner: sender))
    case .ask(let request, let ids):
      for id in ids {
        guard let state = state(of: id, answering: request) else { continue }
        link.send(state, to: sender)
      }
    case .cancel(let request, let job, let tenant, let image, let reason):
      guard jobs.job(job, of: TenantID(tenant)) != nil else {
        link.send(.notMine(job: job), to: sender)
        return
      }
      // The others' messages do not wait for the journal.
      Task {
        await cancel(job, image: image, tenant: TenantID(tenant), reason: reason)
        link.send(.cancelled(request: request), to: sender)
      }
    case .state(let request?, _, _, _), .cancelled(let request): replicas?.questions[request]?.yield(message)
    case .event, .state, .unchanged, .notMine: await follow(message, from: sender)
    }
  }

  private func cancel(_ job: String, image: Int?, tenant: TenantID, reason: String) async {
    let status = Status(.cancelled, String(reason.prefix(500)))
    if let image {
      cancelLocally(job, image: image, tenant: tenant, reason: status)
    } else {
      await cancelLocally(job, tenant: tenant, reason: status)
    }
  }

  /// How far an open job of this owner has got; nil: there is none of this name.
  private func state(of id: String, answering request: UInt64? = nil) -> ReplicaMessage? {
    guard let job = jobs.jobs[id], job.isAdmitted, !hasRetired else { return nil }
    return .state(
      request: request, job: id, at: EventPosition(epoch: jobs.epoch, number: job.lastEvent),
      images: snapshot(of: job).images.map { RemoteProgress($0) })
  }

  // MARK: Watches

  private func watch(_ id: String, after position: EventPosition?, for owner: Int64, _ link: ReplicaLink) {
    let key = Replicas.WatchKey(job: id, owner: owner)
    guard let job = jobs.jobs[id], job.isAdmitted, !hasRetired else {
      link.send(.notMine(job: id), to: owner)
      return
    }
    let known = position.flatMap { $0.epoch == jobs.epoch && job.keepsEvents(after: $0.number) ? $0.number : nil }
    if let watch = replicas?.watches[key], let known, known >= watch.sentNumber {
      replicas?.watches[key]?.expiresAt = now + Replicas.watchLimit
      link.send(.unchanged(job: id), to: owner)
      return
    }
    guard replicas?.watches[key] != nil || replicas?.watches.count ?? 0 < Replicas.maxWatches else { return }
    if let known {
      if known == job.lastEvent { link.send(.unchanged(job: id), to: owner) }
    } else if let state = state(of: id) {
      link.send(state, to: owner)
    }
    let start = known ?? job.lastEvent
    let events = listen(to: id, after: EventPosition(epoch: jobs.epoch, number: start).text)
    replicas?.lastWatch += 1
    let number = replicas?.lastWatch ?? 0
    let task = Task { [weak self] in
      for await event in events { await self?.forward(event, key, number, link) }
      await self?.forget(key, number)
    }
    // The new listener first: a job that ends with its last one must not end here.
    let earlier = replicas?.watches[key]
    replicas?.watches[key] = Replicas.Watch(
      number: number, task: task, expiresAt: now + Replicas.watchLimit, sentNumber: start)
    earlier?.task.cancel()
  }

  private func forward(
    _ event: JobEventRecord, _ key: Replicas.WatchKey, _ number: UInt64, _ link: ReplicaLink
  ) {
    guard replicas?.watches[key]?.number == number, let position = EventPosition(event.id),
      let update = RemoteUpdate(event.update)
    else { return }
    replicas?.watches[key]?.sentNumber = position.number
    link.send(
      .event(job: key.job, at: position, image: event.index, update: update, atMs: event.atMs), to: key.owner)
  }

  private func forget(_ key: Replicas.WatchKey, _ number: UInt64) {
    guard replicas?.watches[key]?.number == number else { return }
    replicas?.watches[key] = nil
  }

  private func endWatch(_ key: Replicas.WatchKey) { replicas?.watches.removeValue(forKey: key)?.task.cancel() }

  /// Ends the watches of owners that have not said for a while that they still watch.
  func endSilentWatches() {
    let now = now
    for (key, watch) in replicas?.watches ?? [:] where watch.expiresAt < now { endWatch(key) }
  }
}
