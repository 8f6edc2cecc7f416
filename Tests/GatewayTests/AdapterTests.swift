import ClusterCore
import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import HTTPTesting
import Hummingbird
import NIOCore
import StageRuntime
import StrictJSON
import Synchronization
import TestSupport
import Testing
import Wire

/// A toy denoiser with adapters, which notes what it was asked for.
private struct AdaptedToy: Stage {
  final class Log: Sendable {
    private let requests = Mutex([[ChosenAdapter]]())
    var all: [[ChosenAdapter]] { requests.withLock { $0 } }
    func add(_ adapters: [ChosenAdapter]) { requests.withLock { $0.append(adapters) } }
  }

  var toy = ToyStage(name: .denoiser)
  let servedAdapters: ServedAdapters
  let log = Log()
  var name: StageName { toy.name }
  var card: ModelCard { toy.card }
  var componentFingerprint: String { toy.componentFingerprint }
  var numericsClass: String { toy.numericsClass }

  func run(_ task: StageTask, context: TaskContext) throws -> StageOutput {
    if case .denoiseRequest(let request) = task.request { log.add(request.adapters) }
    return try toy.run(task, context: context)
  }
}

private let digests = ["a", "b", "c"].map { String(repeating: $0, count: 64) }

@Suite("Adapters in requests", .timeLimit(.minutes(2)))
struct AdapterTests {
  // MARK: Fields

  private static func loras(_ json: String) throws(APIError) -> [RequestedAdapter] {
    try ImageRequestTests.request(#"{"prompt":"p","loras":\#(json)}"#).loras
  }

  @Test func areRead() throws {
    #expect(try Self.loras("null").isEmpty && Self.loras("[]").isEmpty)
    #expect(
      try Self.loras(#"[{"name":"style"},{"name":"A.b_c-9","scale":-10,"sha256":"\#(digests[0])"}]"#) == [
        RequestedAdapter(name: "style"), RequestedAdapter(name: "A.b_c-9", scale: -10, digest: digests[0]),
      ])
    let parts = Intake.prompt + Intake.text("loras", #"[{"name":"style","scale":0.25}]"#)
    let form = try MultipartForm(parts + Array("--b--\r\n".utf8), boundary: "b")
    #expect(
      try GenerationRequest(form: form, maxPromptBytes: 1000).loras == [RequestedAdapter(name: "style", scale: 0.25)])
  }

