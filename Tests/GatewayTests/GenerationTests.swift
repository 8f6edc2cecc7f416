import ClusterCore
import Gateway
import GatewayDispatch
import HTTPTesting
import HTTPTypes
import Hummingbird
import Journal
import NIOCore
import Scheduling
import TestSupport
import Testing
import Wire

@Suite("Images through the gateway", .timeLimit(.minutes(2)))
struct GenerationTests {
  @Test func aRequestGivesItsImage() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(
          """
          {
            "prompt": "a cat", "model": "toy/model", "negative_prompt": "a dog", "seed": 42, "num_inference_steps": 6,
            "size": "128x64"
          }
          """)
        #expect(response.status == .ok)
        #expect(response.headers[.contentType] == "application/json")
        #expect(response.headers[HTTPField.Name("x-request-id")!] != nil)
        let size = ImageSize(widthPx: 128, heightPx: 64)
        #expect(
          try response.image() == Toy.expected(prompt: "a cat", negativePrompt: "a dog", seed: 42, steps: 6, size: size)
        )
        let json = try response.json
        #expect(json["data"]?[0]?["seed"]?.integer == 42)
        #expect(json["model"]?.text == "toy/model")
        #expect(json["size"]?.text == "128x64")
        #expect(json["output_format"]?.text == "png")
        #expect(json["steps"]?.integer == 6)
        #expect(json["usage"]?["input_tokens"]?.integer == 10)
        #expect(json["usage"]?["output_tokens"]?.integer == 32)
        #expect((json["created"]?.integer ?? 0) > 1_700_000_000)
      }
    }
  }

  @Test func severalImagesHaveConsecutiveSeeds() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(#"{"prompt":"a cat","seed":7,"n":4}"#)
        let data = try #require(try response.json["data"])
        #expect(data.count == 4)
        for index in 0..<4 {
          #expect(data[index]?["seed"]?.integer == Int(7 + index))
          #expect(try response.image(index) == Toy.expected(prompt: "a cat", seed: UInt64(7 + index)))
        }
      }
    }
  }

  @Test func withoutASeedTheRandomOneIsReported() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        var seeds: Set<Int> = []
        for _ in 0..<3 {
          let response = try await client.generate(#"{"prompt":"a cat"}"#)
          let seed = try #require(try response.json["data"]?[0]?["seed"]?.integer)
          #expect(try response.image() == Toy.expected(prompt: "a cat", seed: UInt64(seed)))
          seeds.insert(seed)
        }
        #expect(seeds.count == 3)
      }
    }
  }

  /// Denoisers come and go, crash and return while many requests with different seeds run: each gets its own image.
  @Test func manyRequestsAtOnceAreNeverMixedUp() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll(stepTime: .milliseconds(5))
      try await cluster.join(.textEncoder, credits: 2)
      try await cluster.join(.vaeDecoder, credits: 2)
      let comings = Task {
        for round in 0..<12 where !Task.isCancelled {
          let extra = try await cluster.join(
            .denoiser, name: "extra-\(round)", credits: 1 + round % 3, stepTime: .milliseconds(3))
          try await until("it has worked a while") { await extra.log.steps >= 10 }
          await extra.crash()
        }
      }
      try await cluster.app().test(.live) { client in
        try await withThrowingTaskGroup(of: Void.self) { group in
          for number in 0..<96 {
            group.addTask {
              let prompt = "prompt \(number % 7)"
              let response = try await client.generate(
                #"{"prompt":"\#(prompt)","seed":\#(number),"steps":\#(2 + number % 5)}"#)
              #expect(response.status == .ok, "\(String(buffer: response.body))")
              #expect(
                try response.image() == Toy.expected(prompt: prompt, seed: UInt64(number), steps: 2 + number % 5),
                "request \(number)")
            }
          }
          try await group.waitForAll()
        }
      }
      comings.cancel()
      #expect(await cluster.dispatcher.openImageCount == 0)
      let status = await cluster.dispatcher.status
      #expect(status.queuedImages + status.startedImages == 0)
      #expect(status.cacheHits > 20)
    }
  }

  @Test func aCrashedDenoiserCostsOneStep() async throws {
    try await ToyCluster.run { cluster in
      let workers = try await cluster.joinAll(stepTime: .milliseconds(30))
      let request = Task { try await cluster.image("a cat", seed: 5, steps: 12) }
      try await wait("the gateway knows of some steps") {
        let page = try await cluster.dispatcher.jobs(of: .anonymous, JobQuery())
        return page?.jobs.first?.images[0].step ?? 0 >= 3
      }
      await workers.denoiser.crash()
      let done = await workers.denoiser.log.steps
      let second = try await cluster.join(.denoiser, stepTime: .milliseconds(1))
      #expect(try await request.value == Toy.expected(prompt: "a cat", seed: 5, steps: 12))
      let firstSteps = await second.log.firstSteps
      #expect(firstSteps.count == 1)
      // The last messages may have been lost with the connection.
      #expect(
        (3...done).contains(firstSteps.first ?? 0),
        "\(done) steps were done, the next denoiser began after \(firstSteps)")
      #expect(await second.log.steps == 12 - (firstSteps.first ?? 0))
    }
  }

  @Test func aSilentWorkerLosesItsTask() async throws {
    try await ToyCluster.run({
      $0.scheduling.acceptLimit = .milliseconds(300); $0.scheduling.firstStepLimit = .milliseconds(300)
      // On a busy machine the other worker may be too slow as well, now and then.
      $0.scheduling.maxAttempts = 100
    }) { cluster in
      try await cluster.join(.textEncoder)
      try await cluster.join(.vaeDecoder)
      let silent = try await cluster.join(.denoiser) { _, _ in .silence }
      try await cluster.waitUntilReady()
      let request = Task { try await cluster.image("a cat", seed: 5) }
      try await wait("the silent worker has the task") { await !silent.log.tasks.isEmpty }
      try await cluster.join(.denoiser)
      #expect(try await request.value == Toy.expected(prompt: "a cat", seed: 5))
      try await wait("it gets the cancellation") { await !silent.log.cancelled.isEmpty }
    }
  }

  @Test(arguments: [
    ToyWorker.Misbehaviour.fail(Status(.internal, "the disk is on fire")),
    .answer(.denoiseResponse(DenoiseResponse(steps: 4)), []),
    .answer(.denoiseResponse(DenoiseResponse(steps: 4)), [Toy.tensor(TensorName.latents, [1, 2], shape: [1, 2])]),
    .answer(.decodeResponse(DecodeResponse(mediaType: "image/png", size: Toy.card.defaults.size)), []),
    .answer(
      .progress(Progress(completedSteps: 1, steps: 4, stepSeconds: 0)),
      [Toy.tensor(TensorName.latents, [1], shape: [1, 1])]),
  ])
  func whatAWorkerAnswersIsChecked(misbehaviour: ToyWorker.Misbehaviour) async throws {
    try await ToyCluster.run({
      $0.scheduling.retryDelay = .milliseconds(10); $0.scheduling.quarantine = .milliseconds(50)
    }) { cluster in
      try await cluster.join(.textEncoder)
      try await cluster.join(.vaeDecoder)
      let broken = try await cluster.join(.denoiser) { _, _ in misbehaviour }
      try await cluster.waitUntilReady()
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(#"{"prompt":"a cat"}"#)
        #expect(response.status == .internalServerError)
        #expect(response.headers[HTTPField.Name("x-should-retry")!] == "false")
        let error = try response.error
        #expect(error?["code"]?.text == "internal_error")
        #expect(error?["message"]?.text?.contains("the denoiser failed 4 times in a row") == true)
        #expect(await broken.log.tasks.count == 4)
        // With a sound one beside it the same request succeeds.
        try await cluster.join(.denoiser)
        try await wait("it has joined") { await cluster.dispatcher.status.workers.count == 4 }
        #expect(
          try await client.generate(#"{"prompt":"a cat","seed":1}"#).image() == Toy.expected(prompt: "a cat", seed: 1))
      }
    }
  }

  @Test func whatAStageRefusesIsTheClientsError() async throws {
    try await ToyCluster.run { cluster in
      let workers = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let long = String(repeating: "x", count: 101)
        for body in [#"{"prompt":"\#(long)"}"#, #"{"prompt":"\#(long)","n":3}"#] {
          let response = try await client.generate(body)
          #expect(response.status == .badRequest)
          let error = try response.error
          #expect(error?["message"]?.text == "the prompt has 101 tokens, the limit is 100")
          #expect(error?["param"]?.text == "prompt")
          #expect(error?["code"]?.text == "prompt_too_long")
          #expect(error?["type"]?.text == "invalid_request_error")
        }
        // The field at fault is the request's, not that of the message to the stage.
        let negative = try await client.generate(#"{"prompt":"a cat","negative_prompt":"\#(long)"}"#)
        #expect(negative.status == .badRequest)
        #expect(try negative.error?["param"]?.text == "negative_prompt")
        #expect(try negative.error?["code"]?.text == "prompt_too_long")
        #expect(await workers.denoiser.log.tasks.isEmpty)
        #expect(await cluster.dispatcher.openImageCount == 0)
      }
    }
  }
}
