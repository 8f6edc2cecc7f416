import ClusterCore
import Scheduling

/// The scheduler alone, with many workers that answer at once and a long queue: how long it takes for each event.
package struct SchedulerLoad {
  /// Microseconds for each event of a kind.
  package private(set) var times: [String: [Double]] = [:]
  /// Seconds until all jobs of an earlier run were taken in.
  package private(set) var recoverySeconds = 0.0

  private var scheduler: Scheduler
  private var nextPayload: UInt64 = 0
  private var nextJob = 0
  private var nowMs = 0
  private var offers: [(offer: Offer, worker: WorkerID)] = []
  private var head = 0
  private let clock = ContinuousClock()

  /// A cluster of `workers`, 1 of 20 of them an encoder and 1 of 20 a decoder, and of `jobs` that wait.
  package init(workers: Int, jobs: Int, tenants: Int = 10) {
    var configuration = SchedulingConfiguration()
    configuration.maxJobs = jobs + 10_000
    configuration.maxJournalEntries = 1 << 20
    scheduler = Scheduler(configuration: configuration)
    let start = clock.now
    let restored = (0..<jobs).map { _ in RestoredImageJob(submission: submission(tenants)) }
    step(.restored(restored), "restored")
    recoverySeconds = (clock.now - start) / .seconds(1)
    for number in 0..<workers {
      let stage: StageName = number % 20 == 0 ? .textEncoder : number % 20 == 1 ? .vaeDecoder : .denoiser
      step(
        .workerRegistered(
          WorkerRegistration(
            id: WorkerID(UInt64(number + 1)), name: "worker-\(number)", stage: stage, model: Self.model,
            numericsClass: "bf16", credits: 1)), "registered")
    }
  }

  private static let model = ModelIdentity(id: "toy", fingerprint: "f1")

  /// Answers `count` offers, the oldest first, with four steps for each denoising task, a report of the worker and a
  /// new job for each one that ends.
  package mutating func answer(_ count: Int, tenants: Int = 10) {
    for number in 0..<count where head < offers.count {
      let (offer, worker) = offers[head]
      head += 1
      if head > 4096 {
        offers.removeFirst(head)
        head = 0
      }
      nowMs += 1
      step(.taskAccepted(offer.attempt, by: worker), "accepted")
      if offer.inputs.count == 1, offer.attempt.task.index == 1 {
        for done in 1...4 {
          let report = StepReport(completedSteps: done, stepSeconds: 0.001, checkpoint: payload())
          step(.taskProgressed(offer.attempt, by: worker, report), "progress")
        }
      }
      step(.taskFinished(offer.attempt, by: worker, output: payload()), "finished")
      step(.workerReported(worker, WorkerReport(running: [])), "report")
      if number % 250 == 249 { step(.tick, "tick") }
      if offer.attempt.task.index == 2 { step(.imagesSubmitted([submission(tenants)]), "submitted") }
    }
  }

  private mutating func payload() -> Payload {
    nextPayload += 1
    return Payload(id: nextPayload, byteCount: 100)
  }

  private mutating func submission(_ tenants: Int) -> ImageJobSubmission {
    nextJob += 1
    return ImageJobSubmission(
      id: ImageJobID("job-\(nextJob)"), model: Self.model,
      plan: .toy(prompt: "prompt \(nextJob)", negativePrompt: nil, stepCount: 5), deadline: nil,
      tenant: TenantID("tenant \(nextJob % tenants)"))
  }

  private mutating func step(_ event: Event, _ name: String) {
    let start = clock.now
    let effects = scheduler.step(event, now: Instant(sinceZero: .milliseconds(nowMs)))
    times[name, default: []].append((clock.now - start) / .microseconds(1))
    var last: JournalSequence?
    for effect in effects {
      switch effect {
      case .offer(let offer, let worker): offers.append((offer, worker))
      case .journal(let sequence, _): last = sequence
      default: break
      }
    }
    if let last { step(.journalled(through: last), "journalled") }
  }

  /// One line for each kind of event.
  package var lines: [String] {
    times.sorted { $0.key < $1.key }.map { name, times in
      let sorted = times.sorted()
      let mean = sorted.reduce(0, +) / Double(sorted.count)
      func rounded(_ value: Double) -> Double { (value * 10).rounded() / 10 }
      return
        "\(name): \(sorted.count) events, mean \(rounded(mean)) µs, median \(rounded(sorted[sorted.count / 2])) µs, "
        + "p99 \(rounded(sorted[(sorted.count - 1) * 99 / 100])) µs, most \(rounded(sorted[sorted.count - 1])) µs"
    }
  }
}
