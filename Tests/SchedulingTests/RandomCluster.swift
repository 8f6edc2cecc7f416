import HeapModule
import Scheduling

/// SplitMix64 (Steele, Lea, Flood 2014): a small generator whose stream is fixed by its seed.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) {
    state = seed
  }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }

  mutating func chance(_ probability: Double) -> Bool { Double.random(in: 0..<1, using: &self) < probability }
}

/// Order-dependent mixing, in which a lost, repeated or misplaced step shows in the result.
func mix(_ values: UInt64...) -> UInt64 {
  var generator = SeededGenerator(seed: 0)
  return values.reduce(0) { sum, value in
    generator = SeededGenerator(seed: sum ^ value)
    return generator.next()
  }
}

/// A cluster of toy workers around a scheduler, in virtual time, with a network that delays and drops, and processes that crash,
/// freeze and come back. Everything follows from the seed.
struct RandomCluster {
  static let classes = ["bf16", "fp32"]
  static let steps = 6

  struct Running {
    var job: ToyJob
    var inputs: [UInt64]
    var latents: UInt64
    var completedSteps: Int
    var isCancelled = false
  }

  struct ToyWorker {
    var name: String
    var stage: Stage
    var numericsClass: String
    var credits: Int
    var session: WorkerID?
    var isFrozen = false
    /// Keyed by attempt; looked up and removed, iterated only in the order of `order`.
    var running: [AttemptID: Running] = [:]
    var order: [AttemptID] = []
    /// The connection keeps its order in both directions.
    var lastToGateway = Duration.zero
    var lastToWorker = Duration.zero
  }

  struct ToyJob {
    var number: UInt64
    var prompt: UInt64
    var negativePrompt: UInt64?
    var isBad: Bool
    var deadline: Instant?
  }

  enum Message {
    case offer(Offer)
    case cancel(AttemptID)
  }

  enum Action {
    case toGateway(slot: Int, name: String, session: WorkerID, Event)
    case toWorker(slot: Int, name: String, Message)
    case work(slot: Int, name: String, AttemptID)
    case heartbeat(slot: Int)
    case tick
    case submit
    case cancelJob(JobID)
    case fault
    case thaw(slot: Int)
  }

  struct Scheduled: Comparable {
    var time: Duration
    var sequence: UInt64
    var action: Action

    static func < (left: Scheduled, right: Scheduled) -> Bool { (left.time, left.sequence) < (right.time, right.sequence) }
    static func == (left: Scheduled, right: Scheduled) -> Bool { left.sequence == right.sequence }
  }

  var random: SeededGenerator
  var scheduler: Scheduler
  var workers: [ToyWorker] = []
  var contents: [UInt64: UInt64] = [:]
  /// Those that the scheduler holds open.
  var sessions: Set<WorkerID> = []
  var jobs: [JobID: ToyJob] = [:]
  var terminal: [JobID: JobEvent] = [:]
  var cancelled: Set<JobID> = []
  var rejected = 0
  var problems: [String] = []
  /// Every effect, for the comparison of two runs.
  var trace: [Effect] = []
  var counts = (offers: 0, drops: 0, crashes: 0, freezes: 0, failures: 0, resumed: 0)

  private var queue = Heap<Scheduled>()
  private var submissionsLeft: Int
  private var now = Duration.zero
  private var sequence: UInt64 = 0
  private var nextSession: UInt64 = 0
  private var nextPayload: UInt64 = 0
  private var nextProcess = 0
  private var chaosEnd: Duration
  private var isChaos: Bool { now < chaosEnd }

  init(seed: UInt64, jobCount: Int = 25, chaosSeconds: Int = 400) {
    random = SeededGenerator(seed: seed)
    var configuration = SchedulingConfiguration()
    configuration.maxJobs = 20
    configuration.maxCacheBytes = 500
    configuration.encodeAheadJobs = 4
    configuration.firstStepLimit = .seconds(60)
    configuration.stepLimit = .seconds(30)
    scheduler = Scheduler(configuration: configuration)
    chaosEnd = .seconds(chaosSeconds)
    submissionsLeft = jobCount
    for stage in Stage.allCases {
      for numericsClass in Self.classes { addWorker(stage, numericsClass) }
    }
    addWorker(.denoiser, Self.classes[0])
    for _ in 0..<jobCount { schedule(.submit, at: .milliseconds(Int.random(in: 0..<chaosSeconds * 800, using: &random))) }
    for _ in 0..<chaosSeconds / 15 { schedule(.fault, at: .milliseconds(Int.random(in: 0..<chaosSeconds * 1000, using: &random))) }
    schedule(.tick, at: .zero)
  }

