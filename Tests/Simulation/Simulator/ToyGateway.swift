import ClusterCore
import Scheduling

/// What a gateway process holds in memory: all of it is gone when it is killed.
final class ToyGateway {
  /// How many have been before.
  let life: Int
  let startedAt: Int
  var scheduler: Scheduler
  var contents: [UInt64: UInt64] = [:]
  private var nextPayload: UInt64 = 0
  var nextSession: UInt64 = 0
  var sessions: [Int: WorkerID] = [:]
  var connections: [WorkerID: (slot: Int, connection: Int)] = [:]
  /// The last session of every connection, open or not.
  var lastSessions: [Int: WorkerID] = [:]
  /// Images of all jobs that it knows.
  var jobs: [ImageJobID: ToyImage] = [:]
  var keys: [Int: String] = [:]
  /// The images that open jobs begin with, and the names of the jobs that have them.
  var inputs: [UInt64: Set<String>] = [:]
  var outcomes: [ImageJobID: Outcome] = [:]
  /// Jobs that are not admitted yet, and who waits for that.
  var unadmitted: [String: [Int]] = [:]
  var journal: [(sequence: JournalSequence, record: LogRecord)] = []
  /// Entries at the front of `journal` that are being written; 0: none.
  var committing = 0

  init(life: Int, startedAt: Int, scheduler: Scheduler) {
    self.life = life
    self.startedAt = startedAt
    self.scheduler = scheduler
  }

  /// The gateway's own clock, which starts with it.
  func instant(_ now: Int) -> Instant { Instant(sinceZero: .milliseconds(now - startedAt)) }

  func insert(_ content: UInt64) -> Payload {
    nextPayload += 1
    contents[nextPayload] = content
    return Payload(id: nextPayload, byteCount: 100)
  }

  /// Lets go of the image that a job begins with; it goes with the last job that has it.
  func releaseInput(of image: ToyImage) {
    guard let input = image.job.input else { return }
    inputs[input]?.remove(image.name)
    if inputs[input]?.isEmpty == true { inputs[input] = nil }
  }
}

// MARK: - Start and end

extension Simulation {
  func startGateway() {
    disk.repair()
    disk.runs += 1
    let database = ToyDatabase(disk.log, releasesEarly: mutation == .inputRelease)
    checkRecovery(database)
    let run = mutation == .runNumber ? 0 : UInt32(disk.runs - 1)
    let gateway = ToyGateway(
      life: disk.runs, startedAt: now, scheduler: Scheduler(configuration: schedulingConfiguration, run: run))
    switch mutation {
    case .fencing: gateway.scheduler.omissions = .fencing
    case .credits: gateway.scheduler.omissions = .credits
    case .checkpointOrder: gateway.scheduler.omissions = .stepOrder
    case .model: gateway.scheduler.omissions = .model
    case .numericsClass: gateway.scheduler.omissions = .numericsClass
    case .assistance: gateway.scheduler.omissions = .assistance
    default: break
    }
    self.gateway = gateway
    log("gateway \(gateway.life) starts")
    var restored: [RestoredImageJob] = []
    for (id, entry) in database.jobs {
      gateway.jobs[id] = entry.image
      gateway.keys[entry.image.job.key] = entry.image.name
      guard entry.outcome == nil else {
        gateway.outcomes[id] = entry.outcome
        continue
      }
      if let input = entry.image.job.input, database.inputs.contains(input) {
        gateway.inputs[input, default: []].insert(entry.image.name)
      }
      restored.append(restore(entry))
    }
    coverage.counts["restored jobs", default: 0] += restored.count
    process(.restored(restored))
    process(.tenantsChanged([Tenant(id: TenantID("t1"), policy: TenantPolicy(weight: 3, maxJobs: 4))]))
    schedule(.tick(life: gateway.life), in: 1000)
  }

  private var schedulingConfiguration: SchedulingConfiguration {
    var configuration = SchedulingConfiguration.toy(maxJobs: scenario.maxJobs)
    configuration.modelPatience = .seconds(20)
    configuration.modelSwitchLimit = .seconds(120)
    configuration.assistedStepDuration = .milliseconds(300)
    if scenario.maxDelayMs.isMultiple(of: 2) { configuration.slowWorkerFactor = 3 }
    return configuration
  }

