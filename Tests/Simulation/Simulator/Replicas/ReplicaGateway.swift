import ClusterCore
import Scheduling

/// What the process of one of several gateways holds in memory.
final class ReplicaGateway {
  let index: Int
  /// Names this process.
  let life: Int
  let epoch: Int64
  let startedAt: Int
  /// Of its clock, which starts with it, per virtual second.
  let clockRate: Double
  /// Of its wall clock, in ms.
  let wallSkew: Int
  var scheduler: Scheduler
  var contents: [UInt64: UInt64] = [:]
  private var nextPayload: UInt64 = 0
  private let payloadBase: UInt64
  var nextSession: UInt64 = 0
  /// By connection.
  var sessions: [Int: WorkerID] = [:]
  var connections: [WorkerID: (slot: Int, connection: Int)] = [:]
  /// Images of its jobs.
  var jobs: [ImageJobID: ToyImage] = [:]
  /// Names of jobs that are not admitted yet, and who waits for that.
  var unadmitted: [String: [Int]] = [:]
  var unadmittedKeys: [Int: String] = [:]
  var entries: [(sequence: JournalSequence, record: SharedRecord)] = []
  var isWriting = false
  /// It takes no more jobs and gives back what it has.
  var isStopping = false

  init(
    index: Int, life: Int, epoch: Int64, now: Int, clockRate: Double, wallSkew: Int, payloadBase: UInt64,
    _ scheduler: Scheduler
  ) {
    self.index = index
    self.life = life
    self.epoch = epoch
    self.startedAt = now
    self.clockRate = clockRate
    self.wallSkew = wallSkew
    self.payloadBase = payloadBase
    self.scheduler = scheduler
  }

  func instant(_ now: Int) -> Instant {
    Instant(sinceZero: .milliseconds(Int(Double(now - startedAt) * clockRate)))
  }

  func insert(_ content: UInt64) -> Payload {
    nextPayload += 1
    contents[payloadBase + nextPayload] = content
    return Payload(id: payloadBase + nextPayload, byteCount: 100)
  }
}

// MARK: - Start and end

extension ReplicaSimulation {
  func startGateway(_ index: Int) {
    guard gateways[index] == nil else { return }
    guard reachesJournal(index), now >= frozenUntil[index] else {
      schedule(.startGateway(index), in: 500)
      return
    }
    lastLife += 1
    let epoch = journal.open(now: now)
    var scheduler = Scheduler(configuration: schedulingConfiguration, owner: epoch)
    switch mutation {
    case .adoptedNumbers: scheduler.omissions = .adoptedNumbers
    case .reservation: scheduler.omissions = .reservation
    default: break
    }
    let gateway = ReplicaGateway(
      index: index, life: lastLife, epoch: epoch, now: now, clockRate: 1 + 0.01 * Double(random.pick(-10...10)),
      wallSkew: random.pick(-2000...2000), payloadBase: mutation == .payloadEpoch ? 0 : UInt64(epoch) << 36, scheduler)
    gateways[index] = gateway
    log("g\(index) starts as owner \(epoch)")
    process(.tenantsChanged([Tenant(id: TenantID("t1"), policy: TenantPolicy(weight: 3, maxJobs: 5))]), gateway)
    schedule(.tick(index, life: lastLife), in: 500)
    schedule(.renew(index, life: lastLife), in: 1)
  }

  private var schedulingConfiguration: SchedulingConfiguration {
    var configuration = SchedulingConfiguration.toy(maxJobs: scenario.maxJobs)
    configuration.strayGrace = .seconds(15)
    return configuration
  }

  /// The process is gone; workers look for the next one.
  func endGateway(_ index: Int, restartInMs: Int) {
    gateways[index] = nil
    frozenUntil[index] = 0
    for slot in workers.indices where workers[slot].links[index].connection != nil {
      workers[slot].links[index].connection = nil
      workers[slot].links[index].session = nil
      workers[slot].links[index].connectedAt = now
      schedule(.connect(slot: slot, link: index, process: workers[slot].process), in: random.pick(200...4000))
    }
    schedule(.startGateway(index), in: restartInMs)
  }

  func tick(_ index: Int, life: Int) {
    guard let gateway = gateways[index], gateway.life == life else { return }
    process(.tick, gateway)
    schedule(.tick(index, life: life), in: 500)
  }

  func renew(_ index: Int, life: Int) {
    guard let gateway = gateways[index], gateway.life == life else { return }
    schedule(.renew(index, life: life), in: ReplicaScenario.renewalMs)
    call(.renew(gateway.scheduler.load(now: gateway.instant(now))), gateway)
  }

  /// SIGTERM: what is on its way to the journal is written, then the jobs are handed over.
  func stop(_ index: Int, life: Int) {
    guard let gateway = gateways[index], gateway.life == life else { return }
    guard !gateway.isWriting, gateway.entries.isEmpty else {
      schedule(.stop(index, life: life), in: 100)
      return
    }
    call(.release, gateway)
  }

  // MARK: The journal

  func call(_ call: JournalCall, _ gateway: ReplicaGateway) {
    schedule(
      .atJournal(gateway.index, life: gateway.life, epoch: gateway.epoch, call),
      in: random.pick(1...scenario.maxCommitMs))
  }