  /// Runs until every job has ended, or the time is up.
  mutating func run(limit: Duration = .seconds(3600)) {
    while let next = queue.popMin(), next.time < limit {
      now = next.time
      perform(next.action)
      if !isChaos, submissionsLeft == 0, terminal.count == jobs.count { return }
    }
    problems.append("after \(now): \(jobs.keys.filter { terminal[$0] == nil }.map(\.text).sorted()) have not ended")
  }

  /// What the job's picture must be when one class of denoiser made it.
  static func expected(_ job: ToyJob, numericsClass: String) -> UInt64 {
    let inputs = [job.prompt, job.negativePrompt].compactMap { $0 }.map { mix(1, $0) }
    var latents = mix(2, job.number)
    for step in 1...steps { latents = denoise(latents, step: step, inputs: inputs, numericsClass: numericsClass) }
    return mix(3, latents)
  }

  private static func denoise(_ latents: UInt64, step: Int, inputs: [UInt64], numericsClass: String) -> UInt64 {
    inputs.reduce(mix(latents, UInt64(step), numericsClass == "fp32" ? 5 : 6)) { mix($0, $1) }
  }
}

// MARK: - Time and messages

extension RandomCluster {
  private mutating func schedule(_ action: Action, at time: Duration) {
    sequence += 1
    queue.insert(Scheduled(time: time, sequence: sequence, action: action))
  }

  private mutating func delay() -> Duration { .milliseconds(Int.random(in: 1...(isChaos ? 1500 : 20), using: &random)) }

  private mutating func isDropped() -> Bool {
    guard isChaos, random.chance(0.04) else { return false }
    counts.drops += 1
    return true
  }

  private mutating func sendToGateway(_ slot: Int, _ event: Event) {
    guard let session = workers[slot].session else { return }
    if isDropped() { return }
    let time = max(workers[slot].lastToGateway, now + delay())
    workers[slot].lastToGateway = time
    schedule(.toGateway(slot: slot, name: workers[slot].name, session: session, event), at: time)
  }

  private mutating func sendToWorker(_ slot: Int, _ message: Message) {
    if isDropped() { return }
    let time = max(workers[slot].lastToWorker, now + delay())
    workers[slot].lastToWorker = time
    schedule(.toWorker(slot: slot, name: workers[slot].name, message), at: time)
  }

  private mutating func payload(_ content: UInt64) -> Payload {
    nextPayload += 1
    contents[nextPayload] = content
    return Payload(id: nextPayload, byteCount: 100)
  }

  private mutating func step(_ event: Event) {
    let effects = scheduler.step(event, now: Instant(sinceZero: now))
    trace += effects
    for effect in effects { carryOut(effect) }
    problems += scheduler.brokenInvariants().map { "at \(now): \($0)" }
    for case .journal(let sequence, _) in effects { step(.journalled(through: sequence)) }
  }

  private mutating func carryOut(_ effect: Effect) {
    switch effect {
    case .offer(let offer, let worker):
      counts.offers += 1
      if offer.resume != nil { counts.resumed += 1 }
      if !sessions.contains(worker) { problems.append("\(offer.attempt) is offered to \(worker), which has no session") }
      for payload in offer.inputs + [offer.resume?.latents].compactMap({ $0 }) where contents[payload.id] == nil {
        problems.append("\(offer.attempt) is offered with a payload that was released")
      }
      // The process may be dead without anybody having noticed.
      if let slot = workers.firstIndex(where: { $0.session == worker }) { sendToWorker(slot, .offer(offer)) }
    case .cancel(let attempt, let worker, _):
      if let slot = workers.firstIndex(where: { $0.session == worker }) { sendToWorker(slot, .cancel(attempt)) }
    case .job(let id, let event):
      if terminal[id] != nil { problems.append("job \(id) is told \(event) after its end") }
      if case .finished(let output) = event { checkPicture(of: id, output) }
      if event.isTerminal { terminal[id] = event }
    case .rejected(let id, _):
      rejected += 1
      jobs[id] = nil
    case .worker(let id, .joined): sessions.insert(id)
    case .worker(let id, .gone):
      sessions.remove(id)
      for slot in workers.indices where workers[slot].session == id { workers[slot].session = nil }
    case .worker, .journal, .admitted: break
    case .release(let payload):
      if contents.removeValue(forKey: payload.id) == nil { problems.append("payload \(payload.id) is released twice") }
    }
  }