  private func restore(_ entry: ToyDatabase.Entry) -> RestoredImageJob {
    let tasks = entry.tasks.sorted { $0.key < $1.key }.map { index, task in
      RestoredTask(
        index: index, attemptNumber: task.attemptNumber, output: task.output.flatMap { gateway?.insert($0.value) },
        checkpoint: task.checkpoint.flatMap { checkpoint in
          gateway.map { Checkpoint(completedSteps: checkpoint.completedSteps, latents: $0.insert(checkpoint.latents)) }
        },
        numericsClass: task.output?.numericsClass ?? task.checkpoint?.numericsClass)
    }
    return RestoredImageJob(submission: submission(entry.image), tasks: tasks)
  }

  private func submission(_ image: ToyImage) -> ImageJobSubmission {
    ImageJobSubmission(
      id: image.id, model: image.job.model, plan: image.plan,
      deadline: image.job.deadline.flatMap { gateway?.instant($0) }, tenant: image.job.tenant,
      priority: image.job.priority)
  }

  /// kill -9, at any instant. Of what the journal was writing, a part may be on the disk.
  func killGateway() {
    guard let dead = gateway else { return }
    count("gateway kills")
    log("gateway \(dead.life) is killed")
    disk.write(dead.journal.prefix(dead.committing).map(\.record))
    let writtenCount = disk.unsynced.count
    let survivingCount = writtenCount == 0 ? 0 : random.pick(0...writtenCount)
    let isTorn = survivingCount < writtenCount && random.chance(0.5)
    if isTorn { count("torn writes") }
    if dead.journal.count > survivingCount { count("lost writes") }
    disk.crash(surviving: survivingCount, isTorn: isTorn)
    gateway = nil
    gatewayFrozenUntil = 0
    judge.forgetGateway()
    for slot in workers.indices where workers[slot].connection != nil {
      workers[slot].connection = nil
      workers[slot].session = nil
      schedule(.connect(slot: slot, process: workers[slot].process), in: random.pick(200...4000))
    }
    schedule(.startGateway, in: random.chance(0.2) ? random.pick(10_000...40_000) : random.pick(50...3000))
  }

  func tick(life: Int) {
    guard let gateway, gateway.life == life else { return }
    process(.tick)
    schedule(.tick(life: life), in: 1000)
  }
}

// MARK: - Effects

extension Simulation {
  func process(_ event: Event) {
    guard let gateway else { return }
    let effects = gateway.scheduler.step(event, now: gateway.instant(now))
    if trace != nil { traceStep(event, effects) }
    examine(event, effects)
    for effect in effects { carryOut(effect, gateway) }
    for problem in gateway.scheduler.brokenInvariants() { report(problem) }
    if gateway.committing == 0, !gateway.journal.isEmpty { startCommit(gateway) }
  }

  private func traceStep(_ event: Event, _ effects: [Effect]) {
    if case .tick = event, effects.isEmpty { return }
    log("> \(event)")
    for effect in effects { log("  < \(effect)") }
  }

  private func carryOut(_ effect: Effect, _ gateway: ToyGateway) {
    switch effect {
    case .offer(let offer, let worker): sendOffer(offer, to: worker, gateway)
    case .cancel(let attempt, let worker, _): send(.cancel(attempt), to: worker, gateway)
    case .assistantLost: count("lost assistants")
    case .switchModel(let worker, let model): send(.switchModel(model), to: worker, gateway)
    case .journal(let sequence, let entry):
      gateway.journal.append((sequence, record(of: entry, gateway)))
      if mutation == .endGate { tellEarly(entry, gateway) }
    case .admitted(let id): acknowledge(id, gateway)
    case .image(let id, .finished(let output)): tell(id, gateway.contents[output.id].map { .finished($0) }, gateway)
    case .image(let id, .failed(let failure)): tell(id, .failed(failure), gateway)
    case .image(_, .retrying): count("retries")
    case .image(_, .held): count("held ends")
    case .image, .disowned, .claim: break
    case .rejected(let id, let failure): refuse(id, failure, gateway)
    case .worker(let worker, .gone(let reason)): close(worker, reason, gateway)
    case .worker(_, .quarantined): count("quarantines")
    case .worker: break
    case .release(let payload):
      if gateway.contents.removeValue(forKey: payload.id) == nil { report("payload \(payload.id) is released twice") }
    }
  }

