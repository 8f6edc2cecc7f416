import ClusterCore
import Scheduling

/// A whole cluster in one thread and in virtual time: the scheduler as it runs in the gateway, and around it toys for
/// all else: gateway processes that are killed, a disk that forgets what was not synced, a network that drops,
/// duplicates, delays and reorders, workers that crash, freeze and come back, and clients that ask again.
final class Simulation: World<Action> {
  let scenario: Scenario
  let mutation: Mutation?
  var gateway: ToyGateway?
  var disk = ToyDisk()
  var workers: [ToyWorker] = []
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

  /// The world of a seed.
  init(seed: UInt64, mutation: Mutation? = nil) {
    var random = SeededGenerator(seed: seed &* 0x2545_f491_4f6c_dd1d)
    scenario = Scenario(&random)
    self.mutation = mutation
    super.init(random: random, chaosMs: scenario.chaosMs)
  }

  override var isWhole: Bool { gateway != nil }
  override func checkRest() { examineRest() }

  override func prepare() {
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

  override func perform(_ action: Action) {
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

// MARK: - What happens

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
