import ClusterCore
import Scheduling

/// A worker of several gateways: one link to each, and one number of credits for all.
struct ReplicaWorker {
  struct Task {
    var offer: ToyOffer
    /// The gateway that it works for.
    var link: Int
    var latents: UInt64
    var completedSteps: Int
    var isCancelled = false
  }

  struct Link {
    /// nil: there is none.
    var connection: Int?
    var session: String?
    /// When there was one last.
    var connectedAt = 0
    /// A connection keeps its order in both directions.
    var lastToGateway = 0
    var lastToWorker = 0
  }

  let stage: StageName
  let numericsClass: String
  let credits: Int
  /// 0: none runs.
  var process = 0
  var isFrozen = false
  var links: [Link]
  var tasks: [AttemptID: Task] = [:]
  /// Of `tasks`.
  var order: [AttemptID] = []
  /// Answers that could not be sent.
  var unsent: [(attempt: AttemptID, link: Int, message: WorkerMessage)] = []
  /// What came while it was frozen.
  var inbox: [(link: Int, connection: Int, message: ReplicaMessage)] = []

  func running(_ link: Int) -> [AttemptID] {
    order.filter { tasks[$0]?.link == link } + unsent.filter { $0.link == link }.map(\.attempt)
  }

  /// Credits that are in use for other gateways.
  func foreignCount(_ link: Int) -> Int { order.count { tasks[$0]?.link != link } }

  mutating func forget(_ attempt: AttemptID) {
    tasks[attempt] = nil
    order.removeAll { $0 == attempt }
  }
}

/// What a gateway sends.
enum ReplicaMessage {
  case registered(session: String)
  case noSession
  case offer(ToyOffer)
  case cancel(AttemptID)
  case claim([AttemptID])
}

extension ReplicaSimulation {
  func startWorker(_ slot: Int) {
    guard workers[slot].process == 0 else { return }
    lastProcess += 1
    workers[slot].process = lastProcess
    schedule(.heartbeat(slot: slot, process: lastProcess), in: random.pick(1...5000))
    for link in workers[slot].links.indices {
      workers[slot].links[link].connectedAt = now
      connect(slot, link, process: lastProcess)
    }
  }

  func crashWorker(_ slot: Int) {
    guard workers[slot].process != 0 else { return }
    count("crashes")
    log("p\(workers[slot].process) crashes")
    for link in workers[slot].links.indices { disconnect(slot, link) }
    let old = workers[slot]
    workers[slot] = ReplicaWorker(
      stage: old.stage, numericsClass: old.numericsClass, credits: old.credits,
      links: old.links.map { _ in ReplicaWorker.Link() })
    schedule(.startWorker(slot: slot), in: random.pick(500...15_000))
  }

  func thaw(_ slot: Int, process: Int) {
    guard workers[slot].process == process, workers[slot].isFrozen else { return }
    workers[slot].isFrozen = false
    let inbox = workers[slot].inbox
    workers[slot].inbox = []
    for (link, connection, message) in inbox { receive(message, slot, link, connection: connection) }
  }

  /// The connection breaks; the gateway notices at once, or not at all.
  func disconnect(_ slot: Int, _ link: Int) {
    guard let connection = workers[slot].links[link].connection else { return }
    workers[slot].links[link].connection = nil
    workers[slot].links[link].session = nil
    workers[slot].links[link].connectedAt = now
    if let gateway = gateways[link], let session = gateway.sessions[connection], random.chance(0.5) {
      schedule(.toGateway(link, life: gateway.life, connection: connection, slot: slot, .lost(session)), in: 1)
    }
  }

  func connect(_ slot: Int, _ link: Int, process: Int) {
    guard workers[slot].process == process, workers[slot].links[link].connection == nil else { return }
    guard gateways[link] != nil, !isCut(slot, link), !workers[slot].isFrozen else {
      schedule(.connect(slot: slot, link: link, process: process), in: 1500)
      return
    }
    lastConnection += 1
    workers[slot].links[link].connection = lastConnection
    register(slot, link)
  }

  private func register(_ slot: Int, _ link: Int) {
    workers[slot].links[link].session = nil
    send(.register(running: workers[slot].running(link)), slot, link)
  }

  func heartbeat(_ slot: Int, process: Int) {
    guard workers[slot].process == process else { return }
    schedule(.heartbeat(slot: slot, process: process), in: 5000)
    guard !workers[slot].isFrozen else { return }
    for link in workers[slot].links.indices {
      if workers[slot].links[link].connection == nil {
        if now - workers[slot].links[link].connectedAt > ReplicaScenario.orphanMs { abandon(slot, link) }
        connect(slot, link, process: process)
      } else if workers[slot].links[link].session != nil {
        report(slot, link)
      } else {
        register(slot, link)
      }
    }
  }

  /// The gateway is gone for good.
  private func abandon(_ slot: Int, _ link: Int) {
    for attempt in workers[slot].order where workers[slot].tasks[attempt]?.link == link {
      workers[slot].tasks[attempt]?.isCancelled = true
    }
    workers[slot].unsent.removeAll { $0.link == link }
  }

  private func report(_ slot: Int, _ link: Int) {
    guard let session = workers[slot].links[link].session else { return }
    send(.report(session: session, running: workers[slot].running(link), isDraining: false), slot, link)
  }

  /// What other gateways are to know at once: credits are in use, or free again.
  private func announceCredits(_ slot: Int, but link: Int) {
    for other in workers[slot].links.indices where other != link { report(slot, other) }
  }

  // MARK: Messages

