import ClusterCore
import Foundation
import Gateway
import GatewayDispatch
import GatewayPipelines
import HTTPTesting
import HTTPTypes
import Hummingbird
import Journal
import NIOCore
import Observability
import Scheduling
import StrictJSON
import TestSupport
import Testing
import Transport
import Wire

/// A gateway with toy workers in one process, over real sockets.
struct ToyCluster: Sendable {
  let dispatcher: Dispatcher
  let endpoint: String
  private let workers = WorkerList()

  /// Those to stop at the end: they would look for the gateway for ever, and find another test's in its place.
  private actor WorkerList {
    private var workers: [ToyWorker] = []

    func append(_ worker: ToyWorker) { workers.append(worker) }

    func stop() async { for worker in workers { await worker.crash() } }
  }

  /// An address that no other test uses.
  static var freshEndpoint: String { "ipc://\(NSTemporaryDirectory())gateway-\(UInt64.random(in: 0 ... .max)).sock" }

  private init(dispatcher: Dispatcher, endpoint: String) {
    self.dispatcher = dispatcher
    self.endpoint = endpoint
  }

  /// Runs `body` with a dispatcher, without workers.
  static func run<Result: Sendable>(
    _ configure: (inout DispatcherConfiguration) -> Void = { _ in }, endpoint: String = "tcp://127.0.0.1:*",
    journal: String? = nil,
    limits: JournalLimits = JournalLimits(), pipelines: PipelineRegistry = .standard,
    provenance: ResultProvenance = .none, reviewer: (any ContentReviewer)? = nil,
    enhancer: (any PromptEnhancer)? = nil, _ body: (ToyCluster) async throws -> Result
  ) async throws -> Result {
    var configuration = DispatcherConfiguration()
    configuration.heartbeatInterval = .milliseconds(200)
    configuration.scheduling.lease = .seconds(60)
    configuration.tickInterval = .milliseconds(50)
    configure(&configuration)
    var transport = RouterConfiguration(endpoints: [endpoint], security: .plaintext())
    transport.logger = Toy.logger
    let router = try await RouterSocket(transport)
    let store = try SQLiteJournalStore(path: journal, limits: limits)
    defer { store.close() }
    let dispatcher = try await Dispatcher(
      configuration: configuration, pipelines: pipelines, provenance: provenance, reviewer: reviewer,
      enhancer: enhancer, journal: store, router: router, logger: Toy.logger)
    let cluster = ToyCluster(dispatcher: dispatcher, endpoint: await router.endpoints[0])
    let running = Task { try await dispatcher.run() }
    let result: Swift.Result<Result, any Error>
    do { result = .success(try await body(cluster)) } catch { result = .failure(error) }
    await cluster.workers.stop()
    running.cancel()
    try await running.value
    return try result.get()
  }

  @discardableResult
  func join(
    _ stage: StageName, name: String? = nil, card: ModelCard = Toy.card, standby: [ModelCard] = [],
    numericsClass: String = "toy", credits: Int = 1,
    componentFingerprint: String = "c", registrationTensors: [WireTensor] = [],
    stepTime: Duration = .milliseconds(2), time: any TimeSource = SystemTime(),
    misbehave: @escaping @Sendable (TaskReference, Body) -> ToyWorker.Misbehaviour? = { _, _ in nil }
  ) async throws -> ToyWorker {
    let worker = try await ToyWorker(
      stage, name: name ?? "\(stage.text)-\(UInt32.random(in: 0 ... .max))", endpoint: endpoint, card: card,
      standby: standby, numericsClass: numericsClass, credits: credits,
      componentFingerprint: componentFingerprint, registrationTensors: registrationTensors, stepTime: stepTime,
      time: time, misbehave: misbehave)
    await workers.append(worker)
    await worker.start()
    return worker
  }

  /// One worker of each stage, and waits until they have joined.
  func joinAll(
    stepTime: Duration = .milliseconds(2), credits: Int = 4, time: any TimeSource = SystemTime()
  ) async throws -> (encoder: ToyWorker, denoiser: ToyWorker, decoder: ToyWorker) {
    let workers = (
      try await join(.textEncoder, credits: credits), try await join(.denoiser, stepTime: stepTime, time: time),
      try await join(.vaeDecoder, credits: credits)
    )
    try await waitUntilReady()
    return workers
  }

  private var isReady: Bool {
    get async {
      let (catalog, status) = (await dispatcher.catalog, await dispatcher.status)
      return status.models.contains { catalog.card(of: $0).map { catalog.isReady($0, status) } ?? false }
    }
  }

  func waitUntilReady() async throws {
    try await wait("the cluster is ready") { await isReady }
    _ = try await dispatcher.card(named: nil)
  }

  func app(
    _ limits: HTTPLimits = HTTPLimits(), keyring: Keyring? = nil, settings: HTTPSettings = HTTPSettings(),
    metrics: PrometheusRegistry = PrometheusRegistry()
  ) -> some ApplicationProtocol {
    GatewayServer.make(
      dispatcher: dispatcher, keyring: keyring, address: .hostname("127.0.0.1", port: 0), limits: limits,
      settings: settings,
      metrics: metrics, logger: Toy.logger)
  }

  /// An image, from the dispatcher without HTTP.
  func image(_ prompt: String, seed: UInt64, steps: Int = 4, negativePrompt: String? = nil) async throws -> [UInt8] {
    var body = #"{"prompt":"\#(prompt)","seed":\#(seed),"steps":\#(steps)"#
    if let negativePrompt { body += #","negative_prompt":"\#(negativePrompt)""# }
    let request = try GenerationRequest(body: Array((body + "}").utf8), maxPromptBytes: 1000)
    let images = try ImageSpec.images(of: request, card: Toy.card, randomSeed: 0).images
    let ticket = try await dispatcher.submit(JobRequest(images))
    return try await ticket.results()[0].bytes.withUnsafeBytes { Array($0) }
  }
}

/// Waits until `condition` holds, for as long as the test may take.
func wait(_ what: String, sourceLocation: SourceLocation = #_sourceLocation, _ condition: () async throws -> Bool)
  async throws
{
  do { try await until(what, condition) } catch let error as WaitedInVain {
    Issue.record("\(error)", sourceLocation: sourceLocation)
    throw error
  }
}

extension TestClientProtocol {
  /// `POST /v1/images/generations`.
  func generate(_ body: String, headers: HTTPFields = [.contentType: "application/json"]) async throws -> TestResponse {
    try await execute(uri: "/v1/images/generations", method: .post, headers: headers, body: ByteBuffer(string: body))
  }

  func get(_ uri: String) async throws -> (status: HTTPResponse.Status, json: JSON) {
    let response = try await execute(uri: uri, method: .get)
    return (response.status, try JSON(Array(buffer: response.body)))
  }
}

extension TestResponse {
  var json: JSON { get throws { try JSON(Array(buffer: body)) } }

  /// The image number `index` of an answer.
  func image(_ index: Int = 0) throws -> [UInt8] {
    let text = try #require(try json["data"]?[index]?["b64_json"]?.text)
    return try Array(#require(Data(base64Encoded: text)))
  }

  /// The `error` of an answer.
  var error: JSON? { get throws { try json["error"] } }
}

extension JSON {
  var count: Int? { elements?.count }
}