  private func close(_ worker: WorkerID, _ reason: String, _ gateway: ToyGateway) {
    guard let (slot, connection) = gateway.connections.removeValue(forKey: worker) else { return }
    if reason.hasPrefix("no message"), workers[slot].connection == connection { workers[slot].hasLostLease = true }
    if gateway.sessions[connection] == worker { gateway.sessions[connection] = nil }
  }

  private func sendOffer(_ offer: Offer, to worker: WorkerID, _ gateway: ToyGateway) {
    count("offers")
    if offer.resume != nil { count("resumes") }
    if offer.attempt.assistance > 0 { count("assistances") }
    guard let image = gateway.jobs[offer.job] else {
      report("\(offer.attempt) is offered for the unknown job \(offer.job)")
      return
    }
    let inputs = offer.inputs.compactMap { gateway.contents[$0.id] }
    let latents = offer.resume.flatMap { gateway.contents[$0.latents.id] }
    if inputs.count < offer.inputs.count || (latents == nil) != (offer.resume == nil) {
      report("\(offer.attempt) is offered with a payload that was released")
    }
    let job = image.job, stage = image.plan.tasks[offer.index].stage
    // The image goes with the tasks that see it.
    let needed = stage == .vaeEncoder || stage == .textEncoder && job.isEdit ? job.input : nil
    let content = needed.flatMap { gateway.inputs[$0] == nil ? nil : $0 }
    if needed != nil, content == nil {
      report("\(offer.attempt) is offered without the image that its job begins with")
    }
    let toy = ToyOffer(
      attempt: offer.attempt, model: job.model, stage: stage,
      prompt: offer.index == 0 ? job.prompt : job.negativePrompt ?? 0,
      image: content, sampleSeed: image.sampleSeed, inputs: inputs, noise: image.noise, steps: job.steps,
      completedSteps: offer.resume?.completedSteps ?? 0, latents: latents)
    send(.offer(toy), to: worker, gateway)
  }

  // MARK: Clients

  func serve(_ request: Request, of client: Int) {
    guard let gateway else { return }
    switch request {
    case .submit: submit(clients[client].job, client: client, gateway)
    case .status(let name):
      let ids = ToyImage.ids(name, clients[client].job), outcomes = ids.compactMap { gateway.outcomes[$0] }
      let isKnown = gateway.unadmitted[name] == nil && ids.allSatisfy { gateway.jobs[$0] != nil }
      let response: Response = !isKnown ? .unknown : outcomes.count == ids.count ? .ended(outcomes) : .running
      respond(response, to: request, client: client)
    case .cancel(let name):
      for id in ToyImage.ids(name, clients[client].job) {
        process(.imageCancelled(id, reason: Status(.cancelled, "the client does not want it any more")))
      }
    }
  }

  private func submit(_ job: ToyJob, client: Int, _ gateway: ToyGateway) {
    if mutation != .deduplication, let name = gateway.keys[job.key] {
      count("requests known by their key")
      if gateway.unadmitted[name] != nil {
        gateway.unadmitted[name]?.append(client)
      } else {
        respond(.accepted(name), to: .submit, client: client)
      }
      return
    }
    nextJob += 1
    let name = "job\(nextJob)"
    let images = (0..<job.imageCount).map { ToyImage(name: name, index: $0, job: job) }
    for image in images { gateway.jobs[image.id] = image }
    if let input = job.input {
      count("jobs that begin with an image")
      gateway.inputs[input, default: []].insert(name)
    }
    if images.count > 1 { count("jobs of several images") }
    gateway.keys[job.key] = name
    gateway.unadmitted[name] = [client]
    if mutation == .admissionGate {
      judge.acknowledged[name] = job.key
      respond(.accepted(name), to: .submit, client: client)
    }
    process(.imagesSubmitted(images.map { submission($0) }))
  }

  /// The admission of a job's first image is that of the others, too.
  private func acknowledge(_ id: ImageJobID, _ gateway: ToyGateway) {
    guard let image = gateway.jobs[id] else { return }
    for client in gateway.unadmitted.removeValue(forKey: image.name) ?? [] {
      judge.acknowledged[image.name] = image.job.key
      respond(.accepted(image.name), to: .submit, client: client)
    }
  }

