import CLoad
import ClusterCore
import Foundation
import Synchronization
import Wire

/// Tells the workers' thread what to do, from another one.
final class WorkerControl: Sendable {
  enum Command: Sendable {
    /// All workers connect and register.
    case connect
    /// All workers say goodbye and close their connections.
    case leave
    case stop
  }

  private let commands = Mutex<[Command]>([])

  func send(_ command: Command) { commands.withLock { $0.append(command) } }

  func take() -> [Command] {
    commands.withLock { commands in
      defer { commands = [] }
      return commands
    }
  }
}

/// All workers, on one thread: it sleeps until one of their sockets or timers has something to do.
final class WorkerPool {
  private enum Timer {
    case connect(worker: Int)
    case heartbeat(worker: Int, link: Int)
    case step(worker: Int, TaskReference)
    case end(worker: Int, TaskReference)
  }

  private let options: Options
  private let endpoints: [String]
  private let context: WorkerContext
  private let recorder: Recorder
  private let control: WorkerControl
  private let material: Material
  private let poller = epoll_create1(0)
  private var timers: Timers<Timer>
  private var workers: [SimulatedWorker] = []
  private var ideal: [StageName: IdealDispatch] = [:]
  private var nowMs: Int64 { nowNs() / 1_000_000 }
  /// Connections that are opened a second.
  private let connectRate = 1000
  /// Connections by which something was sent.
  private var touched: [(worker: Int, link: Int)] = []

  init(_ options: Options, endpoints: [String], keys: URL?, _ recorder: Recorder, _ control: WorkerControl) throws {
    (self.options, self.endpoints, self.recorder, self.control) = (options, endpoints, recorder, control)
    context = try WorkerContext(options, keys: keys)
    material = Material(options)
    timers = Timers(horizonMs: 120_000, nowMs: nowNs() / 1_000_000)
    let stages: [StageName] = [.textEncoder, .denoiser, .vaeDecoder]
    let sum = options.shares.reduce(0, +)
    var counts = options.shares.map { max(1, options.workers * $0 / sum) }
    counts[1] = options.workers - counts[0] - counts[2]
    for (stage, count) in zip(stages, counts) {
      for _ in 0..<max(1, count) { workers.append(SimulatedWorker(workers.count, stage, options)) }
    }
    // Stages take turns, so that each is there early.
    workers = stride(from: 0, to: 10, by: 1).flatMap { start in
      stride(from: start, to: workers.count, by: 10).map { workers[$0] }
    }
  }

  /// Runs until it is to stop.
  func run() {
    var events = [epoll_event](repeating: epoll_event(), count: 512)
    while true {
      for command in control.take() {
        switch command {
        case .connect:
          for index in workers.indices {
            timers.add(.connect(worker: index), afterMs: index * 1000 / connectRate, nowMs: nowMs)
          }
        case .leave: leave()
        case .stop:
          leave()
          return
        }
      }
      let count = epoll_wait(poller, &events, Int32(events.count), 1)
      for event in events.prefix(Int(max(0, count))) {
        let number = Int(event.data.u64)
        drain(number / endpoints.count, number % endpoints.count)
      }
      for timer in timers.due(nowMs: nowMs) { act(timer) }
      settle()
    }
  }

  private func act(_ timer: Timer) {
    switch timer {
    case .connect(let worker): connect(worker)
    case .heartbeat(let worker, let link):
      guard workers[worker].links.indices.contains(link) else { return }
      let connection = workers[worker].links[link]
      // Without a session it asks for one again, should the first request be lost with its connection.
      let message = connection.session.map { workers[worker].heartbeat($0) }
      send(message ?? workers[worker].registration(material.card), worker, link)
      timers.add(timer, afterMs: connection.heartbeatMs, nowMs: nowMs)
    case .step(let worker, let task): step(worker, task)
    case .end(let worker, let task): end(worker, task)
    }
  }

  // MARK: Connections