  func receive(_ message: ReplicaMessage, _ slot: Int, _ link: Int, connection: Int) {
    guard workers[slot].links[link].connection == connection else { return }
    if workers[slot].isFrozen {
      workers[slot].inbox.append((link, connection, message))
      return
    }
    log("    p\(workers[slot].process) gets from g\(link) \(message)")
    switch message {
    case .registered(let session):
      workers[slot].links[link].session = session
      let answers = workers[slot].unsent.filter { $0.link == link }
      workers[slot].unsent.removeAll { $0.link == link }
      for answer in answers { send(answer.message, slot, link) }
    case .noSession: register(slot, link)
    case .offer(let offer): take(offer, slot, link)
    case .cancel(let attempt): cancel(attempt, slot, link)
    case .claim(let attempts): move(attempts, slot, to: link)
    }
  }

  /// Another gateway has adopted their jobs.
  private func move(_ attempts: [AttemptID], _ slot: Int, to link: Int) {
    var isAnyMoved = false
    for attempt in attempts {
      if let task = workers[slot].tasks[attempt], task.link != link {
        workers[slot].tasks[attempt]?.link = link
        isAnyMoved = true
      }
      for index in workers[slot].unsent.indices
      where workers[slot].unsent[index].attempt == attempt && workers[slot].unsent[index].link != link {
        workers[slot].unsent[index].link = link
        isAnyMoved = true
      }
    }
    guard isAnyMoved else { return }
    count("claims answered")
    register(slot, link)
  }

  private func take(_ offer: ToyOffer, _ slot: Int, _ link: Int) {
    let attempt = offer.attempt
    guard !workers[slot].running(link).contains(attempt) else {
      send(.accepted(attempt), slot, link)
      return
    }
    for other in workers[slot].order where other.task == attempt.task {
      guard other.number < attempt.number else {
        send(.failed(attempt, Status(.aborted, "superseded by \(other)")), slot, link)
        return
      }
      workers[slot].tasks[other]?.isCancelled = true
    }
    let used = mutation == .workerCredits ? workers[slot].running(link).count : workers[slot].order.count
    guard used < workers[slot].credits else {
      count("offers without a credit")
      send(.failed(attempt, Status(.resourceExhausted, "all credits are in use")), slot, link)
      return
    }
    workers[slot].tasks[attempt] = ReplicaWorker.Task(
      offer: offer, link: link, latents: offer.latents ?? ToyModel.noise(offer.noise),
      completedSteps: offer.completedSteps)
    workers[slot].order.append(attempt)
    if workers[slot].order.count > workers[slot].credits {
      report("p\(workers[slot].process) runs \(workers[slot].order) with \(workers[slot].credits) credits")
    }
    send(.accepted(attempt), slot, link)
    announceCredits(slot, but: link)
    scheduleWork(attempt, slot)
  }

  private func cancel(_ attempt: AttemptID, _ slot: Int, _ link: Int) {
    if let task = workers[slot].tasks[attempt] {
      if task.link == link { workers[slot].tasks[attempt]?.isCancelled = true }
    } else {
      workers[slot].unsent.removeAll { $0.attempt == attempt && $0.link == link }
      send(.failed(attempt, Status(.notFound, "does not run here")), slot, link)
    }
  }

  // MARK: Work

  private func scheduleWork(_ attempt: AttemptID, _ slot: Int) {
    schedule(.work(slot: slot, process: workers[slot].process, attempt), in: random.pick(200...2500))
  }

  /// The end of a step, or of a task without steps.
  func work(_ attempt: AttemptID, _ slot: Int, process: Int) {
    guard workers[slot].process == process, let task = workers[slot].tasks[attempt] else { return }
    if workers[slot].isFrozen {
      schedule(.work(slot: slot, process: process, attempt), in: 1000)
    } else if task.isCancelled {
      answer(.failed(attempt, Status(.cancelled, "cancelled")), attempt, slot)
    } else if isChaos, random.chance(scenario.failureChance) {
      count("failures")
      answer(.failed(attempt, Status(.internal, "out of luck")), attempt, slot)
    } else {
      advance(task, slot)
    }
  }

  private func advance(_ task: ReplicaWorker.Task, _ slot: Int) {
    let attempt = task.offer.attempt, numericsClass = workers[slot].numericsClass
    switch task.offer.stage {
    case .textEncoder where task.offer.prompt == ToyJob.badPrompt:
      answer(.failed(attempt, Status(.invalidArgument, "too long", field: "prompt")), attempt, slot)
    case .textEncoder:
      answer(.finished(attempt, ToyModel.encode(task.offer.prompt, seeing: 0, by: numericsClass)), attempt, slot)
    case .vaeDecoder: answer(.finished(attempt, ToyModel.decode(task.offer.inputs[0])), attempt, slot)
    default:
      let step = task.completedSteps + 1
      let latents = ToyModel.denoise(task.latents, step: step, inputs: task.offer.inputs, by: numericsClass)
      workers[slot].tasks[attempt]?.completedSteps = step
      workers[slot].tasks[attempt]?.latents = latents
      if workers[slot].links[task.link].session != nil {
        send(.progress(attempt, completedSteps: step, latents: latents), slot, task.link)
      }
      if step >= task.offer.steps {
        answer(.finished(attempt, latents), attempt, slot)
      } else {
        scheduleWork(attempt, slot)
      }
    }
  }

  /// The last word on an attempt is kept until it can be said.
  private func answer(_ message: WorkerMessage, _ attempt: AttemptID, _ slot: Int) {
    guard let link = workers[slot].tasks[attempt]?.link else { return }
    workers[slot].forget(attempt)
    if workers[slot].links[link].session == nil {
      workers[slot].unsent.append((attempt, link, message))
    } else {
      send(message, slot, link)
    }
    announceCredits(slot, but: link)
  }
}
