import ClusterCore
import Scheduling

extension ReplicaSimulation {
  func process(_ event: Event, _ gateway: ReplicaGateway) {
    let effects = gateway.scheduler.step(event, now: gateway.instant(now))
    if trace != nil {
      if case .tick = event, effects.isEmpty {} else { log("g\(gateway.index) > \(event)") }
      for effect in effects { log("g\(gateway.index)   < \(effect)") }
    }
    examine(event, effects, gateway)
    for effect in effects { carryOut(effect, gateway) }
    for problem in gateway.scheduler.brokenInvariants() { report("g\(gateway.index): \(problem)") }
    guard !gateway.isWriting, !gateway.entries.isEmpty else { return }
    gateway.isWriting = true
    let entries = Array(gateway.entries.prefix(16))
    gateway.entries.removeFirst(entries.count)
    call(.write(entries), gateway)
  }

  private func carryOut(_ effect: Effect, _ gateway: ReplicaGateway) {
    switch effect {
    case .offer(let offer, let worker): sendOffer(offer, to: worker, gateway)
    case .cancel(let attempt, let worker, _): send(.cancel(attempt), to: worker, gateway)
    case .claim(let attempts, let worker):
      count("claims")
      send(.claim(attempts), to: worker, gateway)
    case .journal(let sequence, let entry): gateway.entries.append((sequence, record(of: entry, gateway)))
    case .admitted(let id):
      guard let image = gateway.jobs[id] else { return }
      for client in gateway.unadmitted.removeValue(forKey: image.name) ?? [] { respond(.accepted(image.name), client) }
      gateway.unadmittedKeys[image.job.key] = nil
    case .rejected(let id, let failure): forget(id, failure, gateway)
    case .disowned(let id): forget(id, Status(.unavailable, "another gateway has the jobs"), gateway)
    case .image(let id, let event): if event.isTerminal { gateway.jobs[id] = nil }
    case .worker(let worker, .gone):
      guard let (_, connection) = gateway.connections.removeValue(forKey: worker) else { return }
      if gateway.sessions[connection] == worker { gateway.sessions[connection] = nil }
    case .worker, .assistantLost, .switchModel: break
    case .release(let payload):
      if gateway.contents.removeValue(forKey: payload.id) == nil { report("payload \(payload.id) is released twice") }
    }
  }

  private func forget(_ id: ImageJobID, _ failure: Status, _ gateway: ReplicaGateway) {
    guard let image = gateway.jobs.removeValue(forKey: id) else { return }
    for client in gateway.unadmitted.removeValue(forKey: image.name) ?? [] { respond(.refused(failure), client) }
    gateway.unadmittedKeys[image.job.key] = nil
  }

  private func record(of entry: JournalEntry, _ gateway: ReplicaGateway) -> SharedRecord {
    func content(_ payload: Payload, _ numericsClass: String) -> SharedRecord.Content {
      SharedRecord.Content(
        payload: payload.id, value: gateway.contents[payload.id] ?? 0, numericsClass: numericsClass)
    }
    switch entry {
    case .imagesAdmitted(let submissions): return .admitted(submissions.compactMap { gateway.jobs[$0.id] })
    case .attemptStarted(let attempt, let places): return .attempt(attempt, places: places)
    case .taskFinished(let places, let output, let numericsClass):
      return .output(places: places, content(output, numericsClass))
    case .checkpointed(let places, let checkpoint, let numericsClass):
      return .checkpoint(
        places: places, completedSteps: checkpoint.completedSteps, content(checkpoint.latents, numericsClass))
    case .imageFinished(let id, let output): return .finished(id, gateway.contents[output.id] ?? 0)
    case .imageFailed(let id, let failure): return .failed(id, failure)
    }
  }

  private func sendOffer(_ offer: Offer, to worker: WorkerID, _ gateway: ReplicaGateway) {
    count("offers")
    if offer.resume != nil { count("resumes") }
    guard let image = gateway.jobs[offer.job] else {
      report("\(offer.attempt) is offered for job \(offer.job), which g\(gateway.index) does not have")
      return
    }
    let job = image.job
    let toy = ToyOffer(
      attempt: offer.attempt, model: job.model, stage: image.plan.tasks[offer.index].stage,
      prompt: offer.index == 0 ? job.prompt : job.negativePrompt ?? 0, image: nil, sampleSeed: 0,
      inputs: offer.inputs.compactMap { gateway.contents[$0.id] }, noise: image.noise, steps: job.steps,
      completedSteps: offer.resume?.completedSteps ?? 0,
      latents: offer.resume.flatMap { gateway.contents[$0.latents.id] })
    if toy.inputs.count < offer.inputs.count { report("\(offer.attempt) is offered with a payload that was released") }
    send(.offer(toy), to: worker, gateway)
  }

