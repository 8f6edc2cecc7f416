import Foundation
import Gateway
import GatewayDispatch
import HTTPTesting
import HTTPTypes
import Hummingbird
import Journal
import NIOCore
import Scheduling
import StrictJSON
import TestSupport
import Testing
import Wire

@Suite("Jobs", .timeLimit(.minutes(2)))
struct JobsTests {
  static let json: HTTPFields = [.contentType: "application/json"]

  static func keyed(_ key: String) -> HTTPFields {
    [.contentType: "application/json", HTTPField.Name("idempotency-key")!: key]
  }

  @Test func aJobIsAcceptedFollowedAndFetched() async throws {
    try await ToyCluster.run { cluster in
      let workers = try await cluster.joinAll(stepTime: .milliseconds(20))
      try await cluster.app().test(.live) { client in
        let accepted = try await client.submit(#"{"prompt":"a cat","seed":5,"steps":10,"n":2,"priority":"batch"}"#)
        #expect(accepted.status == .accepted)
        let id = try #require(try accepted.json["id"]?.text)
        #expect(accepted.headers[.location] == "/v1/jobs/\(id)")
        try await wait("it runs") { await workers.denoiser.log.steps > 3 }
        let running = try await client.get("/v1/jobs/\(id)").json
        #expect(running["status"]?.text == "running")
        #expect((running["step"]?.integer ?? 0) > 0 && running["steps"]?.integer == 10 && running["n"]?.integer == 2)
        #expect(running["priority"]?.text == "batch" && running["prompt"]?.text == "a cat")
        let early = try await client.execute(uri: "/v1/jobs/\(id)/result?index=1", method: .get)
        #expect(early.status == .conflict && early.headers[.retryAfter] != nil)
        #expect(try early.error?["code"]?.text == "not_finished")
        let done = try await client.waitForEnd(id)
        #expect(done["status"]?.text == "succeeded" && done["images"]?[1]?["status"]?.text == "succeeded")
        for index in 0..<2 {
          let result = try await client.execute(uri: "/v1/jobs/\(id)/result?index=\(index)", method: .get)
          #expect(result.headers[.contentType] == "image/png")
          #expect(Array(buffer: result.body) == Toy.expected(prompt: "a cat", seed: UInt64(5 + index), steps: 10))
        }
        let all = try await client.execute(
          uri: "/v1/jobs/\(id)/result", method: .get, headers: [.accept: "application/json"])
        #expect(try all.image(1) == Toy.expected(prompt: "a cat", seed: 6, steps: 10))
        #expect(try all.json["usage"]?["input_tokens"]?.integer == 10)
        #expect(await cluster.dispatcher.openImageCount == 0)
      }
    }
  }

  @Test func jobsAreListedPageByPage() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        var ids: [String] = []
        for seed in 0..<5 {
          ids.append(try #require(try await client.submit(#"{"prompt":"p","seed":\#(seed)}"#).json["id"]?.text))
        }
        let first = try await client.get("/v1/jobs?limit=2").json
        #expect(first["data"]?.elements?.map { $0["id"]?.text } == [ids[4], ids[3]])
        #expect(first["has_more"] == .bool(true))
        let rest = try await client.get("/v1/jobs?limit=5&after=\(ids[3])").json
        #expect(rest["data"]?.elements?.map { $0["id"]?.text } == [ids[2], ids[1], ids[0]])
        #expect(rest["has_more"] == .bool(false))
        #expect(try await client.submit(#"{"prompt":"p","stream":true}"#).status == .badRequest)
        for uri in [
          "/v1/jobs?limit=0", "/v1/jobs?limit=x", "/v1/jobs?bogus=1", "/v1/jobs/\(ids[0])?x=1",
          "/v1/jobs/\(ids[0])/result?index=1",
        ] {
          #expect(try await client.get(uri).status == .badRequest, "\(uri)")
        }
        for uri in ["/v1/jobs?after=job-x", "/v1/jobs/job-x", "/v1/jobs/job-x/events", "/v1/jobs/job-x/result"] {
          #expect(try await client.get(uri).status == .notFound, "\(uri)")
        }
      }
    }
  }

  @Test func aCancelledJobStopsAndStaysCancelled() async throws {
    let time = ManualTime(), stepTime = Duration.milliseconds(30)
    try await ToyCluster.run { cluster in
      let workers = try await cluster.joinAll(stepTime: stepTime, time: time)
      try await cluster.app().test(.live) { client in
        let id = try #require(try await client.submit(#"{"prompt":"p","steps":50,"n":2}"#).json["id"]?.text)
        try await time.advance(by: stepTime, times: 2)
        for _ in 0..<2 {
          let cancelled = try await client.execute(uri: "/v1/jobs/\(id)", method: .delete)
          #expect(cancelled.status == .ok)
          #expect(try cancelled.json["status"]?.text == "cancelled")
        }
        try await wait("the denoiser gets the cancellation") { await !workers.denoiser.log.cancelled.isEmpty }
        #expect(await workers.denoiser.log.steps == 2)
        #expect(try await client.get("/v1/jobs/\(id)/result").json["error"]?["code"]?.text == "cancelled")
        #expect(try await client.execute(uri: "/v1/jobs/job-x", method: .delete).status == .notFound)
      }
    }
  }

  // MARK: Keys

  @Test func answersSayWhetherAnEarlierRequestHasMadeTheJob() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let replayed = HTTPField.Name("idempotent-replayed")!
        let body = #"{"prompt":"a cat"}"#
        let first = try await client.submit(body, Self.keyed("k"))
        let second = try await client.submit(body, Self.keyed("k"))
        let third = try await client.generate(body, headers: Self.keyed("k"))
        let other = try await client.submit(body, Self.keyed("l"))
        let keyless = try await client.submit(body)
        #expect(
          [first, second, third, other, keyless].map { $0.headers[replayed] } == [nil, "true", "true", nil, nil])
        #expect(
          second.headers[.location] == first.headers[.location] && third.headers[.location] == first.headers[.location])
      }
    }
  }

  @Test func aRepeatedKeyGivesTheSameJob() async throws {
    try await ToyCluster.run { cluster in
      let workers = try await cluster.joinAll(stepTime: .milliseconds(5))
      try await cluster.app().test(.live) { client in
        // Without a seed every job would have its own.
        let ids = try await withThrowingTaskGroup(of: String?.self) { group in
          for _ in 0..<8 {
            group.addTask {
              try await client.submit(#"{"prompt":"a cat","steps":8}"#, Self.keyed("k1")).json["id"]?.text
            }
          }
          return try await group.reduce(into: Set<String?>()) { $0.insert($1) }
        }
        #expect(ids.count == 1)
        let id = try #require(ids.first ?? nil)
        // The other way in, other spacing, streamed: still the same request.
        let same = try await client.generate(
          "{ \"steps\": 8, \"stream\": false, \"prompt\":\"a cat\", \"model\": null}", headers: Self.keyed("k1"))
        #expect(same.headers[.location] == "/v1/jobs/\(id)")
        let first = try same.image()
        // After its end, too.
        #expect(try await client.waitForEnd(id)["status"]?.text == "succeeded")
        #expect(
          try await client.generate(#"{"prompt":"a cat","steps":8}"#, headers: Self.keyed("k1")).image() == first)
        #expect(await workers.denoiser.log.tasks.count == 1)
        for body in [#"{"prompt":"a dog","steps":8}"#, #"{"prompt":"a cat","steps":9}"#] {
          let other = try await client.submit(body, Self.keyed("k1"))
          #expect(other.status == .unprocessableContent)
          #expect(try other.error?["code"]?.text == "idempotency_key_reused")
        }
        #expect(try await client.submit(#"{"prompt":"a dog"}"#, Self.keyed("k2")).json["id"]?.text != id)
        for key in [String(repeating: "x", count: 256), "a b", ""] {
          #expect(try await client.submit(#"{"prompt":"a dog"}"#, Self.keyed(key)).status == .badRequest, "\(key)")
        }
      }
    }
  }

  @Test(arguments: [
    ("", true), ("x-detach: true\r\n", false), ("idempotency-key: k\r\n", false),
    ("idempotency-key: k\r\nx-detach: false\r\n", true),
  ])
  func aClientThatLeavesCancelsOnlyJobsThatAreNotDetached(headers: String, isCancelled: Bool) async throws {
    try await ConnectionTests.serve(stepTime: .milliseconds(20)) { cluster, denoiser, port in
      try await RawClient.connect(port) { _, outbound in
        try await outbound.write(
          ByteBuffer(string: RawClient.post(#"{"prompt":"a cat","steps":30,"seed":1}"#, headers: headers)))
        try await wait("steps are done") { await denoiser.log.steps > 2 }
      }
      try await wait("the job has ended") { await cluster.dispatcher.openImageCount == 0 }
      let job = try await RawClient.exchange(
        port, "GET /v1/jobs HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
      #expect(job.contains(isCancelled ? #""status":"cancelled""# : #""status":"succeeded""#), "\(job)")
    }
  }

  // MARK: Events

  /// The events of a stream, as (id, name, data).
  static func events(_ text: String) throws -> [(id: String, name: String, data: JSON)] {
    try text.replacing("\r\n", with: "\n").components(separatedBy: "\n\n").compactMap { block in
      var fields: [String: String] = [:]
      for line in block.split(separator: "\n") {
        let parts = line.split(separator: ":", maxSplits: 1)
        if parts.count == 2, !parts[0].isEmpty {
          fields[String(parts[0])] = parts[1].trimmingCharacters(in: .whitespaces)
        }
      }
      guard let name = fields["event"], let data = fields["data"] else { return nil }
      return (fields["id"] ?? "", name, try JSON(Array(data.utf8)))
    }
  }

  static func get(_ path: String, _ headers: String = "") -> String {
    "GET \(path) HTTP/1.1\r\nhost: 127.0.0.1\r\n\(headers)\r\n"
  }

  @Test func whoAttachesAgainMissesNothing() async throws {
    try await ConnectionTests.serve(stepTime: .milliseconds(20)) { cluster, denoiser, port in
      let accepted = try await RawClient.exchange(
        port, RawClient.post(#"{"prompt":"p","steps":30,"seed":1}"#, path: "/v1/jobs", headers: "connection: close\r\n")
      )
      let id = try #require(accepted.firstMatch(of: /job-[0-9a-f]{32}/)).output
      let first = try await RawClient.connect(port) { inbound, outbound in
        try await outbound.write(ByteBuffer(string: Self.get("/v1/jobs/\(id)/events")))
        return try await RawClient.read(&inbound) { $0.components(separatedBy: "job.progress").count > 6 }
      }
      let seen = try Self.events(first)
      let last = try #require(seen.dropLast().last)
      let step = try #require(last.data["image"]?["step"]?.integer)
      try await wait("more steps are done") { await denoiser.log.steps > step + 3 }
      let again = try await RawClient.exchange(port, Self.get("/v1/jobs/\(id)/events", "last-event-id: \(last.id)\r\n"))
      let missed = try Self.events(again)
      let steps = missed.compactMap { $0.data["image"]?["step"]?.integer }
      #expect(steps == steps.sorted() && Set(steps).isSuperset(of: (step + 1)...30), "\(steps)")
      #expect(missed.map(\.id).allSatisfy { $0 != last.id })
      #expect(missed.suffix(2).map(\.name) == ["job.image_completed", "job.ended"])
      #expect(missed.last?.id == "end" && missed.last?.data["status"]?.text == "succeeded")
      // A client that knows the end is asked not to reconnect; every other one gets the end again.
      #expect(
        try await RawClient.exchange(
          port, Self.get("/v1/jobs/\(id)/events", "last-event-id: end\r\nconnection: close\r\n")
        ).hasPrefix(
          "HTTP/1.1 204"))
      for headers in ["", "last-event-id: 99-7\r\n", "last-event-id: nonsense\r\n"] {
        let events = try Self.events(try await RawClient.exchange(port, Self.get("/v1/jobs/\(id)/events", headers)))
        #expect(events.map(\.name) == ["job.image_completed", "job.ended"], "\(headers)")
      }
      #expect(await cluster.dispatcher.openImageCount == 0)
    }
  }

  // MARK: Restarts

  /// The gateway ends in the middle and starts again on the same journal: every accepted job gets its image, byte for
  /// byte, and the denoiser resumes where it was.
  @Test func jobsResumeAfterARestart() async throws {
    let folder = NSTemporaryDirectory() + "journal-\(UInt64.random(in: 0 ... .max))"
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let seeds: [Int] = [1, 2, 3]
    let ids = try await ToyCluster.run(journal: folder + "/j") { cluster in
      let workers = try await cluster.joinAll(stepTime: .milliseconds(20))
      return try await cluster.app().test(.live) { client in
        var ids: [String] = []
        for seed in seeds {
          let accepted = try await client.submit(
            #"{"prompt":"p","negative_prompt":"q","steps":20,"seed":\#(seed),"n":2}"#, Self.keyed("k\(seed)"))
          ids.append(try #require(try accepted.json["id"]?.text))
        }
        try await wait("it is in the middle of the second image") { await workers.denoiser.log.steps > 27 }
        return ids
      }
    }
    try await ToyCluster.run(journal: folder + "/j") { cluster in
      #expect(await cluster.dispatcher.openImageCount == 5)
      let workers = try await cluster.joinAll(stepTime: .milliseconds(2))
      try await cluster.app().test(.live) { client in
        let again = try await client.submit(
          #"{"prompt":"p","negative_prompt":"q","steps":20,"seed":2,"n":2}"#, Self.keyed("k2"))
        #expect(try again.json["id"]?.text == ids[1])
        for (id, seed) in zip(ids, seeds) {
          let job = try await client.waitForEnd(id)
          #expect(job["status"]?.text == "succeeded")
          for index in 0..<2 {
            let result = try await client.execute(uri: "/v1/jobs/\(id)/result?index=\(index)", method: .get)
            let expected = Toy.expected(prompt: "p", negativePrompt: "q", seed: UInt64(seed + index), steps: 20)
            #expect(Array(buffer: result.body) == expected)
          }
        }
        let first = try await client.execute(
          uri: "/v1/jobs/\(ids[0])/result", method: .get, headers: [.accept: "application/json"])
        #expect(try first.json["usage"]?["input_tokens"]?.integer == 4)
      }
      #expect(await workers.denoiser.log.firstSteps.max() ?? 0 >= 6, "one image resumes from its checkpoint")
      #expect(await workers.encoder.log.tasks.isEmpty, "prompts are not encoded again")
    }
    try await ToyCluster.run(journal: folder + "/j") { cluster in
      try await cluster.app().test(.live) { client in
        let job = try await client.get("/v1/jobs/\(ids[2])").json
        #expect(job["status"]?.text == "succeeded")
        let result = try await client.execute(uri: "/v1/jobs/\(ids[2])/result", method: .get)
        #expect(result.status == .ok)
      }
    }
  }

  /// The request of one job is lost; the gateway starts all the same and resumes the other one.
  @Test func aDamagedJobDoesNotKeepTheGatewayFromStarting() async throws {
    let folder = NSTemporaryDirectory() + "journal-\(UInt64.random(in: 0 ... .max))"
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let ids = try await ToyCluster.run(journal: folder + "/j") { cluster in
      _ = try await cluster.joinAll(stepTime: .seconds(60))
      return try await cluster.app().test(.live) { client in
        var ids: [String] = []
        for prompt in ["lost words", "kept words"] {
          ids.append(
            try #require(try await client.submit(#"{"prompt":"\#(prompt)","steps":2,"seed":1}"#).json["id"]?.text))
        }
        return ids
      }
    }
    var file = try Data(contentsOf: URL(filePath: folder + "/j"))
    let place = try #require(file.firstRange(of: Data("lost words".utf8)))
    file[place.lowerBound] = UInt8(ascii: "c")
    try file.write(to: URL(filePath: folder + "/j"))
    try await ToyCluster.run(journal: folder + "/j") { cluster in
      _ = try await cluster.joinAll(stepTime: .milliseconds(1))
      try await cluster.app().test(.live) { client in
        #expect(try await client.waitForEnd(ids[1])["status"]?.text == "succeeded")
        let lost = try await client.get("/v1/jobs/\(ids[0])")
        #expect(lost.status == .internalServerError)
        #expect(lost.json["error"]?["message"]?.text?.contains("the request of job \(ids[0])") == true, "\(lost.json)")
        let list = try await client.get("/v1/jobs").json
        #expect(list["data"]?.elements?.compactMap { $0["id"]?.text } == [ids[1]])
      }
    }
  }

  /// Events from before the restart are not known any more: a client that reconnects gets the state, then new events.
  @Test func eventsContinueAfterARestart() async throws {
    let folder = NSTemporaryDirectory() + "journal-\(UInt64.random(in: 0 ... .max))"
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let id = try await ToyCluster.run(journal: folder + "/j") { cluster in
      let workers = try await cluster.joinAll(stepTime: .milliseconds(20))
      return try await cluster.app().test(.live) { client in
        let id = try #require(try await client.submit(#"{"prompt":"p","steps":20,"seed":1}"#).json["id"]?.text)
        try await wait("steps are done") { await workers.denoiser.log.steps > 5 }
        return id
      }
    }
    try await ToyCluster.run(journal: folder + "/j") { cluster in
      try await cluster.app().test(.live) { client in
        let port = try #require(client.port)
        async let stream = RawClient.exchange(port, Self.get("/v1/jobs/\(id)/events", "last-event-id: 1-4\r\n"))
        _ = try await cluster.joinAll()
        let events = try Self.events(try await stream)
        #expect(events.last?.name == "job.ended" && events.last?.data["status"]?.text == "succeeded")
        #expect(events.contains { $0.data["image"]?["step"]?.integer == 19 })
        #expect(events.dropLast().allSatisfy { $0.id.hasPrefix("2-") }, "\(events.map(\.id))")
      }
    }
  }

  @Test func aFullJournalRefusesJobsAndKeepsItsWord() async throws {
    let folder = NSTemporaryDirectory() + "journal-\(UInt64.random(in: 0 ... .max))"
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let empty = try SQLiteJournalStore(path: folder + "/j")
    var limits = JournalLimits()
    limits.reserveBytes = 64 << 10
    // Space for a handful of jobs.
    limits.maxBytes = try empty.space().usedBytes + limits.reserveBytes + (48 << 10)
    empty.close()
    try await ToyCluster.run(journal: folder + "/j", limits: limits) { cluster in
      _ = try await cluster.joinAll(stepTime: .milliseconds(1))
      try await cluster.app().test(.live) { client in
        var accepted: [String] = []
        var refused: TestResponse?
        while refused == nil, accepted.count < 200 {
          let prompt = String(repeating: "x", count: 90)
          let response = try await client.submit(
            #"{"prompt":"\#(prompt)","steps":2,"n":10,"seed":\#(accepted.count * 10)}"#)
          if response.status == .accepted {
            accepted.append(try #require(try response.json["id"]?.text))
          } else {
            refused = response
          }
          if response.status == .tooManyRequests {
            refused = nil
            try await Task.sleep(for: .milliseconds(200))
          }
        }
        let answer = try #require(refused)
        #expect(answer.status.code == 507, "\(String(buffer: answer.body))")
        #expect(try answer.error?["code"]?.text == "storage_full")
        #expect(answer.headers[.retryAfter] != nil)
        #expect(!accepted.isEmpty)
        for id in accepted { #expect(try await client.waitForEnd(id)["status"]?.text == "succeeded") }
      }
    }
    #expect(try SQLiteJournalStore(path: folder + "/j").problems() == [])
  }
}

extension TestClientProtocol {
  /// `POST /v1/jobs`.
  func submit(_ body: String, _ headers: HTTPFields = JobsTests.json) async throws -> TestResponse {
    try await execute(uri: "/v1/jobs", method: .post, headers: headers, body: ByteBuffer(string: body))
  }

  /// The job once it has ended.
  func waitForEnd(_ id: String) async throws -> JSON {
    var job = JSON.null
    try await wait("job \(id) has ended") {
      job = try await get("/v1/jobs/\(id)").json
      return !["queued", "running"].contains(job["status"]?.text ?? "")
    }
    return job
  }
}
