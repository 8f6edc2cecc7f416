import ClusterCore
import Scheduling
import Simulation
import Testing

let model = ModelIdentity(id: "Qwen/Qwen-Image", fingerprint: "f1")

/// A scheduler with a clock that the test moves; checks the invariants after every event.
struct Bench {
  var scheduler: Scheduler
  var now = Instant.zero
  var nextPayload: UInt64 = 0
  var nextWorker: UInt64 = 0
  /// Payloads submitted and not released.
  var held: Set<UInt64> = []
  /// Whether every entry is durable at once; else the test says when.
  var journalsAtOnce = true
  /// Every entry so far.
  var entries: [JournalEntry] = []

  init(run: UInt32 = 0, _ configure: (inout SchedulingConfiguration) -> Void = { _ in }) {
    var configuration = SchedulingConfiguration()
    configure(&configuration)
    scheduler = Scheduler(configuration: configuration, run: run)
  }

  @discardableResult
  mutating func send(_ event: Event, after wait: Duration = .zero, sourceLocation: SourceLocation = #_sourceLocation)
    -> [Effect]
  {
    now = now + wait
    let effects = scheduler.step(event, now: now)
    for case .release(let payload) in effects {
      #expect(held.remove(payload.id) != nil, "payload \(payload.id) is released twice", sourceLocation: sourceLocation)
    }
    #expect(scheduler.brokenInvariants() == [], sourceLocation: sourceLocation)
    var last: JournalSequence?
    for case .journal(let sequence, let entry) in effects {
      #expect(sequence.number == UInt64(entries.count + 1), sourceLocation: sourceLocation)
      entries.append(entry)
      last = sequence
    }
    guard journalsAtOnce, let last else { return effects }
    return effects + send(.journalled(through: last), sourceLocation: sourceLocation)
  }

  mutating func payload(bytes: Int = 100) -> Payload {
    nextPayload += 1
    held.insert(nextPayload)
    return Payload(id: nextPayload, byteCount: bytes)
  }

  func registration(
    _ stage: StageName, id: UInt64, name: String? = nil, credits: Int = 1, numericsClass: String = "fp32",
    model: ModelIdentity = model, standby: [ModelIdentity] = [], assists: Bool = false,
    running: [AttemptID] = []
  ) -> WorkerRegistration {
    WorkerRegistration(
      id: WorkerID(id), name: name ?? "\(stage.text)-\(id)", stage: stage, model: model,
      standby: Dictionary(uniqueKeysWithValues: standby.map { ($0, [.textToImage]) }), numericsClass: numericsClass,
      credits: credits, assists: assists, running: running)
  }

  /// A worker joins; returns what follows from it.
  @discardableResult
  mutating func join(
    _ stage: StageName, name: String? = nil, credits: Int = 1, numericsClass: String = "fp32",
    model: ModelIdentity = model, standby: [ModelIdentity] = [], assists: Bool = false,
    running: [AttemptID] = []
  ) -> (worker: WorkerID, effects: [Effect]) {
    nextWorker += 1
    let registration = registration(
      stage, id: nextWorker, name: name, credits: credits, numericsClass: numericsClass, model: model,
      standby: standby, assists: assists, running: running)
    return (registration.id, send(.workerRegistered(registration)))
  }

  /// One worker of each stage joins.
  mutating func joinAll(credits: Int = 1) -> (encoder: WorkerID, denoiser: WorkerID, decoder: WorkerID) {
    (
      join(.textEncoder, credits: credits).worker, join(.denoiser, credits: credits).worker,
      join(.vaeDecoder, credits: credits).worker
    )
  }

  @discardableResult
  mutating func submit(
    _ id: String, prompt: String? = nil, negativePrompt: String? = nil, steps: Int = 4, deadline: Instant? = nil,
    model: ModelIdentity = model
  ) -> [Effect] {
    send(
      .imagesSubmitted([
        submission(id, prompt: prompt, negativePrompt: negativePrompt, steps: steps, deadline: deadline, model: model)
      ]))
  }

  func submission(
    _ id: String, prompt: String? = nil, negativePrompt: String? = nil, steps: Int = 4, deadline: Instant? = nil,
    model: ModelIdentity = model
  ) -> ImageJobSubmission {
    let plan = ImageJobPlan.toy(prompt: prompt ?? "prompt of \(id)", negativePrompt: negativePrompt, stepCount: steps)
    return ImageJobSubmission(id: ImageJobID(id), model: model, plan: plan, deadline: deadline)
  }

  /// The worker accepts the offer and finishes the task.
  @discardableResult
  mutating func complete(
    _ offer: (offer: Offer, worker: WorkerID)?, after wait: Duration = .seconds(1), bytes: Int = 100
  ) throws
    -> [Effect]
  {
    let (offer, worker) = try #require(offer)
    send(.taskAccepted(offer.attempt, by: worker))
    return send(.taskFinished(offer.attempt, by: worker, output: payload(bytes: bytes)), after: wait)
  }

  /// The worker reports a step with a checkpoint; returns the checkpoint.
  @discardableResult
  mutating func step(
    _ offer: (offer: Offer, worker: WorkerID)?, _ completedSteps: Int, after wait: Duration = .seconds(1)
  ) throws
    -> Payload
  {
    let (offer, worker) = try #require(offer)
    let latents = payload()
    send(
      .taskProgressed(
        offer.attempt, by: worker, StepReport(completedSteps: completedSteps, stepSeconds: 1, checkpoint: latents)),
      after: wait)
    return latents
  }

  /// Brings a job without negative prompt to the denoiser; returns that offer.
  mutating func bringToDenoiser(_ id: String, steps: Int = 4) throws -> (offer: Offer, worker: WorkerID) {
    let encode = offers(submit(id, steps: steps)).first
    return try #require(offers(try complete(encode)).first)
  }
}

func offers(_ effects: [Effect]) -> [(offer: Offer, worker: WorkerID)] {
  effects.compactMap { if case .offer(let offer, let worker) = $0 { (offer, worker) } else { nil } }
}

func events(_ effects: [Effect], of job: String) -> [ImageJobEvent] {
  effects.compactMap { if case .image(ImageJobID(job), let event) = $0 { event } else { nil } }
}

func switches(_ effects: [Effect]) -> [WorkerID: ModelIdentity] {
  effects.reduce(into: [:]) { if case .switchModel(let worker, let model) = $1 { $0[worker] = model } }
}

func cancels(_ effects: [Effect]) -> [AttemptID] {
  effects.compactMap { if case .cancel(let attempt, _, _) = $0 { attempt } else { nil } }
}

func failure(_ effects: [Effect], of job: String) -> Status? {
  for case .failed(let failure) in events(effects, of: job) { return failure }
  return nil
}

func rejection(_ effects: [Effect]) -> Status? {
  for case .rejected(_, let failure) in effects { return failure }
  return nil
}

func attempt(_ job: String, _ index: Int, _ number: UInt32) -> AttemptID {
  AttemptID(task: TaskID(job: ImageJobID(job), index: index), number: number)
}