  // MARK: Workers

  private func delay() -> Int { random.pick(1...(isChaos ? scenario.maxDelayMs : 20)) }

  func send(_ message: WorkerMessage, _ slot: Int, _ link: Int) {
    guard let connection = workers[slot].links[link].connection, let gateway = gateways[link], !isCut(slot, link)
    else { return }
    let time = max(now + delay(), workers[slot].links[link].lastToGateway)
    workers[slot].links[link].lastToGateway = time
    schedule(
      .toGateway(link, life: gateway.life, connection: connection, slot: slot, .message(message)), in: time - now)
  }

  func send(_ message: ReplicaMessage, to worker: WorkerID, _ gateway: ReplicaGateway) {
    guard let (slot, connection) = gateway.connections[worker] else { return }
    send(message, slot, connection, gateway)
  }

  private func send(_ message: ReplicaMessage, _ slot: Int, _ connection: Int, _ gateway: ReplicaGateway) {
    guard !isCut(slot, gateway.index) else { return }
    let time = max(now + delay(), workers[slot].links[gateway.index].lastToWorker)
    workers[slot].links[gateway.index].lastToWorker = time
    schedule(
      .toWorker(slot: slot, process: workers[slot].process, link: gateway.index, connection: connection, message),
      in: time - now)
  }

  func receive(_ what: FromWorker, _ index: Int, life: Int, connection: Int, slot: Int) {
    guard let gateway = gateways[index], gateway.life == life else { return }
    switch what {
    case .lost(let session):
      if gateway.connections[session] != nil { process(.workerLeft(session, reason: "closed"), gateway) }
    case .message(.register(let running)):
      if workers[slot].links[index].connection == connection {
        register(slot, connection, running, gateway)
      }
    case .message(let message):
      guard let session = gateway.sessions[connection] else {
        if workers[slot].links[index].connection == connection { send(.noSession, slot, connection, gateway) }
        return
      }
      if case .report(let name, _, _) = message, name != "\(life)-\(session.number)" {
        send(.noSession, slot, connection, gateway)
        return
      }
      take(message, from: session, slot, gateway)
    }
  }

  private func register(_ slot: Int, _ connection: Int, _ running: [AttemptID], _ gateway: ReplicaGateway) {
    gateway.nextSession += 1
    let session = WorkerID(gateway.nextSession), worker = workers[slot]
    let keepsConnection = gateway.sessions[connection] != nil
    gateway.sessions[connection] = session
    gateway.connections[session] = (slot, connection)
    send(.registered(session: "\(gateway.life)-\(session.number)"), slot, connection, gateway)
    process(
      .workerRegistered(
        WorkerRegistration(
          id: session, name: "p\(worker.process)", stage: worker.stage, model: ToyModel.identities[0],
          numericsClass: worker.numericsClass, credits: worker.credits, running: running,
          keepsConnection: keepsConnection)), gateway)
  }

  private func take(_ message: WorkerMessage, from session: WorkerID, _ slot: Int, _ gateway: ReplicaGateway) {
    switch message {
    case .register, .goodbye: break
    case .report(_, let running, _):
      let foreignCount = workers[slot].foreignCount(gateway.index)
      process(.workerReported(session, WorkerReport(running: running, foreignCount: foreignCount)), gateway)
    case .accepted(let attempt): process(.taskAccepted(attempt, by: session), gateway)
    case .progress(let attempt, let completedSteps, let latents):
      let checkpoint = gateway.insert(latents)
      process(
        .taskProgressed(
          attempt, by: session, StepReport(completedSteps: completedSteps, stepSeconds: 1, checkpoint: checkpoint)),
        gateway)
    case .finished(let attempt, let output):
      process(.taskFinished(attempt, by: session, output: gateway.insert(output)), gateway)
    case .failed(let attempt, let failure): process(.taskFailed(attempt, by: session, failure), gateway)
    }
  }
}