  private func connect(_ index: Int) {
    let worker = workers[index]
    guard worker.links.isEmpty else { return }
    for (number, endpoint) in endpoints.enumerated() {
      guard let socket = try? WorkerSocket(endpoint, context) else {
        recorder.update { $0.counts.lost += 1 }
        continue
      }
      worker.links.append(SimulatedWorker.Link(socket))
      var event = epoll_event()
      event.events = EPOLLIN.rawValue
      event.data.u64 = UInt64(index * endpoints.count + number)
      epoll_ctl(poller, EPOLL_CTL_ADD, socket.descriptor, &event)
      send(worker.registration(material.card), index, number)
      timers.add(.heartbeat(worker: index, link: number), afterMs: 2500 + index % 2500, nowMs: nowMs)
    }
  }

  private func leave() {
    for (index, worker) in workers.enumerated() {
      for (number, link) in worker.links.enumerated() {
        send(Envelope(body: .goodbye(reason: "the benchmark ends")), index, number)
        var event = epoll_event()
        epoll_ctl(poller, EPOLL_CTL_DEL, link.socket.descriptor, &event)
      }
    }
    usleep(500_000)
    for worker in workers { (worker.links, worker.running, worker.isCounted) = ([], [:], false) }
    ideal = [:]
  }

  private func send(_ envelope: Envelope, _ worker: Int, _ link: Int) {
    guard workers[worker].links.indices.contains(link) else { return }
    let isSent = workers[worker].links[link].socket.send(envelope)
    recorder.update { if isSent { $0.counts.sent += 1 } else { $0.counts.lost += 1 } }
    touched.append((worker, link))
  }

  /// Sending may have taken the notice of a message that has come.
  private func settle() {
    while let (worker, link) = touched.popLast() { drain(worker, link) }
  }

  private func drain(_ worker: Int, _ link: Int) {
    guard workers[worker].links.indices.contains(link) else { return }
    let socket = workers[worker].links[link].socket
    while socket.hasMessage, let received = socket.receive() {
      recorder.update { $0.counts.received += 1 }
      switch received {
      case .envelope(let envelope): take(envelope, worker, link)
      case .broken: recorder.update { $0.counts.lost += 1 }
      }
    }
  }

  /// Other gateways learn at once how many credits are free.
  private func announceCredits(of index: Int, except link: Int) {
    for (other, connection) in workers[index].links.enumerated() where other != link {
      if let session = connection.session { send(workers[index].heartbeat(session), index, other) }
    }
  }

  // MARK: Messages

  private func take(_ envelope: Envelope, _ index: Int, _ link: Int) {
    let worker = workers[index]
    switch envelope.body {
    case .registered(let registered):
      worker.links[link].session = registered.sessionID
      worker.links[link].heartbeatMs = registered.heartbeatIntervalMs
      recorder.update { $0.counts.registered += 1 }
      if !worker.isCounted {
        worker.isCounted = true
        for _ in 0..<worker.credits { ideal[worker.stage, default: IdealDispatch()].creditIsFree(nowNs()) }
      }
    case .failed where envelope.task == nil:
      // The gateway knows no such session: it was started again.
      worker.links[link].session = nil
      send(worker.registration(material.card), index, link)
    case .cancel: if let task = envelope.task { cancel(task, index, link) }
    case .encodeRequest, .denoiseRequest, .decodeRequest:
      if let task = envelope.task { accept(envelope, task, index, link) }
    default: break
    }
  }

  private func cancel(_ task: TaskReference, _ index: Int, _ link: Int) {
    guard workers[index].running.removeValue(forKey: task) != nil else { return }
    recorder.update { $0.counts.cancelled += 1 }
    send(Envelope(task: task, body: .failed(Status(.cancelled, "cancelled"))), index, link)
    ideal[workers[index].stage]?.creditIsFree(nowNs())
  }

