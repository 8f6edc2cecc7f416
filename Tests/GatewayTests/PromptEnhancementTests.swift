import ClusterCore
import Foundation
import Gateway
import GatewayDispatch
import GatewayPipelines
import HTTPTesting
import HTTPTypes
import Hummingbird
import NIOCore
import StrictJSON
import Testing
import Wire

@Suite("Rewritten prompts", .timeLimit(.minutes(2)))
struct PromptEnhancementTests {
  private static let request = #"{"prompt":"a cat","seed":1,"true_cfg_scale":1,"enhance_prompt":true}"#

  private static func image(_ prompt: String) -> [UInt8] { Toy.expected(prompt: prompt, seed: 1) }

  @Test func theImageIsMadeOfTheNewPromptAndBothAreShown() async throws {
    let server = ChatServer { ChatServer.says("  a tabby cat,\n\u{7}on a sofa \($0.count)") }
    let expected = "a tabby cat, on a sofa 5"
    let keyFile = try ConfigurationTests.file(" sk-secret\n")
    try await server.enhancing({ $0.apiKeyFile = keyFile }) { cluster in
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(Self.request)
        #expect(try response.image() == Self.image(expected))
        #expect(try response.json["data"]?[0]?["revised_prompt"]?.text == expected)
        let id = try #require(response.headers[.location]?.split(separator: "/").last)
        let job = try await client.get("/v1/jobs/\(id)").json
        #expect(job["prompt"]?.text == expected && job["revised_prompt"]?.text == expected)
        #expect(job["original_prompt"]?.text == "a cat")
        let results = try await client.execute(
          uri: "/v1/jobs/\(id)/result", method: .get, headers: [.accept: "application/json"])
        #expect(try results.json["data"]?[0]?["revised_prompt"]?.text == expected)
        let stream = try await client.generate(
          Self.request.replacingOccurrences(of: "}", with: #","stream":true}"#))
        let events = try APITests.events(String(buffer: stream.body))
        #expect(events.last?.name == "image_generation.completed")
        #expect(events.last?.data["revised_prompt"]?.text == expected)
        #expect(try await client.get("/v1/models").json["data"]?[0]?["enhance_prompt"] == true)
      }
    }
    try #require(server.questions.count == 1, "an equal prompt is asked about once")
    let question = server.questions[0]
    #expect(question["model"]?.text == "chat/model" && question["stream"] == false)
    #expect(question["max_tokens"]?.integer == 1024 && server.prompts == ["a cat"])
    #expect(server.instructions == [EnhancementTemplate.description.instructions])
    #expect(server.authorizations == ["Bearer sk-secret"])
  }

  @Test func whoDoesNotAskGetsTheOwnPrompt() async throws {
    let server = ChatServer { _ in ChatServer.says("another") }
    try await server.enhancing { cluster in
      try await cluster.app().test(.live) { client in
        for field in ["", #","enhance_prompt":false"#, #","enhance_prompt":null"#] {
          let response = try await client.generate(#"{"prompt":"a cat","seed":1,"true_cfg_scale":1\#(field)}"#)
          #expect(try response.image() == Self.image("a cat"))
          #expect(try response.json["data"]?[0]?["revised_prompt"] == nil)
          let id = try #require(response.headers[.location]?.split(separator: "/").last)
          #expect(try await client.get("/v1/jobs/\(id)").json["original_prompt"] == nil)
        }
      }
    }
    #expect(server.questions.isEmpty)
  }

  @Test func withoutAnEndpointItIsRefused() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        for path in ["/v1/images/generations", "/v1/jobs"] {
          let response = try await client.execute(
            uri: path, method: .post, headers: JobsTests.json, body: ByteBuffer(string: Self.request))
          #expect(response.status == .badRequest)
          let error = try #require(try response.error)
          #expect(error["param"]?.text == "enhance_prompt" && error["code"]?.text == "unsupported_value")
          #expect(error["message"]?.text?.contains("--enhancement-url") == true)
        }
        #expect(try await client.get("/v1/models").json["data"]?[0]?["enhance_prompt"] == false)
        #expect(try await client.get("/v1/jobs").json["data"]?.count == 0)
      }
    }
  }

  /// A repeated key is not asked about, even where no answer is kept and the endpoint says something else each time,
  /// and the job is the same after a restart.
  @Test func aRepeatedRequestAndARestartDoNotAskAgain() async throws {
    let folder = NSTemporaryDirectory() + "journal-\(UInt64.random(in: 0 ... .max))"
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let count = Counter()
    let server = ChatServer { _ in ChatServer.says("answer \(await count.next())") }
    try await server.settings({ $0.maxCached = 0 }) { settings in
      let id = try await ToyCluster.run(
        journal: folder + "/j", enhancer: try settings.enhancer(logger: Toy.logger)
      ) { cluster in
        let workers = try await cluster.joinAll(stepTime: .milliseconds(20))
        return try await cluster.app().test(.live) { client in
          let body = Self.request.replacingOccurrences(of: "}", with: #","steps":40}"#)
          let accepted = try await client.submit(body, JobsTests.keyed("k"))
          let again = try await client.submit(body, JobsTests.keyed("k"))
          #expect(try again.json["id"] == accepted.json["id"] && again.json["prompt"]?.text == "answer 1")
          let bulk = try await client.execute(
            uri: "/v1/jobs/bulk?atomic=true", method: .post, headers: JobsTests.json,
            body: ByteBuffer(string: "[\(body.dropLast()),\"idempotency_key\":\"k\"}]"))
          #expect(try bulk.json["data"]?[0]?["replayed"] == true, "\(String(buffer: bulk.body))")
          try await wait("it is in the middle") { await workers.denoiser.log.steps > 5 }
          return try #require(try accepted.json["id"]?.text)
        }
      }
      try await ToyCluster.run(
        journal: folder + "/j", enhancer: try settings.enhancer(logger: Toy.logger)
      ) { cluster in
        _ = try await cluster.joinAll()
        try await cluster.app().test(.live) { client in
          let job = try await client.waitForEnd(id)
          #expect(job["status"]?.text == "succeeded" && job["prompt"]?.text == "answer 1")
          #expect(job["original_prompt"]?.text == "a cat")
          let result = try await client.execute(uri: "/v1/jobs/\(id)/result", method: .get)
          #expect(Array(buffer: result.body) == Toy.expected(prompt: "answer 1", seed: 1, steps: 40))
          // Another key is another job, with a prompt of its own.
          let other = try await client.submit(Self.request, JobsTests.keyed("l"))
          #expect(try other.json["prompt"]?.text == "answer 2")
        }
      }
    }
    #expect(server.questions.count == 2)
  }

  private actor Counter {
    private var value = 0

    func next() -> Int {
      value += 1
      return value
    }
  }

  private static let answers: [(text: String, status: String, questions: Int)] = [
    ("no JSON", "200", 1), (#"{"choices":[]}"#, "200", 1), (#"{"choices":[{"message":{"content":null}}]}"#, "200", 1),
    ("", "500", 1), ("", "302", 1), (String(repeating: "x", count: 2 << 20), "200", 1),
    (#"{"choices":[{"finish_reason":"length","message":{"content":"a ca"}}]}"#, "200", 1),
    (#"{"choices":[{"message":{"content":" \n\t"}}]}"#, "200", 2),
    (#"{"choices":[{"message":{"content":"<think>a cat"}}]}"#, "200", 2),
    (#"{"choices":[{"message":{"content":""# + String(repeating: "y", count: 1001) + #""}}]}"#, "200", 2),
  ]

  @Test(arguments: answers) func anAnswerThatCannotBeUsedLosesNothing(
    text: String, status: String, questions: Int
  ) async throws {
    let server = ChatServer { _ in JSONEndpoint.answer(text, status: .init(code: Int(status) ?? 0)) }
    try await server.enhancing { cluster in
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(Self.request)
        #expect(response.status == .serviceUnavailable && response.headers[.retryAfter] != nil)
        let error = try #require(try response.error)
        #expect(error["code"]?.text == "unavailable" && error["param"]?.text == "enhance_prompt")
        #expect(try await client.get("/v1/jobs").json["data"]?.count == 0)
      }
    }
    #expect(server.questions.count == questions)
    try await server.enhancing({ $0.failsOpen = true }) { cluster in
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(Self.request)
        #expect(try response.image() == Self.image("a cat"))
        #expect(try response.json["data"]?[0]?["revised_prompt"] == nil)
      }
    }
  }

  @Test func anAnswerThatIsLateIsNone() async throws {
    let (released, release) = AsyncStream<Void>.makeStream()
    let server = ChatServer { _ in
      for await _ in released {}
      return ChatServer.says("late")
    }
    try await server.enhancing({ $0.timeout = .milliseconds(200) }) { cluster in
      defer { release.finish() }
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(Self.request)
        #expect(response.status == .serviceUnavailable)
      }
    }
    #expect(server.questions.count == 1)
  }

  /// One question at a time, four wait, and the sixth is refused at once; equal ones are one.
  @Test func questionsAtATimeAreBounded() async throws {
    let (released, release) = AsyncStream<Void>.makeStream()
    let server = ChatServer { prompt in
      for await _ in released {}
      return ChatServer.says("new \(prompt)")
    }
    try await server.settings({ $0.maxConcurrent = 1 }) { settings in
      let enhancer = try #require(try settings.enhancer(logger: Toy.logger))
      @Sendable func ask(_ prompt: String) async throws -> String {
        let body = #"{"prompt":"\#(prompt)","enhance_prompt":true}"#
        let request = try GenerationRequest(body: Array(body.utf8), maxPromptBytes: 1000)
        let images = try ImageSpec.images(of: request, card: Toy.card, randomSeed: 0).images
        var job = JobRequest(images)
        job.enhancement = try PromptEnhancement(request, images[0])
        return try await enhancer.enhanced(job, job: "job").images[0].prompt
      }
      try await withThrowingTaskGroup(of: String?.self) { group in
        for prompt in ["a", "b", "c", "d", "e", "f", "g"] { group.addTask { try? await ask(prompt) } }
        // Two of seven are refused while none has been answered.
        var refused = 0
        while refused < 2, let outcome = try await group.next() {
          #expect(outcome == nil)
          refused += 1
        }
        #expect(server.questions.count <= 1)
        release.finish()
        var answered = 0
        for try await prompt in group {
          #expect(prompt?.hasPrefix("new ") == true)
          answered += 1
        }
        #expect(answered == 5 && server.questions.count == 5)
      }
    }
  }

  @Test func theFilterSeesBothPrompts() async throws {
    let server = ChatServer { _ in ChatServer.says("a dog") }
    let reviewer = NotingReviewer()
    try await server.settings { settings in
      try await ToyCluster.run(
        reviewer: reviewer, enhancer: try settings.enhancer(logger: Toy.logger)
      ) { cluster in
        _ = try await cluster.joinAll()
        try await cluster.app().test(.live) { client in
          let response = try await client.generate(Self.request)
          #expect(response.status == .ok)
        }
      }
    }
    #expect(await reviewer.seen == ["a cat → a dog"])
  }

  private actor NotingReviewer: ContentReviewer {
    nonisolated let judgesResults = false
    private(set) var seen: [String] = []

    func review(_ request: JobRequest, job: String) async throws(Status) {
      let image = request.images[0]
      seen.append("\(image.originalPrompt ?? "") → \(image.prompt)")
    }

    func review(_ result: WireTensor, of image: ImageSpec, job: String, index: Int) async throws(Status) {}
  }

  @Test(arguments: [
    (["--enhancement-url", "chat"], "enhancement.url is \"chat\""),
    (["--enhancement-url", "http://user@a/v1", "--enhancement-model", "m"], "without a user"),
    (["--enhancement-url", "http://a/v1"], "enhancement.url needs enhancement.model"),
    (["--enhancement-model", "m"], "without enhancement.url"),
    (["--enhancement-url", "http://a/v1", "--enhancement-model", "m", "--enhancement-api-key-file", "/none"], "/none"),
    (
      ["--enhancement-url", "http://a/v1", "--enhancement-model", "m", "--enhancement-api-key-file", "/dev/null"],
      "one line of visible ASCII"
    ),
  ]) func settingsThatCannotWorkAreRefused(arguments: [String], message: String) async throws {
    let result = try await GatewayProgram.run(["--check-config"] + arguments)
    #expect(result.status == .exited(78) && result.output.contains(message), "\(result.output)")
  }

  @Test(arguments: [
    ("http://a/v1", "http://a/v1/chat/completions"), ("http://a", "http://a/chat/completions"),
    ("http://a/v1/", "http://a/v1/chat/completions"),
    ("http://a/x/chat/completions?api-version=1", "http://a/x/chat/completions?api-version=1"),
    ("https://a/v1?k=v", "https://a/v1/chat/completions?k=v"),
  ]) func theEndpointFollowsFromTheAddress(url: String, endpoint: String) {
    var settings = EnhancementSettings()
    settings.url = url
    #expect(settings.endpoint == endpoint)
  }
}
