import ClusterCore
import Scheduling

/// A cluster with several gateways over one journal, in one thread and in virtual time: gateways that are killed,
/// stalled, cut off from the journal or from workers, or stopped; a journal that cannot be reached for a while; clocks
/// that do not agree; clients that ask another gateway each time; and workers that serve all gateways. The virtual time
/// is the journal's clock.
final class ReplicaSimulation: World<ReplicaAction> {
  let scenario: ReplicaScenario
  let mutation: ReplicaMutation?
  var journal: SharedToyJournal
  var gateways: [ReplicaGateway?]
  var workers: [ReplicaWorker] = []
  var lastProcess = 0
  var lastConnection = 0
  var lastJob = 0
  var lastLife = 0
  /// By gateway: until when its process stands still, it does not reach the journal, nor the workers.
  var frozenUntil: [Int]
  var journalCutUntil: [Int]
  var workerCutUntil: [Int]
  var journalDownUntil = 0
  /// Since when a gateway can adopt jobs.
  var healthySince: [Int?]
  var judge = ReplicaJudge()

  /// The world of a seed.
  init(seed: UInt64, mutation: ReplicaMutation? = nil) {
    var random = SeededGenerator(seed: seed &* 0x9e6c_63d0_876a_68ff)
    scenario = ReplicaScenario(&random)
    self.mutation = mutation
    journal = SharedToyJournal(mutation: mutation)
    gateways = Array(repeating: nil, count: scenario.gatewayCount)
    healthySince = Array(repeating: nil, count: scenario.gatewayCount)
    frozenUntil = Array(repeating: 0, count: scenario.gatewayCount)
    journalCutUntil = frozenUntil
    workerCutUntil = frozenUntil
    super.init(random: random, chaosMs: scenario.chaosMs)
  }

  override var isWhole: Bool { gateways.allSatisfy { $0 != nil } }
  override func checkRest() { examineRest() }

  override func prepare() {
    for gateway in gateways.indices { schedule(.startGateway(gateway), in: random.pick(0...3000)) }
    var slots: [(StageName, String)] = []
    for numericsClass in scenario.hasTwoClasses ? ToyModel.classes : [ToyModel.classes[0]] {
      slots += [.textEncoder, .denoiser, .vaeDecoder].map { ($0, numericsClass) }
    }
    slots.append((.denoiser, ToyModel.classes[0]))
    for (stage, numericsClass) in slots {
      let links = gateways.map { _ in ReplicaWorker.Link() }
      workers.append(
        ReplicaWorker(stage: stage, numericsClass: numericsClass, credits: random.pick(1...2), links: links))
      schedule(.startWorker(slot: workers.count - 1), in: random.pick(0...4000))
    }
    for key in 0..<scenario.clientCount {
      clients.append(ToyClient(job: toyJob(key: key)))
      schedule(.send(client: key), in: random.pick(0...scenario.chaosMs * 3 / 4))
    }
    for _ in 0..<scenario.workerFaults { schedule(.workerFault, in: random.pick(0...scenario.chaosMs)) }
    for _ in 0..<scenario.gatewayFaults { schedule(.gatewayFault, in: random.pick(0...scenario.chaosMs)) }
    for _ in 0..<scenario.journalOutages { schedule(.journalOutage, in: random.pick(0...scenario.chaosMs)) }
    schedule(.watch, in: 500)
  }

  override func perform(_ action: ReplicaAction) {
    if let gateway = action.gateway, now < frozenUntil[gateway] {
      schedule(action, in: frozenUntil[gateway] - now)
      return
    }
    switch action {
    case .startGateway(let gateway): startGateway(gateway)
    case .gatewayFault: if isChaos { breakGateway() }
    case .journalOutage: if isChaos { breakJournal() }
    case .watch: watch()
    case .tick(let gateway, let life): tick(gateway, life: life)
    case .renew(let gateway, let life): renew(gateway, life: life)
    case .stop(let gateway, let life): stop(gateway, life: life)
    case .atJournal(let gateway, let life, let epoch, let call): serve(call, gateway, life: life, epoch: epoch)
    case .fromJournal(let gateway, let life, let reply): take(reply, gateway, life: life)
    case .ownerMessage(let gateway, let life, let call): take(call, gateway, life: life)
    case .toGateway(let gateway, let life, let connection, let slot, let what):
      receive(what, gateway, life: life, connection: connection, slot: slot)
    case .toWorker(let slot, let process, let link, let connection, let message):
      if workers[slot].process == process { receive(message, slot, link, connection: connection) }
    case .startWorker(let slot): startWorker(slot)
    case .workerFault: if isChaos { breakWorker() }
    case .thaw(let slot, let process): thaw(slot, process: process)
    case .connect(let slot, let link, let process): connect(slot, link, process: process)
    case .heartbeat(let slot, let process): heartbeat(slot, process: process)
    case .work(let slot, let process, let attempt): work(attempt, slot, process: process)
    case .send(let client): ask(client)
    case .request(let client, let gateway, let request): serve(request, of: client, at: gateway)
    case .response(let client, let response): take(response, client: client)
    case .resend(let client, let attempt): if clients[client].attempt == attempt { ask(client) }
    }
  }
}

// MARK: - What happens

/// What a gateway gets from a connection.
enum FromWorker {
  case message(WorkerMessage)
  /// The connection is closed.
  case lost(WorkerID)
}

enum ReplicaAction {
  case startGateway(Int)
  case gatewayFault
  case journalOutage
  case watch
  case tick(Int, life: Int)
  case renew(Int, life: Int)
  case stop(Int, life: Int)
  /// At the journal, and what comes back.
  case atJournal(Int, life: Int, epoch: Int64, JournalCall)
  case fromJournal(Int, life: Int, JournalReply)
  case ownerMessage(Int, life: Int, OwnerCall)
  case toGateway(Int, life: Int, connection: Int, slot: Int, FromWorker)
  case toWorker(slot: Int, process: Int, link: Int, connection: Int, ReplicaMessage)
  case startWorker(slot: Int)
  case workerFault
  case thaw(slot: Int, process: Int)
  case connect(slot: Int, link: Int, process: Int)
  case heartbeat(slot: Int, process: Int)
  case work(slot: Int, process: Int, AttemptID)
  case send(client: Int)
  case request(client: Int, gateway: Int, Request)
  case response(client: Int, Response)
  case resend(client: Int, attempt: Int)

  /// The gateway whose process must run for it.
  fileprivate var gateway: Int? {
    switch self {
    case .tick(let gateway, _), .renew(let gateway, _), .stop(let gateway, _), .fromJournal(let gateway, _, _),
      .ownerMessage(let gateway, _, _), .toGateway(let gateway, _, _, _, _), .request(_, let gateway, _):
      gateway
    default: nil
    }
  }
}

enum JournalCall {
  case renew(OwnerLoad)
  case adopt
  case write([(sequence: JournalSequence, record: SharedRecord)])
  case release
}

enum JournalReply {
  case renewed([Int64: OwnerLoad])
  case adopted([SharedToyJournal.Entry])
  case written(last: JournalSequence, refused: [JournalSequence])
  /// Not reached, or the answer was lost.
  case unavailable(JournalCall)
  case released
  case fenced
}

enum OwnerCall {
  case lookForJobs
  case cancel([ImageJobID])
}
