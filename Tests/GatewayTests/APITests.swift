import ClusterCore
import Foundation
import Gateway
import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import HTTPTesting
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import Observability
import Scheduling
import ServiceLifecycle
import StrictJSON
import Testing
import Wire

@Suite("The HTTP API", .timeLimit(.minutes(2)))
struct APITests {
  static let json: HTTPFields = [.contentType: "application/json"]

  @Test(
    arguments: [
      (HTTPRequest.Method.get, "/nothing", [:], "", 404, "route_not_found"),
      (.get, "/v1/models/other", [:], "", 404, "model_not_found"),
      (.get, "/v1/images/generations", [:], "", 405, "method_not_allowed"),
      (.delete, "/v1/models", [:], "", 405, "method_not_allowed"),
      (.post, "/healthz", [:], "{}", 405, "method_not_allowed"),
      (.post, "/v1/images/upscales", APITests.json, "{}", 404, "route_not_found"),
      (.post, "/v1/images/generations", [:], "{}", 415, "unsupported_media_type"),
      (.post, "/v1/images/generations", [.contentType: "text/plain"], "{}", 415, "unsupported_media_type"),
      (
        .post, "/v1/images/generations", [.contentType: "application/json; charset=latin1"], "{}", 415,
        "unsupported_media_type"
      ),
      (
        .post, "/v1/images/generations", [.contentType: "application/json", .contentEncoding: "gzip"], "{}", 415,
        "unsupported_media_type"
      ),
      (
        .post, "/v1/images/generations", [.contentType: "application/json; charset=UTF-8"], "{}", 400,
        "missing_required_parameter"
      ),
      (
        .post, "/v1/images/generations", [.contentType: "application/json;charset=\"utf8\""], "{}", 400,
        "missing_required_parameter"
      ),
      (.post, "/v1/images/generations", APITests.json, "", 400, "invalid_json"),
      (.post, "/v1/images/generations", APITests.json, "nonsense", 400, "invalid_json"),
      (.post, "/v1/images/generations", APITests.json, #"{"prompt":"p","steps":0}"#, 400, "invalid_value"),
      (
        .post, "/v1/images/generations", APITests.json, #"{"prompt":"p","model":"gpt-image-1"}"#, 404, "model_not_found"
      ),
      (.post, "/v1/images/generations", APITests.json, #"{"prompt":"p","size":"63x64"}"#, 400, "invalid_value"),
    ] as [(HTTPRequest.Method, String, HTTPFields, String, Int, String)])
  func errorsHaveOneShape(
    method: HTTPRequest.Method, uri: String, headers: HTTPFields, body: String, status: Int, code: String
  )
    async throws
  {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let response = try await client.execute(
          uri: uri, method: method, headers: headers, body: ByteBuffer(string: body))
        #expect(response.status.code == status)
        #expect(response.headers[.contentType] == "application/json")
        #expect(response.headers[HTTPField.Name("x-should-retry")!] == "false")
        let error = try #require(try response.error)
        #expect(error["code"]?.text == code)
        #expect(error["type"]?.text == "invalid_request_error")
        #expect(error["message"]?.text?.isEmpty == false)
        #expect(error["param"] != nil)
        if status == 405 { #expect(response.headers[.allow] == (uri.contains("images") ? "POST" : "GET, HEAD")) }
      }
    }
  }

  @Test func whatIsNotUTF8IsRefused() async throws {
    try await ToyCluster.run { cluster in
      try await cluster.app().test(.live) { client in
        let body = ByteBuffer(bytes: Array(#"{"prompt":""#.utf8) + [0xFF, 0xFE] + Array(#""}"#.utf8))
        let response = try await client.execute(
          uri: "/v1/images/generations", method: .post, headers: Self.json, body: body)
        #expect(response.status == .badRequest)
        #expect(try response.error?["message"]?.text == "the body is not JSON: string is not valid UTF-8 at byte 11")
      }
    }
  }

  /// PowerShell and editors put one before UTF-8; the keyed request is the same with it and without.
  @Test func aByteOrderMarkIsIgnoredOrNamed() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let body = Array(#"{"prompt":"a cat","seed":1}"#.utf8)
        var ids: Set<String?> = []
        for mark in [[], [0xEF, 0xBB, 0xBF]] as [[UInt8]] {
          let response = try await client.execute(
            uri: "/v1/jobs", method: .post, headers: JobsTests.keyed("k"), body: ByteBuffer(bytes: mark + body))
          #expect(response.status == .accepted)
          ids.insert(try response.json["id"]?.text)
        }
        #expect(ids.count == 1)
        for mark in [[0xFF, 0xFE], [0xFE, 0xFF]] as [[UInt8]] {
          let response = try await client.execute(
            uri: "/v1/jobs", method: .post, headers: Self.json, body: ByteBuffer(bytes: mark + body))
          #expect(response.status == .badRequest)
          #expect(try response.error?["code"]?.text == "invalid_json")
          #expect(try response.error?["message"]?.text?.contains("byte order mark of UTF-16") == true)
        }
        // One mark, and at the start alone.
        let double = try await client.execute(
          uri: "/v1/jobs", method: .post, headers: Self.json,
          body: ByteBuffer(bytes: [0xEF, 0xBB, 0xBF, 0xEF, 0xBB, 0xBF] + body))
        #expect(double.status == .badRequest)
      }
    }
  }

  @Test func beforeAllStagesAreThereItSaysWhichAreMissing() async throws {
    try await ToyCluster.run { cluster in
      try await cluster.app().test(.live) { client in
        let early = try await client.generate(#"{"prompt":"p"}"#)
        #expect(early.status == .serviceUnavailable)
        #expect(early.headers[.retryAfter] == "5")
        #expect(early.headers[HTTPField.Name("x-should-retry")!] == nil)
        #expect(try early.error?["code"]?.text == "not_ready")
        #expect(
          try early.error?["message"]?.text
            == "no worker has registered yet: a text-encoder, a denoiser, a vae-decoder are needed")
        #expect(try await client.get("/readyz").status == .serviceUnavailable)
        #expect(try await client.get("/healthz").status == .ok)

        let encoder = try await cluster.join(.textEncoder)
        try await cluster.join(.vaeDecoder)
        try await wait("two are there") { await cluster.dispatcher.status.workers.count == 2 }
        let partly = try await client.generate(#"{"prompt":"p"}"#)
        #expect(try partly.error?["message"]?.text == "no ready worker for: denoiser (model toy/model (f1))")
        let readiness = try await client.get("/readyz")
        #expect(readiness.status == .serviceUnavailable)
        #expect(readiness.json["models"]?[0]?["missing"]?[0]?.text == "denoiser")

        try await cluster.join(.denoiser)
        try await cluster.waitUntilReady()
        #expect(try await client.get("/readyz").status == .ok)
        // A stage that leaves afterwards is waited for.
        await encoder.crash()
        try await wait("it is gone") { await cluster.dispatcher.status.workers.count == 2 }
        #expect(try await client.get("/readyz").status == .serviceUnavailable)
        async let late = client.generate(#"{"prompt":"p","seed":1}"#)
        try await wait("the job waits") { await cluster.dispatcher.openImageCount == 1 }
        try await cluster.join(.textEncoder)
        #expect(try await late.image() == Toy.expected(prompt: "p", seed: 1))
      }
    }
  }

  @Test func aFullQueueAnswers429() async throws {
    try await ToyCluster.run({ $0.scheduling.maxJobs = 3 }) { cluster in
      _ = try await cluster.joinAll(stepTime: .milliseconds(100))
      try await cluster.app().test(.live) { client in
        async let long = client.generate(#"{"prompt":"p","n":2,"steps":5,"seed":1}"#)
        try await wait("the job runs") { await cluster.dispatcher.status.startedImages == 1 }
        let refused = try await client.generate(#"{"prompt":"p","n":2}"#)
        #expect(refused.status == .tooManyRequests)
        #expect(Int(refused.headers[.retryAfter] ?? "") != nil)
        #expect(try refused.error?["code"]?.text == "queue_full")
        #expect(try refused.error?["type"]?.text == "rate_limit_error")
        #expect(try await long.image(1) == Toy.expected(prompt: "p", seed: 2, steps: 5))
        // Now it is known how long a job takes.
        async let second = client.generate(#"{"prompt":"p","n":3,"steps":5}"#)
        try await wait("one of three runs") { await cluster.dispatcher.status.startedImages > 0 }
        let later = try await client.generate(#"{"prompt":"p"}"#)
        #expect(later.status == .tooManyRequests)
        #expect((1...5).contains(Int(later.headers[.retryAfter] ?? "") ?? 0))
        #expect(try await second.status == .ok)
      }
    }
  }

  @Test func aJobThatTakesTooLongAnswers504() async throws {
    try await ToyCluster.run({ $0.jobTimeout = .seconds(4) }) { cluster in
      let workers = try await cluster.joinAll(stepTime: .milliseconds(500))
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(#"{"prompt":"p","steps":50}"#)
        #expect(response.status == .gatewayTimeout)
        #expect(try response.error?["message"]?.text?.contains("of 50 steps") == true)
        try await wait("the denoiser gets the cancellation") { await !workers.denoiser.log.cancelled.isEmpty }
      }
    }
  }

  @Test func modelsAndWorkersAreListed() async throws {
    try await ToyCluster.run { cluster in
      try await cluster.app().test(.live) { client in
        #expect(try await client.get("/v1/models").json["data"]?.count == 0)
        _ = try await cluster.joinAll()
        let list = try await client.get("/v1/models").json
        #expect(list["object"]?.text == "list")
        #expect(list["data"]?.count == 1)
        for uri in ["/v1/models/toy/model", "/v1/models/toy%2Fmodel"] {
          let (status, model) = try await client.get(uri)
          #expect(status == .ok)
          #expect(model == list["data"]?[0])
          #expect(model["id"]?.text == "toy/model")
          #expect(model["object"]?.text == "model")
          #expect(model["ready"] == .bool(true))
          #expect(model["limits"]?["max_steps"]?.integer == 50)
          #expect(model["defaults"]?["size"]?["width"]?.integer == 64)
        }
        let workers = try await client.get("/v1/workers").json
        #expect(workers["data"]?.count == 3)
        let stages = (0..<3).compactMap { workers["data"]?[$0]?["stage"]?.text }
        #expect(Set(stages) == ["text-encoder", "denoiser", "vae-decoder"])
        #expect(workers["data"]?[0]?["state"]?.text == "ready")
        #expect(workers["data"]?[0]?["host"]?.text == "test")
        let head = try await client.execute(uri: "/readyz", method: .head)
        #expect(head.status == .ok)
      }
    }
  }

  @Test func metricsAreShown() async throws {
    try await ToyCluster.run { cluster in
      let metrics = PrometheusRegistry()
      metrics.makeCounter(label: "test_total", dimensions: [("a", "b")]).increment(by: 3)
      try await cluster.app(metrics: metrics).test(.live) { client in
        let response = try await client.execute(uri: "/metrics", method: .get)
        #expect(response.headers[.contentType] == "text/plain; version=0.0.4; charset=utf-8")
        #expect(String(buffer: response.body).contains("test_total{a=\"b\"} 3"))
      }
    }
  }

  @Test func thePageLoadsFromHereAlone() async throws {
    try await ToyCluster.run { cluster in
      try await cluster.app().test(.live) { client in
        for uri in RouteAccessTests.pagePaths {
          let mediaType = uri == "/" ? "text/html" : uri.hasSuffix(".css") ? "text/css" : "text/javascript"
          let response = try await client.execute(uri: uri, method: .get)
          #expect(response.status == .ok)
          #expect(response.headers[.contentType] == "\(mediaType); charset=utf-8")
          #expect(
            response.headers[.contentSecurityPolicy]?.hasPrefix("default-src 'none'; script-src 'self'; ") == true)
          let text = String(buffer: response.body)
          #expect(
            text.utf8.count > 1000 && !text.contains("http:") && !text.contains("https:") && !text.contains("style="))
        }
        #expect(try await client.execute(uri: "/", method: .post).status == .methodNotAllowed)
      }
    }
  }

  /// What the document says is what is served: every path and method in it, every code of the table, every field of a
  /// request.
  @Test func theDocumentTellsTheTruth() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let document = try await client.execute(uri: "/openapi.yaml", method: .get)
        #expect(document.headers[.contentType] == "application/yaml")
        let lines = String(buffer: document.body).components(separatedBy: "\n")
        let paths = lines.filter { $0.hasPrefix("  /") }.map {
          $0.trimmingCharacters(in: CharacterSet(charactersIn: " :"))
        }
        let served = Set(GatewayServer.routes(dispatcher: cluster.dispatcher).map(\.path)).filter {
          $0.hasPrefix("/v1/") || $0.hasPrefix("/sdapi/") || $0.hasPrefix("/internal/")
        }
        let documented = paths.map {
          $0.replacingOccurrences(of: "{model}", with: "**").replacingOccurrences(of: "{job}", with: "{id}")
        }
        #expect(served.subtracting(documented).isEmpty && paths.count == Set(paths).count)
        let accepted = try await client.generate(#"{"prompt":"p"}"#)
        let job = try #require(accepted.headers[.location]?.split(separator: "/").last)
        let prompt = #"{"prompt":"p"}"#
        let bodies = [
          "/v1/jobs/bulk": "[\(prompt)]",
          "/v1/templates/jobs": #"{"template":{"name":"t","prompt":"p"},"rows":[{}]}"#,
        ]
        for path in paths {
          let uri = path.replacingOccurrences(of: "{model}", with: "toy/model").replacingOccurrences(
            of: "{job}", with: job)
          let isPost = lines.drop { $0 != "  \(path):" }.dropFirst().first == "    post:" && path != "/v1/jobs"
          let method: HTTPRequest.Method = isPost ? .post : .get
          let response = try await client.execute(
            uri: uri, method: method, headers: isPost ? Self.json : [:],
            body: ByteBuffer(string: isPost ? bodies[path] ?? prompt : ""))
          if ["/sdapi/v1/img2img", "/sdapi/v1/png-info"].contains(path) {
            #expect(response.status == .unprocessableContent, "\(path)")
            continue
          }
          let needsImage = path.hasSuffix("/edits") || path.hasSuffix("/variations")
          // The job has ended.
          let isGone = path.hasSuffix("/preview")
          #expect(response.status == (needsImage ? .badRequest : isGone ? .notFound : .ok), "\(path)")
          if needsImage { #expect(try response.error?["param"]?.text == "image") }
        }
        for code in APIError.Code.allCases { #expect(lines.contains("                - \(code.rawValue)"), "\(code)") }
        let unknown = try await client.generate(#"{"prompt":"p","x":1}"#)
        let message = try #require(try unknown.error?["message"]?.text)
        let known = try #require(message.components(separatedBy: "known fields: ").last).components(separatedBy: ", ")
        #expect(known.count > 20)
        for field in known where !["svg", "frame_count", "frame_duration_ms"].contains(field) {
          #expect(lines.contains { $0.hasPrefix("        \(field):") }, "\(field)")
        }
        // A sequence is asked for by its instructions, not by name.
        let pipelines = PipelineRegistry.standard.pipelines.map(\.name.text).filter { $0 != "edit-sequence" }
        let list = "            [\(pipelines.joined(separator: ", ")), null]"
        #expect(lines.contains(list), "the pipelines are \(list)")
      }
    }
  }

  @Test func eventsAreStreamed() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll(stepTime: .milliseconds(10))
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(#"{"prompt":"a cat","seed":5,"steps":6,"n":2,"stream":true}"#)
        #expect(response.status == .ok)
        #expect(response.headers[.contentType] == "text/event-stream; charset=utf-8")
        let events = try Self.events(String(buffer: response.body))
        for (name, data) in events { #expect(data["type"]?.text == name) }
        for index in 0..<2 {
          let own = events.filter { $0.data["image_index"]?.integer == Int(index) }
          let steps = own.filter { $0.name == "image_generation.progress" && $0.data["stage"]?.text == "denoiser" }
            .compactMap { $0.data["step"]?.integer }
          #expect(steps == steps.sorted() && steps.last == 6 && steps.contains(1), "\(steps)")
          let completed = try #require(own.last)
          #expect(completed.name == "image_generation.completed")
          #expect(own.filter { $0.name == "image_generation.completed" }.count == 1)
          #expect(completed.data["seed"]?.integer == Int(5 + index))
          #expect(completed.data["size"]?.text == "64x64")
          let png = completed.data["b64_json"]?.text.flatMap { Data(base64Encoded: $0) }
          #expect(png.map { Array($0) } == Toy.expected(prompt: "a cat", seed: UInt64(5 + index), steps: 6))
        }
        // The second waited behind the first.
        #expect(events.contains { $0.data["image_index"]?.integer == 1 && $0.data["queue_position"]?.integer == 2 })
      }
    }
  }

  @Test func errorsInAStreamAreEvents() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let long = String(repeating: "x", count: 101)
        let events = try Self.events(
          String(buffer: try await client.generate(#"{"prompt":"\#(long)","stream":true}"#).body))
        #expect(events.last?.name == "error")
        #expect(events.last?.data["error"]?["message"]?.text == "the prompt has 101 tokens, the limit is 100")
        #expect(events.last?.data["error"]?["code"]?.text == "prompt_too_long")
        // What is wrong before the stream begins has its own status.
        #expect(try await client.generate(#"{"prompt":"","stream":true}"#).status == .badRequest)
      }
    }
  }

  /// `event:` and `data:` of each event of a stream.
  static func events(_ text: String) throws -> [(name: String, data: JSON)] {
    try text.components(separatedBy: "\n\n").filter { !$0.isEmpty && !$0.hasPrefix(":") }.map { block in
      let lines = block.components(separatedBy: "\n")
      #expect(lines.count == 2)
      let name = try #require(lines.first?.split(separator: ": ", maxSplits: 1).last)
      let data = try #require(lines.last?.split(separator: ": ", maxSplits: 1).last)
      return (String(name), try JSON(Array(data.utf8)))
    }
  }

  @Test func everyCodeHasItsRowAndEveryStatusItsCode() throws {
    let expected: [(StatusCode, APIError.Code)] = [
      (.cancelled, .cancelled), (.unknown, .internalError), (.invalidArgument, .invalidValue),
      (.deadlineExceeded, .deadlineExceeded),
      (.notFound, .notFound), (.alreadyExists, .conflict), (.permissionDenied, .permissionDenied),
      (.resourceExhausted, .queueFull),
      (.failedPrecondition, .invalidValue), (.aborted, .conflict), (.outOfRange, .invalidValue),
      (.unimplemented, .unimplemented),
      (.internal, .internalError), (.unavailable, .unavailable), (.dataLoss, .internalError),
      (.unauthenticated, .authenticationRequired),
    ]
    #expect(expected.map(\.0) == StatusCode.allCases.filter { $0 != .ok })
    for (status, code) in expected { #expect(APIError(Status(status, "x")).code == code) }
    #expect(APIError(Status(.resourceExhausted, "x", retryAfterSeconds: 0.2)).retryAfterSeconds == 1)
    #expect(APIError(Status(.resourceExhausted, "x", retryAfterSeconds: .infinity)).retryAfterSeconds == 3600)
  }

  @Test func aShutdownLetsRunningJobsEnd() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll(stepTime: .milliseconds(30))
      let drained = try await Self.drain(cluster, grace: .seconds(20), steps: 10)
      #expect(try drained.get() == Toy.expected(prompt: "p", seed: 1, steps: 10))
    }
  }

  @Test func aShutdownCancelsWhatTakesLongerThanItsGrace() async throws {
    try await ToyCluster.run { cluster in
      let workers = try await cluster.joinAll(stepTime: .milliseconds(100))
      let drained = try await Self.drain(cluster, grace: .milliseconds(200), steps: 50)
      #expect(throws: Status(.unavailable, "the gateway is shutting down")) { try drained.get() }
      try await wait("the denoiser gets the cancellation") { await !workers.denoiser.log.cancelled.isEmpty }
    }
  }

  private static func drain(_ cluster: ToyCluster, grace: Duration, steps: Int) async throws -> Result<
    [UInt8], any Error
  > {
    let group = ServiceGroup(
      services: [Drain(dispatcher: cluster.dispatcher, grace: grace, logger: Toy.logger)], logger: Toy.logger)
    let request = Task { try await cluster.image("p", seed: 1, steps: steps) }
    try await wait("the job runs") { await cluster.dispatcher.status.startedImages == 1 }
    let running = Task { try await group.run() }
    await group.triggerGracefulShutdown()
    try await wait("no more jobs are taken") { await !cluster.dispatcher.isOpen }
    await #expect(throws: Status(.unavailable, "the gateway is shutting down")) {
      try await cluster.image("q", seed: 2)
    }
    try await running.value
    #expect(await cluster.dispatcher.openImageCount == 0)
    return await request.result
  }
}