  private func accept(_ envelope: Envelope, _ task: TaskReference, _ index: Int, _ link: Int) {
    let worker = workers[index], now = nowNs()
    guard worker.freeCredits > 0 else {
      let busy = Status(.resourceExhausted, "no credit is free")
      send(Envelope(inReplyTo: envelope.messageID, task: task, body: .failed(busy)), index, link)
      return
    }
    note(envelope, task, worker.stage, now)
    var running = SimulatedWorker.Running(
      link: link, messageID: envelope.messageID, steps: 0, side: material.card.defaults.size,
      checkpointIntervalMs: 0, step: 0, checkpointAtMs: now / 1_000_000)
    var next = Timer.end(worker: index, task), delay = options.decodeMs
    switch envelope.body {
    case .denoiseRequest(let request):
      running = SimulatedWorker.Running(
        link: link, messageID: envelope.messageID, steps: request.steps, side: request.size,
        checkpointIntervalMs: Int64(request.checkpointIntervalSeconds * 1000), step: request.firstStep,
        checkpointAtMs: now / 1_000_000)
      (next, delay) = (.step(worker: index, task), options.stepMs)
    case .encodeRequest: delay = options.encodeMs
    default: break
    }
    worker.running[task] = running
    send(Envelope(inReplyTo: envelope.messageID, task: task, body: .accepted), index, link)
    timers.add(next, afterMs: delay, nowMs: now / 1_000_000)
    announceCredits(of: index, except: link)
  }

  /// Measures how late an offer is.
  private func note(_ envelope: Envelope, _ task: TaskReference, _ stage: StageName, _ now: Int64) {
    let isRepeated = task.attempt & 4095 != 1
    // A repeated task became ready at the gateway, when is not known here.
    if isRepeated, stage != .textEncoder { ideal[stage, default: IdealDispatch()].taskIsReady(now) }
    let delay = stage == .textEncoder ? 0 : ideal[stage, default: IdealDispatch()].offered(now)
    var number: Int?
    if case .encodeRequest(let request) = envelope.body {
      number = Int(request.prompt.split(separator: " ").dropFirst().first ?? "")
    }
    recorder.update { state in
      if isRepeated { state.counts.repeated += 1 } else if stage != .textEncoder { state.dispatch.add(delay) }
      if let number, !isRepeated { state.firstOffer.add(now - state[dueOf: number]) }
    }
  }

  // MARK: Work

  private func step(_ index: Int, _ task: TaskReference) {
    let worker = workers[index]
    guard var running = worker.running[task] else { return }
    running.step += 1
    guard running.step < running.steps else { return end(index, task) }
    let now = nowMs
    var progress = Envelope(
      inReplyTo: running.messageID, task: task,
      body: .progress(
        Progress(completedSteps: running.step, steps: running.steps, stepSeconds: Double(options.stepMs) / 1000)))
    if now - running.checkpointAtMs >= running.checkpointIntervalMs, let latents = material.latents(of: running.side) {
      progress.tensors = [latents]
      running.checkpointAtMs = now
    }
    worker.running[task] = running
    send(progress, index, running.link)
    timers.add(.step(worker: index, task), afterMs: options.stepMs, nowMs: now)
  }

  private func end(_ index: Int, _ task: TaskReference) {
    let worker = workers[index]
    guard let running = worker.running.removeValue(forKey: task) else { return }
    var answer = Envelope(inReplyTo: running.messageID, task: task, body: .accepted)
    switch worker.stage {
    case .textEncoder:
      answer.body = .encodeResponse(EncodeResponse(promptTokens: material.embeddings.shape[0]))
      answer.tensors = [material.embeddings]
    case .denoiser:
      answer.body = .denoiseResponse(DenoiseResponse(steps: running.steps))
      answer.tensors = material.latents(of: running.side).map { [$0] } ?? []
    default:
      answer.body = .decodeResponse(DecodeResponse(mediaType: "image/png", size: running.side))
      answer.tensors = [material.image]
    }
    worker.tasksDone += 1
    let now = nowNs()
    ideal[worker.stage]?.creditIsFree(now)
    switch worker.stage {
    case .textEncoder: ideal[.denoiser, default: IdealDispatch()].taskIsReady(now)
    case .denoiser: ideal[.vaeDecoder, default: IdealDispatch()].taskIsReady(now)
    default: recorder.update { $0.counts.decoded += 1 }
    }
    send(answer, index, running.link)
    announceCredits(of: index, except: running.link)
  }
}
