import Scheduling

/// What outlives every gateway in the eyes of the world, and so must stay true.
struct Judge {
  struct Holder: Hashable {
    var attempt: AttemptID
    var worker: WorkerID
  }

  /// Jobs that were acknowledged to a client, with its key.
  var acknowledged: [String: Int] = [:]
  /// Ends of images that a client was notified of.
  var reported: [ImageJobID: Outcome] = [:]
  /// Jobs that were admitted, by key.
  var admitted: [Int: String] = [:]
  /// Every attempt that was ever offered.
  var offered: Set<AttemptID> = []
  /// Steps that clients were notified of, by attempt.
  var lastSteps: [AttemptID: Int] = [:]

  /// Of this gateway: whose answers count.
  var holders: [TaskID: Holder] = [:]
  /// Of this gateway: images whose end is in the journal, or on the way there.
  var ended: Set<ImageJobID> = []

  mutating func forgetGateway() {
    holders = [:]
    ended = []
  }
}

extension Simulation {
  /// Compares what the scheduler does with a much simpler idea of it.
  func examine(_ event: Event, _ effects: [Effect]) {
    examineAnswer(event, effects)
    for effect in effects {
      switch effect {
      case .offer(let offer, let worker):
        if judge.reported[offer.job] != nil || judge.ended.contains(offer.job) {
          report("\(offer.attempt) is offered for job \(offer.job), which has ended")
        }
        if !judge.offered.insert(offer.attempt).inserted { report("\(offer.attempt) is offered a second time") }
        if offer.attempt.assistance > 0 { continue }
        judge.holders[offer.attempt.task] = Judge.Holder(attempt: offer.attempt, worker: worker)
      case .cancel(let attempt, let worker, _):
        if judge.holders[attempt.task] == Judge.Holder(attempt: attempt, worker: worker) {
          judge.holders[attempt.task] = nil
        }
      case .worker(let worker, .gone): judge.holders = judge.holders.filter { $0.value.worker != worker }
      case .journal(_, let entry): examineEntry(entry)
      case .admitted(let id): examineAdmission(of: id)
      case .image, .rejected, .disowned, .claim, .worker, .switchModel, .assistantLost, .release: break
      }
    }
    if case .workerRegistered(let registration) = event { noteAdoptions(of: registration) }
  }

  /// An answer that is not its task's current attempt's must leave no trace.
  private func examineAnswer(_ event: Event, _ effects: [Effect]) {
    let (attempt, worker, payload): (AttemptID, WorkerID, Payload?)
    switch event {
    case .taskProgressed(let id, let by, let report): (attempt, worker, payload) = (id, by, report.checkpoint)
    case .taskFinished(let id, let by, let output): (attempt, worker, payload) = (id, by, output)
    case .taskFailed(let id, let by, _): (attempt, worker, payload) = (id, by, nil)
    default: return
    }
    guard judge.holders[attempt.task] == Judge.Holder(attempt: attempt, worker: worker) else {
      count("stale answers")
      let isTaken = effects.contains {
        switch $0 {
        case .image(_, .progressed), .image(_, .finished), .image(_, .failed), .journal(_, .taskFinished),
          .journal(_, .checkpointed):
          true
        default: false
        }
      }
      if isTaken || payload.map({ !effects.contains(.release($0)) }) ?? false {
        report("the stale answer of \(attempt) counts")
      }
      return
    }
    if case .taskProgressed(_, _, let step) = event {
      let isReported = effects.contains { if case .image(_, .progressed) = $0 { true } else { false } }
      guard isReported else { return }
      if step.completedSteps <= judge.lastSteps[attempt] ?? 0 {
        report("\(attempt) reports step \(step.completedSteps) after step \(judge.lastSteps[attempt] ?? 0)")
      }
      judge.lastSteps[attempt] = step.completedSteps
    } else {
      judge.holders[attempt.task] = nil
    }
  }

  private func noteAdoptions(of registration: WorkerRegistration) {
    guard let gateway else { return }
    let sessions = gateway.scheduler.status(now: gateway.instant(now)).workers
    for attempt in sessions.first(where: { $0.registration.id == registration.id })?.running ?? [] {
      if !judge.offered.contains(attempt) { report("\(attempt) was never offered, but is taken over") }
      if attempt.assistance > 0 { report("\(attempt) is taken over, but only assists") }
      let holder = Judge.Holder(attempt: attempt, worker: registration.id)
      if registration.running.contains(attempt), judge.holders[attempt.task] != holder { count("adoptions") }
      judge.holders[attempt.task] = holder
    }
  }

