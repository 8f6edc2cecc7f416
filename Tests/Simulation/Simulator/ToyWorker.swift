import ClusterCore
import Scheduling

/// A place where processes of one kind run, one after the other.
struct ToyWorker {
  struct Task {
    var offer: ToyOffer
    var latents: UInt64
    var completedSteps: Int
    var isCancelled = false
    /// Computes for ever.
    var isStuck = false
  }

  let stage: StageName
  let numericsClass: String
  let credits: Int
  /// What a process starts with.
  var model = ToyModel.identities[0]
  /// To be loaded when nothing runs any more.
  var nextModel: ModelIdentity?
  /// 0: none runs.
  var process = 0
  var connection: Int?
  var session: String?
  /// On this connection: the gateway has forgotten what is still on its way.
  var hasLostLease = false
  var isFrozen = false
  var slowness = 1
  /// Nothing that it computes comes out.
  var isSick = false
  var isDraining = false
  /// Looked up by attempt, iterated in the order of `order`.
  var tasks: [AttemptID: Task] = [:]
  var order: [AttemptID] = []
  /// Answers that could not be sent.
  var unsent: [(attempt: AttemptID, message: WorkerMessage)] = []
  /// What came while it was frozen.
  var inbox: [(connection: Int, message: GatewayMessage)] = []
  /// A connection keeps its order in both directions.
  var lastToGateway = 0
  var lastToWorker = 0

  /// What it tells the gateway that it is busy with.
  var running: [AttemptID] { order + unsent.map(\.attempt) }

  mutating func forget(_ attempt: AttemptID) {
    tasks[attempt] = nil
    order.removeAll { $0 == attempt }
  }
}

extension Simulation {
  private func name(_ slot: Int) -> String { "p\(workers[slot].process)" }

  func startWorker(_ slot: Int) {
    guard workers[slot].process == 0 else { return }
    nextProcess += 1
    workers[slot].process = nextProcess
    schedule(.heartbeat(slot: slot, process: nextProcess), in: 5000)
    connect(slot: slot, process: nextProcess)
  }

  /// Ends the process without a word.
  func crashWorker(_ slot: Int, restartInMs: Int) {
    guard workers[slot].process != 0 else { return }
    log("\(name(slot)) crashes")
    count("crashes")
    disconnect(slot)
    let old = workers[slot]
    workers[slot] = ToyWorker(stage: old.stage, numericsClass: old.numericsClass, credits: old.credits)
    schedule(.startWorker(slot: slot), in: restartInMs)
  }

  /// The connection breaks; the gateway notices at once, or not at all.
  func disconnect(_ slot: Int) {
    guard let connection = workers[slot].connection else { return }
    workers[slot].connection = nil
    workers[slot].session = nil
    if let gateway, let session = gateway.sessions[connection], random.chance(0.5) {
      process(.workerLeft(session, reason: "connection closed"))
    }
  }

  func connect(slot: Int, process: Int) {
    guard workers[slot].process == process, workers[slot].connection == nil else { return }
    guard gateway != nil, !isPartitioned(slot), !workers[slot].isFrozen else {
      schedule(.connect(slot: slot, process: process), in: 2000)
      return
    }
    nextConnection += 1
    workers[slot].connection = nextConnection
    workers[slot].session = nil
    workers[slot].hasLostLease = false
    send(.register(running: workers[slot].running), from: slot)
  }

  func heartbeat(slot: Int, process: Int) {
    guard workers[slot].process == process else { return }
    schedule(.heartbeat(slot: slot, process: process), in: 5000)
    let worker = workers[slot]
    guard !worker.isFrozen else { return }
    guard worker.connection != nil else {
      connect(slot: slot, process: process)
      return
    }
    if let session = worker.session, !(isChaos && random.chance(0.03)) {
      send(.report(session: session, running: worker.running, isDraining: worker.isDraining), from: slot)
    } else {
      send(.register(running: worker.running), from: slot)
    }
  }

