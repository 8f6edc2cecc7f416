import ClusterCore
import Scheduling

/// What must stay true whichever gateway does it.
struct ReplicaJudge {
  /// Every attempt that was ever offered.
  var offered: Set<AttemptID> = []
  /// Steps that clients were notified of, by owner and attempt: one that has ended unawares may still be reading what
  /// its workers said.
  var lastSteps: [Int64: [AttemptID: Int]] = [:]
  /// Ends of images.
  var outcomes: [ImageJobID: Outcome] = [:]
  /// Since when a client asks these owners for the end of its job, while they hear it.
  var cancels: [Int: (at: Int, owners: Set<Int64>)] = [:]
}

extension ReplicaSimulation {
  func examine(_ event: Event, _ effects: [Effect], _ gateway: ReplicaGateway) {
    for case .offer(let offer, _) in effects {
      if !judge.offered.insert(offer.attempt).inserted { report("\(offer.attempt) is offered a second time") }
      if let entry = journal.images[offer.job], entry.owner == gateway.epoch, entry.outcome != nil {
        report("\(offer.attempt) is offered for job \(offer.job), which has ended")
      }
    }
    if case .workerRegistered(let registration) = event {
      let session = gateway.scheduler.status(now: gateway.instant(now)).workers.last
      for attempt in session?.running ?? [] where registration.running.contains(attempt) { count("takeovers") }
    }
    guard case .taskProgressed(let attempt, _, let step) = event,
      effects.contains(where: { if case .image(_, .progressed) = $0 { true } else { false } })
    else { return }
    let last = judge.lastSteps[gateway.epoch]?[attempt] ?? 0
    if step.completedSteps <= last { report("\(attempt) reports step \(step.completedSteps) after step \(last)") }
    judge.lastSteps[gateway.epoch, default: [:]][attempt] = step.completedSteps
  }

  /// An image has just ended in the journal.
  func checkOutcome(of id: ImageJobID) {
    guard let entry = journal.images[id], let outcome = entry.outcome else { return }
    if let earlier = judge.outcomes[id] { report("job \(id) ends with \(earlier) and again with \(outcome)") }
    judge.outcomes[id] = outcome
    let job = entry.image.job
    switch outcome {
    case .finished(let result):
      count("finished")
      if !ToyModel.results(of: entry.image).contains(result) {
        report("job \(id) gets another image than without faults")
      }
    case .failed(let failure):
      count("failed")
      let isExpected =
        switch failure.code {
        case .cancelled: clients[job.key].wantsCancel
        case .invalidArgument: job.prompt == ToyJob.badPrompt || job.negativePrompt == ToyJob.badPrompt
        // By the wall clock of its owner.
        case .deadlineExceeded: job.deadline.map { $0 <= now + 2500 } ?? false
        default: failure.message.contains("4 times in a row")
        }
      if !isExpected { report("job \(id) fails without a reason: \(failure)") }
    }
  }

  /// When nothing is left to do, nothing must be left.
  func examineRest() {
    for (id, entry) in journal.images where entry.outcome == nil { report("job \(id) has not ended") }
    for case .some(let gateway) in gateways {
      let status = gateway.scheduler.status(now: gateway.instant(now))
      let jobs = status.queuedImages + status.startedImages + status.unadmittedImages + status.endingImages
      if jobs + status.pendingEntries > 0 {
        report("g\(gateway.index) has \(jobs) jobs and \(status.pendingEntries) entries left")
      }
      if gateway.contents.count != status.cacheEntries {
        report("g\(gateway.index) has \(gateway.contents.count) payloads left, its cache \(status.cacheEntries)")
      }
      let load = gateway.scheduler.load(now: gateway.instant(now))
      if load.openJobs > 0 { report("g\(gateway.index) says that it has \(load.openJobs) jobs") }
    }
    for worker in workers where !worker.order.isEmpty || !worker.unsent.isEmpty {
      report("p\(worker.process) still runs \(worker.order), and keeps \(worker.unsent.count) answers")
    }
  }
}

// MARK: - Clients

/// Clients that ask any gateway, and another one each time.
extension ReplicaSimulation {
  func toyJob(key: Int) -> ToyJob {
    let prompt = random.chance(0.05) ? ToyJob.badPrompt : UInt64(random.pick(1...6))
    return ToyJob(
      key: key, model: ToyModel.identities[0], noise: random.next(), prompt: prompt,
      negativePrompt: random.chance(0.4) ? UInt64(random.pick(1...3)) : nil,
      imageCount: random.chance(0.7) ? 1 : random.pick(2...3), steps: random.pick(2...12),
      tenant: TenantID("t\(random.pick(1...3))"), priority: random.chance(0.3) ? .batch : .interactive,
      deadline: random.chance(0.1) ? random.pick(20_000...150_000) : nil)
  }