  private func examineEntry(_ entry: JournalEntry) {
    switch entry {
    case .imagesAdmitted: break
    case .attemptStarted(_, let places), .taskFinished(let places, _, _), .checkpointed(let places, _, _):
      for place in places where judge.ended.contains(place.job) {
        report("\(place) is journalled after the end of its job")
      }
      if places.isEmpty { report("an entry is for no job: \(entry)") }
    case .imageFinished(let id, _), .imageFailed(let id, _): judge.ended.insert(id)
    }
  }

  private func examineAdmission(of id: ImageJobID) {
    guard let image = gateway?.jobs[id] else { return }
    if let other = judge.admitted[image.job.key], other != image.name {
      report("request \(image.job.key) is admitted as job \(other) and as job \(image.name)")
    }
    judge.admitted[image.job.key] = image.name
  }

  func checkOutcome(_ outcome: Outcome, of id: ImageJobID, _ image: ToyImage?) {
    if let earlier = judge.reported[id] { report("job \(id) ends with \(earlier) and again with \(outcome)") }
    judge.reported[id] = outcome
    guard let image else { return }
    let job = image.job
    switch outcome {
    case .finished(let result):
      count("finished")
      if !ToyModel.results(of: image).contains(result) { report("job \(id) gets another image than without faults") }
    case .failed(let failure):
      count("failed")
      let isExpected =
        switch failure.code {
        case .cancelled: clients[job.key].wantsCancel
        case .invalidArgument:
          job.prompt == ToyJob.badPrompt || job.negativePrompt == ToyJob.badPrompt || job.input == ToyJob.badInput
        case .deadlineExceeded: job.deadline.map { $0 <= now } ?? false
        default: failure.message.contains("4 times in a row")
        }
      if !isExpected { report("job \(id) fails without a reason: \(failure)") }
    }
  }

  /// What was promised before the crash must be on the disk.
  func checkRecovery(_ database: ToyDatabase) {
    for (name, key) in judge.acknowledged.sorted(by: { $0.key < $1.key }) {
      for id in ToyImage.ids(name, clients[key].job) where database.jobs[id] == nil {
        report("image \(id) was acknowledged for request \(key) and is lost")
      }
    }
    for (id, outcome) in judge.reported.sorted(by: { $0.key.text < $1.key.text })
    where database.jobs[id]?.outcome != outcome {
      report("job \(id) was reported to have ended with \(outcome), but the journal does not know")
    }
    for (id, entry) in database.jobs {
      let (name, key) = (entry.image.name, entry.image.job.key)
      if let other = judge.admitted[key], other != name { report("request \(key) is job \(other) and job \(name)") }
      judge.admitted[key] = name
      if let sibling = ToyImage.ids(name, entry.image.job).first(where: { database.jobs[$0] == nil }) {
        report("image \(id) is in the journal, but not \(sibling) of the same job")
      }
      // Clients that ask from now on get the end.
      if let outcome = entry.outcome, judge.reported[id] == nil { checkOutcome(outcome, of: id, entry.image) }
    }
    checkInputs(database)
  }

  /// A job that has not ended has its image in the journal, and no other image is there.
  private func checkInputs(_ database: ToyDatabase) {
    var needed: Set<UInt64> = []
    for (id, entry) in database.jobs where entry.outcome == nil {
      guard let input = entry.image.job.input else { continue }
      needed.insert(input)
      if !database.inputs.contains(input) { report("the image that \(id) begins with is lost") }
    }
    for input in database.inputs.sorted() where !needed.contains(input) {
      report("the journal has image \(input), with which no open job begins")
    }
  }

  /// When nothing is left to do, nothing must be left.
  func examineRest() {
    guard let gateway else { return }
    let status = gateway.scheduler.status(now: gateway.instant(now))
    let jobs = status.queuedImages + status.startedImages + status.unadmittedImages + status.endingImages
    let acknowledged = judge.acknowledged.filter { name, key in
      !ToyImage.ids(name, clients[key].job).allSatisfy { judge.reported[$0] != nil }
    }.keys
    if jobs > 0 || !acknowledged.isEmpty {
      report("\(jobs) jobs are left, of those that were acknowledged \(acknowledged.sorted())")
    }
    if status.pendingEntries > 0 { report("\(status.pendingEntries) entries are left") }
    if gateway.contents.count != status.cacheEntries {
      report("\(gateway.contents.count) payloads are left, the cache has \(status.cacheEntries)")
    }
    if !gateway.inputs.isEmpty { report("images are left that jobs began with: \(gateway.inputs.keys.sorted())") }
    for worker in workers where !worker.running.isEmpty && !worker.tasks.values.contains(where: \.isStuck) {
      report("p\(worker.process) still runs \(worker.running)")
    }
  }
}
