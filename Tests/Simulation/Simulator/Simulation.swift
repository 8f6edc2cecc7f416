import ClusterCore
import HeapModule
import Scheduling

/// A whole cluster in one thread and in virtual time: the scheduler as it runs in the gateway, and around it toys for
/// all else: gateway processes that are killed, a disk that forgets what was not synced, a network that drops,
/// duplicates, delays and reorders, workers that crash, freeze and come back, and clients that ask again. Everything
/// follows from the seed.
///
/// First faults happen; then everything heals, and every job must end.
package final class Simulation: SeededRun {
  let scenario: Scenario
  let mutation: Mutation?
  /// Called with every line of the trace.
  var trace: ((String) -> Void)?

  var random: SeededGenerator
  /// Virtual milliseconds.
  var now = 0
  var gateway: ToyGateway?
  var disk = ToyDisk()
  var workers: [ToyWorker] = []
  var clients: [ToyClient] = []
  var nextProcess = 0
  var nextConnection = 0
  var nextJob = 0
  /// When the partition between a slot and the gateway ends.
  var partitions: [Int: Int] = [:]
  /// When the gateway process continues.
  var gatewayFrozenUntil = 0
  /// When there is space on the disk again.
  var diskFullUntil = 0
  var judge = Judge()

  package internal(set) var coverage = Coverage()
  private var queue = Heap<Scheduled>()
  private var sequence: UInt64 = 0

  /// The world of a seed.
  package init(seed: UInt64, mutation: Mutation? = nil) {
    random = SeededGenerator(seed: seed &* 0x2545_f491_4f6c_dd1d)
    scenario = Scenario(&random)
    self.mutation = mutation
  }

  /// What must not be and was, with the time.
  package var problems: [String] { judge.problems }

  /// The time from which on nothing breaks any more.
  var isChaos: Bool { now < scenario.chaosMs }

  /// Runs until all is quiet, the first problem is found, or the time is up.
  package func run(limitSeconds: Int) {
    prepare()
    while problems.isEmpty, let next = queue.popMin() {
      now = next.time
      guard now < scenario.chaosMs + limitSeconds * 1000 else {
        let late = clients.filter { !$0.isDone }.map { "\($0.job.key) (\($0.id ?? "no id"))" }
        report("after \(limitSeconds) s without faults these requests have not ended: \(late.joined(separator: ", "))")
        break
      }
      coverage.events += 1
      perform(next.action)
      if isQuiet {
        checkRest()
        break
      }
    }
    coverage.seeds = 1
    coverage.virtualSeconds = Double(now) / 1000
  }

  private var quietSince: Int?

  /// All clients have an answer, and workers and journal have had time to come to rest: as long as the slowest step.
  private var isQuiet: Bool {
    guard !isChaos, clients.allSatisfy(\.isDone), gateway != nil else {
      quietSince = nil
      return false
    }
    if quietSince == nil { quietSince = now }
    return now - (quietSince ?? now) > 90_000
  }

  func count(_ name: String) {
    coverage.counts[name, default: 0] += 1
  }

  func log(_ text: @autoclosure () -> String) {
    guard let trace else { return }
    let time = String(now + 100_000_000).dropFirst()
    trace("\(time.dropLast(3)).\(time.suffix(3)) \(text())")
  }

  /// A broken promise.
  func report(_ text: String) {
    log("PROBLEM: \(text)")
    judge.problems.append("at \(now) ms: \(text)")
  }

  package func traceLines(to sink: @escaping (String) -> Void) { trace = sink }
}

// MARK: - Time

enum Action {
  case toGateway(slot: Int, connection: Int, WorkerMessage)
  case toWorker(slot: Int, process: Int, connection: Int, GatewayMessage)
  case work(slot: Int, process: Int, AttemptID)
  case heartbeat(slot: Int, process: Int)
  case connect(slot: Int, process: Int)
  case thaw(slot: Int, process: Int)
  case startWorker(slot: Int)
  case drain(slot: Int)
  case tick(life: Int)
  case commit(life: Int)
  case startGateway
  case killGateway
  case freezeGateway
  case workerFault
  case fillDisk
  case killStuck(slot: Int, process: Int)
  case send(client: Int, Request)
  case request(client: Int, Request)
  case response(client: Int, Response, to: Request)
  case resend(client: Int, attempt: Int)
}

