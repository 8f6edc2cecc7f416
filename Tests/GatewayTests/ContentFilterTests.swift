import ClusterCore
import Foundation
import Gateway
import GatewayDispatch
import GatewayPipelines
import HTTPTesting
import HTTPTypes
import Hummingbird
import Settings
import StrictJSON
import Synchronization
import Testing

/// An endpoint that judges as a test wants, and keeps what it was asked.
private final class Judge: Sendable {
  private let endpoint: JSONEndpoint

  init(_ judge: @escaping @Sendable (JSON) async -> Response) { endpoint = JSONEndpoint("judge", judge) }

  var questions: [JSON] { endpoint.questions }

  /// Runs `body` with a cluster that asks it.
  func judging(
    _ change: @escaping @Sendable (inout ContentFilterSettings) -> Void = { _ in },
    _ body: @escaping @Sendable (ToyCluster) async throws -> Void
  ) async throws {
    try await endpoint.serving { address in
      var settings = ContentFilterSettings()
      settings.url = "\(address)/judge"
      settings.timeout = .seconds(2)
      change(&settings)
      try await ToyCluster.run(reviewer: settings.filter(logger: Toy.logger)) { cluster in
        _ = try await cluster.joinAll()
        try await body(cluster)
      }
    }
  }
}

@Suite("The content filter", .timeLimit(.minutes(2)))
struct ContentFilterTests {
  private static let request = #"{"prompt":"p","negative_prompt":"n","seed":1}"#
  private static let expected = Toy.expected(prompt: "p", negativePrompt: "n", seed: 1)