  private mutating func checkPicture(of id: JobID, _ output: Payload) {
    guard let job = jobs[id], let picture = contents[output.id] else {
      problems.append("job \(id) finishes without a picture")
      return
    }
    if !Self.classes.contains(where: { Self.expected(job, numericsClass: $0) == picture }) {
      problems.append("job \(id) gets another picture than a run without faults gives")
    }
  }
}

// MARK: - What happens

extension RandomCluster {
  private mutating func perform(_ action: Action) {
    switch action {
    case .toGateway(let slot, let name, let session, let event):
      // What a closed session sends reaches the gateway, which ignores it; what a dead process sent too.
      if workers[slot].name != name || workers[slot].session != session { discardPayload(of: event) } else { step(event) }
    case .toWorker(let slot, let name, let message):
      if workers[slot].name == name { receive(message, at: slot) }
    case .work(let slot, let name, let attempt):
      if workers[slot].name == name { work(attempt, at: slot) }
    case .heartbeat(let slot): heartbeat(slot)
    case .tick:
      step(.tick)
      schedule(.tick, at: now + .milliseconds(500))
    case .submit: submit()
    case .cancelJob(let id):
      if jobs[id] != nil, terminal[id] == nil {
        cancelled.insert(id)
        step(.jobCancelled(id, reason: Failure(.cancelled, "the client left")))
      }
    case .fault: fault()
    case .thaw(let slot): workers[slot].isFrozen = false
    }
  }

  /// Late answers are handed to the scheduler all the same, half of the time, to see that it fences them off.
  private mutating func discardPayload(of event: Event) {
    if random.chance(0.5) {
      step(event)
      return
    }
    switch event {
    case .taskFinished(_, _, let output): contents[output.id] = nil
    case .taskProgressed(_, _, let report): report.checkpoint.map { contents[$0.id] = nil }
    default: break
    }
  }

  private mutating func addWorker(_ stage: Stage, _ numericsClass: String) {
    nextProcess += 1
    workers.append(ToyWorker(name: "p\(nextProcess)", stage: stage, numericsClass: numericsClass, credits: 1 + nextProcess % 2))
    schedule(.heartbeat(slot: workers.count - 1), at: now + .milliseconds(Int.random(in: 0..<5000, using: &random)))
  }

  private mutating func heartbeat(_ slot: Int) {
    schedule(.heartbeat(slot: slot), at: now + .seconds(5))
    if workers[slot].isFrozen { return }
    let earlier = workers[slot].session
    if let earlier, !(isChaos && random.chance(0.03)) {
      sendToGateway(slot, .workerReported(earlier, WorkerReport(running: workers[slot].order)))
      return
    }
    nextSession += 1
    let worker = workers[slot]
    let registration = WorkerRegistration(
      id: WorkerID(nextSession), name: worker.name, stage: worker.stage, model: model, numericsClass: worker.numericsClass,
      credits: worker.credits, running: worker.order, keepsConnection: earlier != nil)
    workers[slot].session = registration.id
    step(.workerRegistered(registration))
  }

  private mutating func submit() {
    submissionsLeft -= 1
    let number = UInt64(jobs.count + rejected + 1)
    let isBad = random.chance(0.05)
    let prompt = isBad ? 666 : UInt64.random(in: 1...12, using: &random)
    let negativePrompt = random.chance(0.5) ? UInt64.random(in: 1...3, using: &random) : nil
    let deadline = random.chance(0.1) ? Instant(sinceZero: now + .seconds(40)) : nil
    let job = ToyJob(number: number, prompt: prompt, negativePrompt: negativePrompt, isBad: isBad, deadline: deadline)
    let id = JobID("job\(number)")
    jobs[id] = job
    let plan = JobPlan.textToImage(
      prompt: "\(prompt)", negativePrompt: negativePrompt.map { "\($0)" }, stepCount: Self.steps, tokenCount: 16)
    step(.jobsSubmitted([JobSubmission(id: id, model: model, plan: plan, deadline: deadline)]))
    if random.chance(0.15) { schedule(.cancelJob(id), at: now + .milliseconds(Int.random(in: 0...30000, using: &random))) }
  }