  private func refuse(_ id: ImageJobID, _ failure: Status, _ gateway: ToyGateway) {
    count(failure.resource == .storage ? "jobs refused for lack of space" : "jobs refused")
    guard let image = gateway.jobs.removeValue(forKey: id) else { return }
    if judge.acknowledged[image.name] != nil, mutation != .admissionGate {
      report("image \(id) is refused, but its job was acknowledged")
    }
    gateway.releaseInput(of: image)
    if gateway.keys[image.job.key] == image.name { gateway.keys[image.job.key] = nil }
    for client in gateway.unadmitted.removeValue(forKey: image.name) ?? [] {
      respond(.refused(failure), to: .submit, client: client)
    }
  }

  private func tell(_ id: ImageJobID, _ outcome: Outcome?, _ gateway: ToyGateway) {
    guard let outcome else {
      report("job \(id) finishes without an image")
      return
    }
    let image = gateway.jobs[id]
    checkOutcome(outcome, of: id, image)
    gateway.outcomes[id] = outcome
    guard let image, mutation != .inputLeak else { return }
    let isOver = ToyImage.ids(image.name, image.job).allSatisfy { gateway.outcomes[$0] != nil }
    if isOver || mutation == .inputRelease { gateway.releaseInput(of: image) }
  }

  private func tellEarly(_ entry: JournalEntry, _ gateway: ToyGateway) {
    switch entry {
    case .imageFinished(let id, let output): tell(id, gateway.contents[output.id].map { .finished($0) }, gateway)
    case .imageFailed(let id, let failure): tell(id, .failed(failure), gateway)
    default: break
    }
  }
}

// MARK: - Journal

extension Simulation {
  private func record(of entry: JournalEntry, _ gateway: ToyGateway) -> LogRecord {
    let content = { (payload: Payload) in
      gateway.contents[payload.id] ?? 0
    }
    switch entry {
    case .imagesAdmitted(let submissions):
      let images = submissions.compactMap { gateway.jobs[$0.id] }
      return .admitted(images, inputs: mutation == .inputJournal ? [] : Set(images.compactMap(\.job.input)))
    case .attemptStarted(let attempt, let places): return .attempt(attempt, places: places)
    case .taskFinished(let places, let output, let numericsClass):
      return .output(places: places, content(output), numericsClass)
    case .checkpointed(let places, let checkpoint, let numericsClass):
      return .checkpoint(
        places: places, completedSteps: checkpoint.completedSteps, content(checkpoint.latents), numericsClass)
    case .imageFinished(let id, let output): return .finished(id, content(output))
    case .imageFailed(let id, let failure): return .failed(id, failure)
    }
  }

  /// Everything that waits is written at once.
  private func startCommit(_ gateway: ToyGateway) {
    gateway.committing = min(gateway.journal.count, 16)
    let stall = isChaos && random.chance(scenario.stallChance) ? random.pick(1000...15_000) : 0
    if stall > 0 { count("disk stalls") }
    schedule(.commit(life: gateway.life), in: random.pick(1...scenario.maxCommitMs) + stall)
  }

  func commit(life: Int) {
    guard let gateway, gateway.life == life else { return }
    let entries = Array(gateway.journal.prefix(gateway.committing))
    gateway.journal.removeFirst(entries.count)
    gateway.committing = 0
    guard let last = entries.last else { return }
    let isFull = now < diskFullUntil
    var refused: [JournalSequence] = []
    for (sequence, record) in entries {
      if isFull, !record.isSmall || random.chance(0.5) { refused.append(sequence) } else { disk.write([record]) }
    }
    // The mutant's disk syncs now and then.
    if mutation != .fsync || random.chance(0.1) { disk.sync() }
    for sequence in refused {
      count("entries refused")
      process(.journalRefused(sequence, Status(.resourceExhausted, "the disk is full", resource: .storage)))
    }
    process(.journalled(through: last.sequence))
    if gateway.committing == 0, !gateway.journal.isEmpty { startCommit(gateway) }
  }
}

extension LogRecord {
  fileprivate var isSmall: Bool {
    switch self {
    case .attempt, .failed: true
    case .admitted, .output, .checkpoint, .finished, .torn: false
    }
  }
}