  @Test func isAskedBeforeTheWorkAndBeforeTheDelivery() async throws {
    let judge = Judge { _ in JSONEndpoint.answer(#"{"allowed": true}"#) }
    try await judge.judging { cluster in
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(Self.request)
        #expect(response.status == .ok)
        #expect(try response.image() == Self.expected)
      }
    }
    let questions = judge.questions
    try #require(questions.count == 2)
    #expect(questions.map { $0["phase"]?.text } == ["request", "result"])
    for question in questions {
      #expect(question["prompt"]?.text == "p" && question["negative_prompt"]?.text == "n")
      #expect(question["model"]?.text == "toy/model" && question["pipeline"]?.text == "text-to-image")
      #expect(question["job"]?.text?.hasPrefix("job-") == true && question["job"] == questions[0]["job"])
    }
    #expect(questions[0]["images"] == nil && questions[0]["index"] == nil)
    #expect(questions[1]["index"]?.integer == 0 && questions[1]["images"]?.elements?.count == 1)
    #expect(questions[1]["images"]?[0]?["media_type"]?.text == "image/png")
    #expect(questions[1]["images"]?[0]?["b64_json"]?.text == Data(Self.expected).base64EncodedString())
  }

  @Test(arguments: [true, false]) func whereImagesAreJudgedThereAreNoPreviews(judgesResults: Bool) async throws {
    let judge = Judge { _ in JSONEndpoint.answer(#"{"allowed": true}"#) }
    try await judge.judging({ $0.judgesResults = judgesResults }) { cluster in
      try await cluster.join(.vaeDecoder, registrationTensors: [Toy.previewMap])
      try await wait("it has joined") { await cluster.dispatcher.status.workers.count == 4 }
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(#"{"prompt":"p","seed":1,"stream":true,"partial_images":3}"#)
        let names = try APITests.events(String(buffer: response.body)).map(\.name)
        #expect(names.contains("image_generation.partial_image") == !judgesResults)
        #expect(names.last == "image_generation.completed")
      }
    }
  }

  @Test func aRefusedRequestIsNoJob() async throws {
    let judge = Judge { _ in JSONEndpoint.answer(#"{"allowed": false, "reason": "not\nthis"}"#) }
    try await judge.judging { cluster in
      try await cluster.app().test(.live) { client in
        for path in ["/v1/images/generations", "/v1/jobs"] {
          let response = try await client.execute(
            uri: path, method: .post, headers: [.contentType: "application/json"], body: .init(string: Self.request))
          #expect(response.status == .badRequest)
          let error = try #require(try response.error)
          #expect(error["code"]?.text == "content_policy_violation" && error["type"]?.text == "invalid_request_error")
          #expect(error["message"]?.text == "the content filter refuses the request: not this")
          #expect(error["param"]?.text == "prompt")
        }
        let jobs = try await client.get("/v1/jobs").json
        #expect(jobs["data"]?.count == 0, "\(jobs)")
      }
    }
  }

  @Test func aRefusedImageFailsItsJob() async throws {
    let judge = Judge { JSONEndpoint.answer(#"{"allowed": \#($0["phase"]?.text == "request")}"#) }
    try await judge.judging { cluster in
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(Self.request)
        #expect(response.status == .badRequest)
        #expect(try response.error?["code"]?.text == "content_policy_violation")
        #expect(try response.error?["message"]?.text == "the content filter refuses the image")
        let job = try #require(try await client.get("/v1/jobs").json["data"]?[0])
        #expect(job["status"]?.text == "failed")
        let id = try #require(job["id"]?.text)
        #expect(try await client.get("/v1/jobs/\(id)/result").status == .badRequest)
      }
    }
    #expect(judge.questions.count == 2, "an image is not made again for another judgement")
  }

  @Test func aRepeatedRequestIsNotJudgedAgain() async throws {
    let judge = Judge { _ in JSONEndpoint.answer(#"{"allowed": true}"#) }
    try await judge.judging { cluster in
      try await cluster.app().test(.live) { client in
        for _ in 1...2 {
          let headers: HTTPFields = [.contentType: "application/json", .init("idempotency-key")!: "k"]
          let response = try await client.generate(Self.request, headers: headers)
          #expect(response.status == .ok)
        }
      }
    }
    #expect(judge.questions.count == 2)
  }

  private static let answers = [
    ("no", "200"), (#"{"allowed": "yes"}"#, "200"), (#"{"allowed": true}"#, "500"), (#"{"allowed": true}"#, "302"),
    (#"{"allowed": true, "more": ""# + String(repeating: "x", count: 70_000) + #""}"#, "200"),
  ]

  @Test(arguments: answers) func withoutAnAnswerItIsClosed(text: String, status: String) async throws {
    let judge = Judge { _ in JSONEndpoint.answer(text, status: .init(code: Int(status) ?? 0)) }
    try await judge.judging { cluster in
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(Self.request)
        #expect(response.status == .serviceUnavailable)
        #expect(try response.error?["message"]?.text?.contains("gives no answer") == true)
      }
    }
    try await judge.judging({
      $0.failsOpen = true; $0.judgesResults = false
    }) { cluster in
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(Self.request)
        #expect(try response.image() == Self.expected)
      }
    }
    #expect(judge.questions.count == 2)
  }

  @Test func anAnswerThatIsLateIsNone() async throws {
    let judge = Judge { _ in
      try? await Task.sleep(for: .seconds(60))
      return JSONEndpoint.answer(#"{"allowed": true}"#)
    }
    try await judge.judging({ $0.timeout = .milliseconds(200) }) { cluster in
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(Self.request)
        #expect(response.status == .serviceUnavailable)
      }
    }
  }

  @Test func anImageThatIsNotJudgedIsAskedAboutAgainAndThenFails() async throws {
    let judge = Judge { question in
      question["phase"]?.text == "request"
        ? JSONEndpoint.answer(#"{"allowed": true}"#) : JSONEndpoint.answer("", status: .badGateway)
    }
    try await judge.judging { cluster in
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(Self.request)
        #expect(response.status == .gatewayTimeout)
      }
    }
    #expect(judge.questions.count == 4)
  }

  @Test(arguments: ["judge", "ftp://a/", "http://", "http://user@a/", "http://a/#b"])
  func anAddressThatIsNoneIsRefused(url: String) async throws {
    let result = try await GatewayProgram.run(["--check-config", "--filter-url", url])
    #expect(result.status == .exited(78) && result.output.contains("filter.url is \"\(url)\""), "\(result.output)")
    #expect(
      try await GatewayProgram.run(["--check-config", "--filter-url", "https://a.example/b?c"]).status == .exited(0))
  }
}