  func ask(_ client: Int) {
    guard !clients[client].isDone else { return }
    clients[client].attempt += 1
    schedule(.resend(client: client, attempt: clients[client].attempt), in: 4000)
    var request = Request.submit
    // Now and then the first request again, though it was answered.
    if let id = clients[client].id, !random.chance(0.1) {
      request = clients[client].wantsCancel && random.chance(0.7) ? .cancel(id) : .status(id)
    }
    let copies = random.chance(0.1) ? 2 : 1
    for _ in 0..<copies {
      if isChaos, random.chance(0.1) { continue }
      schedule(
        .request(client: client, gateway: random.pick(0...gateways.count - 1), request), in: random.pick(1...300))
    }
  }

  func respond(_ response: Response, _ client: Int) {
    if isChaos, random.chance(0.1) { return }
    schedule(.response(client: client, response), in: random.pick(1...300))
  }

  func serve(_ request: Request, of client: Int, at index: Int) {
    guard let gateway = gateways[index] else { return }
    guard reachesJournal(index), !gateway.isStopping else {
      respond(.refused(Status(.unavailable, "the journal cannot be reached")), client)
      return
    }
    switch request {
    case .submit: submit(client, gateway)
    case .status(let name): respond(state(of: name, client), client)
    case .cancel(let name):
      let ids = journal.images(of: name, clients[client].job).filter { $0.outcome == nil }
      let owners = Set(ids.map(\.owner)), known = judge.cancels[client]
      if known?.owners != owners || !areHealthy(owners, since: known?.at ?? now) {
        judge.cancels[client] = (now, owners)
      } else if let known, !owners.isEmpty, now - known.at > 9000 {
        report("request \(client) was cancelled \(now - known.at) ms ago, and continues")
      }
      for entry in ids where entry.owner == gateway.epoch {
        process(.imageCancelled(entry.image.id, reason: Status(.cancelled, "not wanted any more")), gateway)
      }
      for owner in Set(ids.map(\.owner)).sorted() where owner != gateway.epoch && mutation != .forwardedCancel {
        count("forwarded cancels")
        notify(.cancel(ids.filter { $0.owner == owner }.map(\.image.id)), only: owner)
      }
      respond(state(of: name, client), client)
    }
  }

  /// Whether owners have heard for some time what others have to say, and could write.
  private func areHealthy(_ owners: Set<Int64>, since: Int) -> Bool {
    guard since >= scenario.chaosMs || scenario.messageLoss == 0, now >= journalDownUntil else { return false }
    return owners.allSatisfy { epoch in
      gateways.contains { gateway in
        gateway.map { $0.epoch == epoch && healthySince[$0.index].map { $0 <= since } ?? false } ?? false
      }
    }
  }

  private func state(of name: String, _ client: Int) -> Response {
    let entries = journal.images(of: name, clients[client].job), outcomes = entries.compactMap(\.outcome)
    if entries.count < clients[client].job.imageCount { return .unknown }
    return outcomes.count == entries.count ? .ended(outcomes) : .running
  }

  private func submit(_ client: Int, _ gateway: ReplicaGateway) {
    let job = clients[client].job
    if let name = journal.keys[job.key],
      mutation != .uniqueKeys || gateway.jobs.values.contains(where: { $0.name == name })
    {
      count("requests known by their key")
      respond(.accepted(name), client)
      return
    }
    if let name = gateway.unadmittedKeys[job.key] {
      gateway.unadmitted[name]?.append(client)
      return
    }
    lastJob += 1
    let name = "job\(lastJob)"
    let images = (0..<job.imageCount).map { ToyImage(name: name, index: $0, job: job) }
    for image in images { gateway.jobs[image.id] = image }
    gateway.unadmittedKeys[job.key] = name
    gateway.unadmitted[name] = [client]
    process(.imagesSubmitted(images.map { submission($0, gateway) }), gateway)
  }

  func take(_ response: Response, client: Int) {
    guard !clients[client].isDone else { return }
    clients[client].attempt += 1
    switch response {
    case .accepted(let id):
      if let known = clients[client].id, known != id { report("request \(client) is job \(known) and job \(id)") }
      if clients[client].id == nil, random.chance(0.2) { clients[client].wantsCancel = true }
      clients[client].id = id
    case .refused(let failure):
      if failure.code == .deadlineExceeded, clients[client].id == nil { clients[client].isRefused = true }
    case .running: break
    case .ended(let outcomes):
      clients[client].outcomes = outcomes
      let ids = ToyImage.ids(clients[client].id ?? "", clients[client].job)
      if ids.map({ judge.outcomes[$0] }) != outcomes.map({ $0 }) { report("\(ids) ended with \(outcomes), and not") }
    case .unknown: report("job \(clients[client].id ?? "?") was acknowledged and is not known")
    }
    schedule(.resend(client: client, attempt: clients[client].attempt), in: random.pick(500...4000))
  }
}
