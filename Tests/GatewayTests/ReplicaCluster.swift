import ClusterCore
import Foundation
import Gateway
import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import HTTPTesting
import Hummingbird
import Journal
import Observability
import Scheduling
import Synchronization
import Testing
import Transport

/// Several dispatchers of one journal in one process, each with toy workers of its own.
final class ReplicaCluster: Sendable {
  /// One gateway.
  struct Replica: Sendable {
    let dispatcher: Dispatcher
    let journal: SharedMemoryJournal
    let endpoint: String
    let running: Task<Void, any Error>
  }

  let memory: SharedMemory
  private let workers = Mutex<[ToyWorker]>([])
  private let replicas = Mutex<[Replica]>([])

  private init(_ memory: SharedMemory) { self.memory = memory }

  /// Runs `body`, and ends what is left.
  static func run<Result: Sendable>(
    lease: Duration = .seconds(60), _ body: (ReplicaCluster) async throws -> Result
  ) async throws -> Result {
    let cluster = ReplicaCluster(try SharedMemory(lease: lease))
    let result: Swift.Result<Result, any Error>
    do { result = .success(try await body(cluster)) } catch { result = .failure(error) }
    for worker in cluster.workers.withLock({ $0 }) { await worker.crash() }
    for replica in cluster.replicas.withLock({ $0 }) {
      replica.running.cancel()
      _ = try? await replica.running.value
      replica.journal.close()
    }
    return try result.get()
  }

  /// A further gateway.
  func start(_ configure: (inout DispatcherConfiguration) -> Void = { _ in }) async throws -> Replica {
    var configuration = DispatcherConfiguration()
    configuration.heartbeatInterval = .milliseconds(200)
    configuration.scheduling.lease = .seconds(60)
    configuration.scheduling.adoptionGrace = .milliseconds(100)
    configuration.tickInterval = .milliseconds(20)
    configuration.journalLease = .seconds(6)
    configure(&configuration)
    var transport = RouterConfiguration(endpoints: ["tcp://127.0.0.1:*"], security: .plaintext())
    transport.logger = Toy.logger
    let router = try await RouterSocket(transport)
    let journal = memory.open()
    let dispatcher = try await Dispatcher(
      configuration: configuration, journal: journal, router: router, logger: Toy.logger)
    let running = Task { try await dispatcher.run() }
    let replica = Replica(
      dispatcher: dispatcher, journal: journal, endpoint: await router.endpoints[0], running: running)
    replicas.withLock { $0.append(replica) }
    return replica
  }

  /// As many gateways, which know one another.
  func start(
    count: Int, _ configure: (inout DispatcherConfiguration) -> Void = { _ in }
  ) async throws -> [Replica] {
    var started: [Replica] = []
    for _ in 0..<count { started.append(try await start(configure)) }
    for replica in started {
      try await wait("the gateways know one another") { await replica.dispatcher.otherOwners.count == count - 1 }
    }
    return started
  }

  /// One worker of each stage for a gateway.
  @discardableResult
  func join(_ replica: Replica, stepTime: Duration = .milliseconds(2)) async throws -> ToyWorker {
    var denoiser: ToyWorker?
    for stage in [StageName.textEncoder, .denoiser, .vaeDecoder] {
      let worker = try await ToyWorker(
        stage, name: "\(stage.text)-\(UInt32.random(in: 0 ... .max))", endpoint: replica.endpoint,
        credits: stage == .denoiser ? 1 : 4, stepTime: stage == .denoiser ? stepTime : .milliseconds(2))
      workers.withLock { $0.append(worker) }
      if stage == .denoiser { denoiser = worker }
      await worker.start()
    }
    try await wait("the workers have joined") { await replica.dispatcher.status.workers.count >= 3 }
    _ = try await replica.dispatcher.card(named: nil)
    return denoiser!
  }

  /// As when a gateway's process is stopped: its lease ends, and it does not notice.
  func stall(_ replica: Replica) {
    memory.setCut(replica.journal.epoch, true)
    memory.expire(replica.journal.epoch)
  }

  func app(_ replica: Replica, keyring: Keyring? = nil) -> some ApplicationProtocol {
    GatewayServer.make(
      dispatcher: replica.dispatcher, keyring: keyring, address: .hostname("127.0.0.1", port: 0),
      limits: HTTPLimits(), metrics: PrometheusRegistry(), logger: Toy.logger)
  }

  /// A request for toy images.
  static func request(
    _ prompt: String, steps: Int = 4, count: Int = 1, key: String? = nil, isDetached: Bool = true
  ) throws -> JobRequest {
    let body = #"{"prompt":"\#(prompt)","seed":7,"steps":\#(steps),"n":\#(count)}"#
    let request = try GenerationRequest(body: Array(body.utf8), maxPromptBytes: 1000)
    var job = JobRequest(try ImageSpec.images(of: request, card: Toy.card, randomSeed: 0).images)
    job.key = key.map { IdempotencyKey(text: $0, digest: Data(prompt.utf8)) }
    job.isDetached = isDetached
    return job
  }
}

extension EncodedImage {
  var array: [UInt8] { bytes.withUnsafeBytes { Array($0) } }
}