  func thaw(slot: Int, process: Int) {
    guard workers[slot].process == process, workers[slot].isFrozen else { return }
    log("\(name(slot)) continues")
    workers[slot].isFrozen = false
    let inbox = workers[slot].inbox
    workers[slot].inbox = []
    for (connection, message) in inbox { receive(message, slot: slot, process: process, connection: connection) }
  }

  /// SIGTERM: finishes what it runs, then says goodbye.
  func stopWorker(_ slot: Int) {
    guard workers[slot].process != 0 else { return }
    workers[slot].isDraining = true
    guard workers[slot].running.isEmpty else {
      schedule(.drain(slot: slot), in: 1000)
      return
    }
    log("\(name(slot)) stops")
    count("drains")
    if workers[slot].session != nil { send(.goodbye, from: slot) }
    let old = workers[slot]
    workers[slot] = ToyWorker(stage: old.stage, numericsClass: old.numericsClass, credits: old.credits)
    if let model = old.nextModel {
      count("model switches")
      workers[slot].model = model
    }
    schedule(.startWorker(slot: slot), in: random.pick(1000...10_000))
  }

  private func switchModel(to model: ModelIdentity, slot: Int) {
    guard !workers[slot].isDraining else { return }
    workers[slot].nextModel = model
    stopWorker(slot)
  }

  // MARK: Messages

  func receive(_ message: GatewayMessage, slot: Int, process: Int, connection: Int) {
    guard workers[slot].process == process, workers[slot].connection == connection else { return }
    if workers[slot].isFrozen {
      workers[slot].inbox.append((connection, message))
      return
    }
    log("    p\(process) gets \(message)")
    switch message {
    case .registered(let session):
      workers[slot].session = session
      let unsent = workers[slot].unsent
      workers[slot].unsent = []
      for (_, message) in unsent { send(message, from: slot) }
    case .noSession:
      workers[slot].session = nil
      send(.register(running: workers[slot].running), from: slot)
    case .offer(let offer): take(offer, slot: slot)
    case .cancel(let attempt): cancel(attempt, slot: slot)
    case .switchModel(let model): switchModel(to: model, slot: slot)
    }
  }

  private func take(_ offer: ToyOffer, slot: Int) {
    let attempt = offer.attempt
    if offer.model != workers[slot].model {
      report("\(attempt) of \(offer.model) is offered to \(name(slot)), which has \(workers[slot].model)")
    }
    guard !workers[slot].running.contains(attempt) else {
      send(.accepted(attempt), from: slot)
      return
    }
    for other in workers[slot].order where other.task == attempt.task && attempt.assistance == 0 {
      guard other.number < attempt.number else {
        send(.failed(attempt, Status(.aborted, "superseded by \(other)")), from: slot)
        return
      }
      workers[slot].tasks[other]?.isCancelled = true
    }
    if workers[slot].isDraining {
      send(.failed(attempt, Status(.unavailable, "the worker is draining")), from: slot)
      return
    }
    guard workers[slot].order.count < workers[slot].credits else {
      count("offers beyond the credits")
      if !scenario.isReordered, scenario.duplicateChance == 0, !workers[slot].hasLostLease {
        report(
          "\(attempt) is offered to \(name(slot)), whose \(workers[slot].credits) credits are in use "
            + "for \(workers[slot].order)")
      }
      send(.failed(attempt, Status(.resourceExhausted, "all credits are in use")), from: slot)
      return
    }
    workers[slot].tasks[attempt] = ToyWorker.Task(
      offer: offer, latents: offer.latents ?? ToyModel.noise(offer.noise), completedSteps: offer.completedSteps,
      isStuck: isChaos && scenario.workerFaults > 0 && random.chance(0.01))
    workers[slot].order.append(attempt)
    send(.accepted(attempt), from: slot)
    scheduleWork(attempt, slot: slot)
  }