  @Test(arguments: [
    (#""style""#, "loras must be a list"), (#"["style"]"#, "loras[0] must be an object"),
    ("[{}]", "loras[0]: name is missing"), (#"[{"name":"../x"}]"#, "1 to 128 characters of A-Z"),
    (#"[{"name":"x","scale":11}]"#, "scale is 11"), (#"[{"name":"x","scale":"1"}]"#, "scale must be a number"),
    (#"[{"name":"x","sha256":"1"}]"#, "64 digits"), (#"[{"name":"x","weight":1}]"#, "unknown field \"weight\""),
    (#"[{"name":"x"},{"name":"x","scale":2}]"#, "there before"),
    ("[" + Array(repeating: #"{"name":"x"}"#, count: 9).joined(separator: ",") + "]", "0 to 8"),
  ])
  func areRefused(_ json: String, _ message: String) {
    do throws(APIError) {
      _ = try Self.loras(json)
      Issue.record("\(json) was taken")
    } catch {
      #expect(error.message.contains(message) && error.param?.hasPrefix("loras") == true, "\(error)")
    }
  }

  // MARK: Names

  private static func catalog(_ workers: [(name: String, digest: Int)]...) -> AdapterCatalog {
    AdapterCatalog(workers.map { $0.map { ServedAdapter(name: $0.name, digest: digests[$0.digest]) } })
  }

  private static func resolve(_ catalog: AdapterCatalog, _ requested: RequestedAdapter...) throws(APIError) -> [String]
  {
    try catalog.resolve(requested, model: "toy").map { "\($0.name) \($0.digest.prefix(1)) \($0.scale)" }
  }

  @Test func standForWhatMostWorkersHave() throws {
    let catalog = Self.catalog([("x", 0), ("y", 0)], [("x", 1)], [("x", 1), ("z", 2)])
    let (x, y, z) = (RequestedAdapter(name: "x", scale: 2), RequestedAdapter(name: "y"), RequestedAdapter(name: "z"))
    #expect(try Self.resolve(catalog, x) == ["x b 2.0"])
    // One worker must have all.
    #expect(try Self.resolve(catalog, y, x) == ["y a 1.0", "x a 2.0"])
    #expect(try Self.resolve(catalog, x, z) == ["x b 2.0", "z c 1.0"])
    #expect(try Self.resolve(catalog, RequestedAdapter(name: "x", digest: digests[0])) == ["x a 1.0"])
    #expect(catalog.entries.map { "\($0.name)\($0.digest.prefix(1))\($0.workerCount)" } == ["xb2", "ya1", "zc1"])
    for (requested, message) in [
      ([y, z], "no denoiser of toy has all of \"y\", \"z\""),
      ([x, RequestedAdapter(name: "w")], "loras[1].name is \"w\", but no denoiser of toy has an adapter of that name"),
      ([RequestedAdapter(name: "w")], "there are \"x\", \"y\", \"z\""),
      ([RequestedAdapter(name: "y", digest: digests[2])], "loras[0].sha256 is ccc"),
    ] {
      do throws(APIError) {
        _ = try catalog.resolve(requested, model: "toy")
        Issue.record("\(requested) was resolved")
      } catch { #expect(error.message.contains(message) && error.param == "loras", "\(error.message)") }
    }
    let many = AdapterCatalog([(0..<30).map { ServedAdapter(name: "n\($0)", digest: digests[0]) }])
    #expect(throws: APIError.self) { try Self.resolve(many, x) }
    do throws(APIError) { _ = try Self.resolve(many, x) } catch {
      #expect(error.message.hasSuffix("and 10 more"), "\(error.message)")
    }
  }

  // MARK: Jobs

  @Test func areAPartOfTheImageAndItsJob() throws {
    var request = try ImageRequestTests.request(#"{"prompt":"p","loras":[{"name":"x","scale":0.1},{"name":"y"}]}"#)
    for index in request.loras.indices { request.loras[index].digest = digests[index] }
    let spec = try #require(try ImageSpec.images(of: request, card: Toy.card, randomSeed: 1).images.first)
    let adapters = [
      ChosenAdapter(name: "x", digest: digests[0], scale: 0.1), ChosenAdapter(name: "y", digest: digests[1], scale: 1),
    ]
    #expect(spec.adapters == adapters)
    let tasks = Pipeline.textToImage.tasks(spec)
    #expect(tasks.map(\.plan.adapters) == [[], [digests[0], digests[1]], []])
    let message = tasks[1].message(TaskInput(inputs: [], checkpointInterval: .zero))
    guard case .denoiseRequest(let denoise) = message.body else {
      Issue.record("\(message.body)")
      return
    }
    #expect(denoise.adapters == adapters && denoise.noise == .torchCPUWithOptions)
    // The journal has them, and nothing else in their place.
    let stored = try StoredRequest(JobRequest([spec])).encoded()
    #expect(try StoredRequest.request(from: stored, tenant: .anonymous).images == [spec])
    var damaged = spec
    damaged.options["loras"] = [["name": "x", "sha256": "1", "scale": 1]]
    #expect(Pipeline.textToImage.problem(of: spec) == nil)
    #expect(Pipeline.textToImage.problem(of: damaged)?.contains("loras") == true)
  }

  @Test func goToTheWorkerThatHasThem() async throws {
    let adapted = AdaptedToy(
      servedAdapters: ServedAdapters(
        [
          ServedAdapter(name: "x", digest: digests[0], isLoaded: true), ServedAdapter(name: "y", digest: digests[1]),
        ], revision: 1))
    try await ToyCluster.run { cluster in
      try await StageRuntimeClusterTests.withWorkers(cluster.endpoint, denoisers: 2) { _ in
        let worker = Toy.start(adapted, cluster.endpoint, credits: 2)
        defer { worker.cancel() }
        try await cluster.waitUntilReady()
        try await cluster.app().test(.live) { client in
          try await wait("the adapters are listed") {
            try await client.get("/v1/models").json["data"]?.elements?.first?["loras"]?.elements?.count == 2
          }
          let models = try await client.get("/v1/models").json["data"]?.elements?.first?["loras"]
          let first = models?.elements?.first
          #expect(first?["name"] == "x" && first?["sha256"]?.text == digests[0] && first?["loaded"] == true)
          for scale in 1...4 {
            let response = try await client.generate(
              #"{"prompt":"p","seed":1,"loras":[{"name":"y","scale":\#(scale)},{"name":"x"}]}"#)
            #expect(response.status == .ok, "\(String(buffer: response.body))")
          }
          let refused = try await client.generate(#"{"prompt":"p","loras":[{"name":"w"}]}"#)
          #expect(refused.status == .badRequest && String(buffer: refused.body).contains(#"there are \"x\", \"y\""#))
          let list = try await client.get("/sdapi/v1/loras").json
          #expect(list.elements?.compactMap { $0["name"]?.text } == ["x", "y"])
          let workers = try await client.get("/v1/workers").json["data"]?.elements ?? []
          #expect(workers.compactMap { $0["adapters"]?.elements?.count } == [2])
        }
        let expected = (1...4).map { scale in
          [
            ChosenAdapter(name: "y", digest: digests[1], scale: Double(scale)),
            ChosenAdapter(name: "x", digest: digests[0], scale: 1),
          ]
        }
        #expect(adapted.log.all == expected)
      }
    }
  }
}
