import ClusterCore
import Scheduling

extension Simulation {
  func isPartitioned(_ slot: Int) -> Bool { partitions[slot].map { now < $0 } ?? false }

  private func delay() -> Int { random.pick(1...(isChaos ? scenario.maxDelayMs : 20)) }

  /// How often a message arrives.
  private func copies(slot: Int) -> Int {
    if isPartitioned(slot) {
      count("drops by partitions")
      return 0
    }
    guard isChaos else { return 1 }
    if random.chance(scenario.dropChance) {
      count("drops")
      return 0
    }
    guard random.chance(scenario.duplicateChance) else { return 1 }
    count("duplicates")
    return 2
  }

  func send(_ message: WorkerMessage, from slot: Int) {
    guard let connection = workers[slot].connection else { return }
    for _ in 0..<copies(slot: slot) {
      var time = now + delay()
      if !scenario.isReordered { time = max(time, workers[slot].lastToGateway) }
      if time < workers[slot].lastToGateway { count("reorderings") }
      workers[slot].lastToGateway = max(time, workers[slot].lastToGateway)
      schedule(.toGateway(slot: slot, connection: connection, message), in: time - now)
    }
  }

  func send(_ message: GatewayMessage, to worker: WorkerID, _ gateway: ToyGateway) {
    guard let (slot, connection) = gateway.connections[worker] else { return }
    send(message, slot: slot, connection: connection)
  }

  private func send(_ message: GatewayMessage, slot: Int, connection: Int) {
    for _ in 0..<copies(slot: slot) {
      var time = now + delay()
      if !scenario.isReordered { time = max(time, workers[slot].lastToWorker) }
      workers[slot].lastToWorker = max(time, workers[slot].lastToWorker)
      schedule(.toWorker(slot: slot, process: workers[slot].process, connection: connection, message), in: time - now)
    }
  }

  // MARK: What the gateway gets

  func receive(_ message: WorkerMessage, slot: Int, connection: Int) {
    // A gateway that has been started since has never seen the connection.
    guard let gateway, workers[slot].connection == connection || gateway.lastSessions[connection] != nil else { return }
    if case .register(let running) = message {
      if workers[slot].connection == connection { register(slot: slot, connection: connection, running, gateway) }
      return
    }
    guard let session = gateway.sessions[connection] else {
      if let late = gateway.lastSessions[connection], random.chance(0.5) {
        // What a closed session sends must not count, should it ever get this far.
        count("answers of closed sessions")
        take(message, from: late, gateway)
      } else if workers[slot].connection == connection {
        send(.noSession, slot: slot, connection: connection)
      }
      return
    }
    if case .report(let name, _, _) = message, name != "\(gateway.life)-\(session.number)" {
      send(.noSession, slot: slot, connection: connection)
      return
    }
    take(message, from: session, gateway)
  }

  private func register(slot: Int, connection: Int, _ running: [AttemptID], _ gateway: ToyGateway) {
    gateway.nextSession += 1
    let session = WorkerID(gateway.nextSession)
    let worker = workers[slot]
    let keepsConnection = gateway.sessions[connection] != nil
    gateway.sessions[connection] = session
    gateway.lastSessions[connection] = session
    gateway.connections[session] = (slot, connection)
    send(.registered(session: "\(gateway.life)-\(session.number)"), slot: slot, connection: connection)
    process(
      .workerRegistered(
        WorkerRegistration(
          id: session, name: "p\(worker.process)", stage: worker.stage, model: worker.model, standby: standby(worker),
          numericsClass: worker.numericsClass,
          credits: worker.credits, assists: worker.stage == .denoiser, running: running,
          keepsConnection: keepsConnection)))
  }

  private func standby(_ worker: ToyWorker) -> [ModelIdentity: [PipelineName]] {
    guard scenario.hasTwoModels else { return [:] }
    return Dictionary(
      uniqueKeysWithValues: ToyModel.identities.filter { $0 != worker.model }.map { ($0, [.textToImage]) })
  }

  private func take(_ message: WorkerMessage, from session: WorkerID, _ gateway: ToyGateway) {
    switch message {
    case .register: break
    case .report(_, let running, let isDraining):
      process(.workerReported(session, WorkerReport(running: running, isDraining: isDraining)))
    case .accepted(let attempt): process(.taskAccepted(attempt, by: session))
    case .progress(let attempt, let completedSteps, let latents):
      let checkpoint = gateway.insert(latents)
      process(
        .taskProgressed(
          attempt, by: session, StepReport(completedSteps: completedSteps, stepSeconds: 1, checkpoint: checkpoint)))
    case .finished(let attempt, let output):
      process(.taskFinished(attempt, by: session, output: gateway.insert(output)))
    case .failed(let attempt, let failure): process(.taskFailed(attempt, by: session, failure))
    case .goodbye: process(.workerLeft(session, reason: "goodbye"))
    }
  }
}