  private func cancel(_ attempt: AttemptID, slot: Int) {
    if workers[slot].tasks[attempt] != nil {
      workers[slot].tasks[attempt]?.isCancelled = true
    } else if workers[slot].unsent.contains(where: { $0.attempt == attempt }) {
      workers[slot].unsent.removeAll { $0.attempt == attempt }
      send(.failed(attempt, Status(.cancelled, "cancelled")), from: slot)
    } else {
      send(.failed(attempt, Status(.notFound, "does not run here")), from: slot)
    }
  }

  // MARK: Work

  private func scheduleWork(_ attempt: AttemptID, slot: Int) {
    let slowness = isChaos ? workers[slot].slowness : 1
    schedule(.work(slot: slot, process: workers[slot].process, attempt), in: random.pick(200...2500) * slowness)
  }

  /// The end of a step, or of a task without steps.
  func work(_ attempt: AttemptID, slot: Int, process: Int) {
    guard workers[slot].process == process, let task = workers[slot].tasks[attempt] else { return }
    if workers[slot].isFrozen {
      schedule(.work(slot: slot, process: process, attempt), in: 1000)
      return
    }
    if task.isStuck {
      // Until the process is ended.
      count("stuck steps")
      stick(slot: slot, process: process)
      return
    }
    if task.isCancelled {
      answer(.failed(attempt, Status(.cancelled, "cancelled")), attempt, slot: slot)
    } else if isChaos, workers[slot].isSick || random.chance(scenario.failureChance) {
      count("failures")
      answer(.failed(attempt, Status(.internal, "out of luck")), attempt, slot: slot)
    } else {
      advance(task, slot: slot)
    }
  }

  private func advance(_ task: ToyWorker.Task, slot: Int) {
    let attempt = task.offer.attempt
    switch task.offer.stage {
    case .textEncoder where task.offer.prompt == ToyJob.badPrompt:
      answer(.failed(attempt, Status(.invalidArgument, "too long", field: "prompt")), attempt, slot: slot)
    case .textEncoder:
      answer(
        .finished(
          attempt,
          ToyModel.encode(task.offer.prompt, seeing: task.offer.image ?? 0, by: workers[slot].numericsClass)),
        attempt, slot: slot)
    case .vaeEncoder where task.offer.image == ToyJob.badInput:
      answer(.failed(attempt, Status(.invalidArgument, "no image", field: "image")), attempt, slot: slot)
    case .vaeEncoder:
      count("image encodings")
      answer(
        .finished(
          attempt,
          ToyModel.encode(
            image: task.offer.image ?? 0, seed: task.offer.sampleSeed, by: workers[slot].numericsClass)),
        attempt, slot: slot)
    case .vaeDecoder: answer(.finished(attempt, ToyModel.decode(task.offer.inputs[0])), attempt, slot: slot)
    case .denoiser where attempt.assistance > 0:
      // Until it is cancelled.
      scheduleWork(attempt, slot: slot)
    case .denoiser:
      let step = task.completedSteps + 1
      if step == 2, task.offer.prompt == ToyJob.deadlyPrompt {
        crashWorker(slot, restartInMs: random.pick(1000...5000))
        return
      }
      let latents = ToyModel.denoise(
        task.latents, step: step, inputs: task.offer.inputs, by: workers[slot].numericsClass)
      workers[slot].tasks[attempt]?.completedSteps = step
      workers[slot].tasks[attempt]?.latents = latents
      if workers[slot].session != nil { send(.progress(attempt, completedSteps: step, latents: latents), from: slot) }
      if step >= task.offer.steps {
        answer(.finished(attempt, latents), attempt, slot: slot)
      } else {
        scheduleWork(attempt, slot: slot)
      }
    default: preconditionFailure("no worker is made for \(task.offer.stage)")
    }
  }

  /// The last word on an attempt is kept until it can be said.
  private func answer(_ message: WorkerMessage, _ attempt: AttemptID, slot: Int) {
    workers[slot].forget(attempt)
    if workers[slot].session == nil {
      workers[slot].unsent.append((attempt, message))
    } else {
      send(message, from: slot)
    }
  }
}