extension Action {
  /// Whether a gateway process must run for it.
  fileprivate var isForGateway: Bool {
    switch self {
    case .toGateway, .tick, .commit, .request: true
    default: false
    }
  }
}

private struct Scheduled: Comparable {
  var time: Int
  var sequence: UInt64
  var action: Action

  static func < (left: Scheduled, right: Scheduled) -> Bool {
    (left.time, left.sequence) < (right.time, right.sequence)
  }
  static func == (left: Scheduled, right: Scheduled) -> Bool { left.sequence == right.sequence }
}

extension Simulation {
  func schedule(_ action: Action, in delayMs: Int) {
    sequence += 1
    queue.insert(Scheduled(time: now + delayMs, sequence: sequence, action: action))
  }

  private func prepare() {
    schedule(.startGateway, in: 0)
    var slots: [(StageName, String)] = []
    for numericsClass in scenario.hasTwoClasses ? ToyModel.classes : [ToyModel.classes[0]] {
      slots += [.textEncoder, .vaeEncoder, .denoiser, .vaeDecoder].map { ($0, numericsClass) }
    }
    slots.append((.denoiser, ToyModel.classes[0]))
    for (stage, numericsClass) in slots {
      workers.append(ToyWorker(stage: stage, numericsClass: numericsClass, credits: random.pick(1...2)))
      schedule(.startWorker(slot: workers.count - 1), in: random.pick(0...4000))
    }
    for key in 0..<scenario.clientCount {
      clients.append(ToyClient(job: toyJob(key: key)))
      schedule(.send(client: key, .submit), in: random.pick(0...scenario.chaosMs * 3 / 4))
    }
    for _ in 0..<scenario.workerFaults { schedule(.workerFault, in: random.pick(0...scenario.chaosMs)) }
    for _ in 0..<scenario.gatewayKills { schedule(.killGateway, in: random.pick(0...scenario.chaosMs)) }
    for _ in 0..<scenario.gatewayFreezes { schedule(.freezeGateway, in: random.pick(0...scenario.chaosMs)) }
    for _ in 0..<scenario.diskFills { schedule(.fillDisk, in: random.pick(0...scenario.chaosMs)) }
  }

  private func perform(_ action: Action) {
    if now < gatewayFrozenUntil, action.isForGateway {
      schedule(action, in: gatewayFrozenUntil - now)
      return
    }
    switch action {
    case .toGateway(let slot, let connection, let message): receive(message, slot: slot, connection: connection)
    case .toWorker(let slot, let process, let connection, let message):
      receive(message, slot: slot, process: process, connection: connection)
    case .work(let slot, let process, let attempt): work(attempt, slot: slot, process: process)
    case .heartbeat(let slot, let process): heartbeat(slot: slot, process: process)
    case .connect(let slot, let process): connect(slot: slot, process: process)
    case .thaw(let slot, let process): thaw(slot: slot, process: process)
    case .startWorker(let slot): startWorker(slot)
    case .drain(let slot): stopWorker(slot)
    case .tick(let life): tick(life: life)
    case .commit(let life): commit(life: life)
    case .startGateway: startGateway()
    case .killGateway: if isChaos { killGateway() }
    case .freezeGateway: if isChaos { freezeGateway() }
    case .workerFault: if isChaos { breakWorker() }
    case .fillDisk: if isChaos { fillDisk() }
    case .killStuck(let slot, let process):
      if workers[slot].process == process { crashWorker(slot, restartInMs: 1000) }
    case .send(let client, let request): send(request, from: client)
    case .request(let client, let request): serve(request, of: client)
    case .response(let client, let response, let request): take(response, to: request, client: client)
    case .resend(let client, let attempt): resend(client: client, attempt: attempt)
    }
  }
}