  private mutating func fault() {
    let slot = Int.random(in: 0..<workers.count, using: &random)
    if random.chance(0.6) {
      counts.crashes += 1
      nextProcess += 1
      if let session = workers[slot].session, random.chance(0.5) { step(.workerLeft(session, reason: "connection closed")) }
      workers[slot].name = "p\(nextProcess)"
      workers[slot].session = nil
      workers[slot].running = [:]
      workers[slot].order = []
    } else {
      counts.freezes += 1
      workers[slot].isFrozen = true
      schedule(.thaw(slot: slot), at: now + .seconds(Int.random(in: 5...60, using: &random)))
    }
  }

  private mutating func receive(_ message: Message, at slot: Int) {
    switch message {
    case .cancel(let attempt):
      if workers[slot].running[attempt] != nil {
        workers[slot].running[attempt]?.isCancelled = true
      } else if let session = workers[slot].session {
        sendToGateway(slot, .taskFailed(attempt, by: session, Failure(.cancelled, "not here")))
      }
    case .offer(let offer):
      guard let session = workers[slot].session, let job = jobs[offer.attempt.task.job] else { return }
      let inputs = offer.inputs.map { contents[$0.id] ?? 0 }
      workers[slot].running[offer.attempt] = Running(
        job: job, inputs: inputs, latents: offer.resume.map { contents[$0.latents.id] ?? 0 } ?? mix(2, job.number),
        completedSteps: offer.resume?.completedSteps ?? 0)
      workers[slot].order.append(offer.attempt)
      if workers[slot].order.count > workers[slot].credits {
        problems.append("at \(now): \(workers[slot].name) runs \(workers[slot].order) with \(workers[slot].credits) credits")
      }
      sendToGateway(slot, .taskAccepted(offer.attempt, by: session))
      schedule(
        .work(slot: slot, name: workers[slot].name, offer.attempt), at: now + .milliseconds(Int.random(in: 100...3000, using: &random)))
    }
  }

  /// The end of a step, or of a task without steps.
  private mutating func work(_ attempt: AttemptID, at slot: Int) {
    guard var running = workers[slot].running[attempt] else { return }
    let again = Action.work(slot: slot, name: workers[slot].name, attempt)
    guard !workers[slot].isFrozen, let session = workers[slot].session else {
      schedule(again, at: now + .seconds(1))
      return
    }
    var answer: Event?
    if running.isCancelled {
      answer = .taskFailed(attempt, by: session, Failure(.cancelled, "stopped"))
    } else if workers[slot].stage == .textEncoder, promptOf(attempt, running.job) == 666 {
      answer = .taskFailed(attempt, by: session, Failure(.invalidArgument, "too long", field: "prompt"))
    } else if isChaos, random.chance(0.02) {
      counts.failures += 1
      answer = .taskFailed(attempt, by: session, Failure(.internal, "out of luck"))
    } else {
      switch workers[slot].stage {
      case .textEncoder: answer = .taskFinished(attempt, by: session, output: payload(mix(1, promptOf(attempt, running.job))))
      case .vaeDecoder: answer = .taskFinished(attempt, by: session, output: payload(mix(3, running.inputs[0])))
      case .denoiser:
        running.completedSteps += 1
        running.latents = Self.denoise(
          running.latents, step: running.completedSteps, inputs: running.inputs, numericsClass: workers[slot].numericsClass)
        workers[slot].running[attempt] = running
        let report = StepReport(completedSteps: running.completedSteps, stepSeconds: 1, checkpoint: payload(running.latents))
        sendToGateway(slot, .taskProgressed(attempt, by: session, report))
        if running.completedSteps == Self.steps { answer = .taskFinished(attempt, by: session, output: payload(running.latents)) }
      }
    }
    if let answer {
      workers[slot].running[attempt] = nil
      workers[slot].order.removeAll { $0 == attempt }
      sendToGateway(slot, answer)
    } else {
      schedule(again, at: now + .milliseconds(Int.random(in: 100...3000, using: &random)))
    }
  }

  private func promptOf(_ attempt: AttemptID, _ job: ToyJob) -> UInt64 {
    attempt.task.index == 0 ? job.prompt : job.negativePrompt ?? 0
  }
}