  /// At the journal; the gateway may have ended since.
  func serve(_ call: JournalCall, _ index: Int, life: Int, epoch: Int64) {
    func reply(_ reply: JournalReply) {
      schedule(.fromJournal(index, life: life, reply), in: random.pick(1...scenario.maxCommitMs))
    }
    guard reachesJournal(index) else { return reply(.unavailable(call)) }
    // Done, but the answer is lost: it is asked for again.
    let isLost = isChaos && random.chance(0.03)
    do throws(SharedJournalError) {
      switch call {
      case .renew(let note):
        let others = try journal.renew(epoch, note, now: now)
        reply(.renewed(others))
      case .adopt:
        let adopted = try journal.adopt(epoch, limit: 3, now: now)
        if !adopted.isEmpty { log("owner \(epoch) adopts \(adopted.map(\.image.id))") }
        reply(.adopted(adopted))
      case .write(let entries):
        let refused = try write(entries, epoch)
        reply(
          isLost ? .unavailable(call) : .written(last: entries.last?.sequence ?? JournalSequence(0), refused: refused))
      case .release:
        journal.release(epoch, now: now)
        notify(.lookForJobs, but: index)
        reply(.released)
      }
    } catch {
      reply(.fenced)
    }
    for problem in journal.problems { report(problem) }
  }

  /// Each entry alone when one cannot be written, as the journal's writer does.
  private func write(_ entries: [(sequence: JournalSequence, record: SharedRecord)], _ epoch: Int64)
    throws(SharedJournalError) -> [JournalSequence]
  {
    var refused: [JournalSequence] = []
    for (sequence, record) in entries {
      do throws(SharedJournalError) {
        let before = record.images.filter { journal.images[$0]?.outcome == nil }
        try journal.apply([record], of: epoch)
        for id in before where journal.images[id]?.outcome != nil { checkOutcome(of: id) }
      } catch {
        guard case .duplicate = error else { throw error }
        refused.append(sequence)
      }
    }
    return refused
  }

  /// Tells the other gateways something, perhaps.
  func notify(_ call: OwnerCall, but index: Int? = nil, only epoch: Int64? = nil) {
    for case .some(let gateway) in gateways where gateway.index != index && epoch.map({ $0 == gateway.epoch }) ?? true {
      guard !(isChaos && random.chance(scenario.messageLoss)), reachesJournal(gateway.index) else { continue }
      schedule(.ownerMessage(gateway.index, life: gateway.life, call), in: random.pick(1...scenario.maxDelayMs))
    }
  }

  func take(_ call: OwnerCall, _ index: Int, life: Int) {
    guard let gateway = gateways[index], gateway.life == life else { return }
    switch call {
    case .lookForJobs: self.call(.adopt, gateway)
    case .cancel(let ids):
      for id in ids { process(.imageCancelled(id, reason: Status(.cancelled, "not wanted any more")), gateway) }
    }
  }

  func take(_ reply: JournalReply, _ index: Int, life: Int) {
    guard let gateway = gateways[index], gateway.life == life else { return }
    switch reply {
    case .renewed(let others):
      process(.othersChanged(others), gateway)
      if mutation != .lookAtRenewals, !gateway.isStopping { call(.adopt, gateway) }
    case .adopted(let entries): adopt(entries, gateway)
    case .written(let last, let refused):
      for sequence in refused {
        count("keys taken by another gateway")
        process(.journalRefused(sequence, Status(.unavailable, "the key is another job's")), gateway)
      }
      gateway.isWriting = false
      process(.journalled(through: last), gateway)
    case .unavailable(.write(let entries)):
      count("writes that had to wait")
      schedule(.atJournal(index, life: life, epoch: gateway.epoch, .write(entries)), in: 300)
    case .unavailable(.release): schedule(.stop(index, life: life), in: 300)
    case .unavailable: break
    case .released, .fenced:
      if case .fenced = reply { count("fenced gateways") } else { count("handovers") }
      disown(gateway)
      endGateway(index, restartInMs: random.pick(200...3000))
    }
  }

  private func disown(_ gateway: ReplicaGateway) {
    process(.disowned(Status(.unavailable, "another gateway has the jobs")), gateway)
    if !gateway.contents.isEmpty { report("g\(gateway.index) keeps payloads of jobs that are not its own any more") }
  }

  private func adopt(_ entries: [SharedToyJournal.Entry], _ gateway: ReplicaGateway) {
    guard !entries.isEmpty else { return }
    let jobs = entries.map { entry in
      gateway.jobs[entry.image.id] = entry.image
      count("adopted images")
      let tasks = entry.tasks.sorted { $0.key < $1.key }.map { index, task in
        RestoredTask(
          index: index, attemptNumber: task.attemptNumber, output: task.output.map { gateway.insert($0.value) },
          checkpoint: task.checkpoint.map {
            Checkpoint(completedSteps: $0.completedSteps, latents: gateway.insert($0.content.value))
          }, numericsClass: task.output?.numericsClass ?? task.checkpoint?.content.numericsClass)
      }
      return RestoredImageJob(submission: submission(entry.image, gateway), tasks: tasks)
    }
    process(.adopted(jobs), gateway)
  }

  func submission(_ image: ToyImage, _ gateway: ReplicaGateway) -> ImageJobSubmission {
    let deadline = image.job.deadline.map { deadline in
      gateway.instant(now) + .milliseconds(Int(Double(deadline - (now + gateway.wallSkew)) * gateway.clockRate))
    }
    return ImageJobSubmission(
      id: image.id, model: image.job.model, plan: image.plan, deadline: deadline, tenant: image.job.tenant,
      priority: image.job.priority)
  }
}
