import ClusterCore
import Foundation
import Gateway
import GatewayDispatch
import HTTPTesting
import HTTPTypes
import Hummingbird
import NIOCore
import StrictJSON
import TestSupport
import Testing

/// `?wait=` and `Prefer: wait=`.
@Suite("Answers that wait for the end of a job", .timeLimit(.minutes(2)))
struct LongPollTests {
  private static let stepTime = Duration.milliseconds(40)

  @Test func anAnswerComesWhenTheJobHasEnded() async throws {
    let time = ManualTime()
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll(stepTime: Self.stepTime, time: time)
      try await cluster.app().test(.live) { client in
        let id = try #require(try await client.submit(#"{"prompt":"p","steps":3}"#).json["id"]?.text)
        async let answer = client.get("/v1/jobs/\(id)?wait=60")
        try await wait("the client waits") { await cluster.dispatcher.pollCount == 1 }
        try await time.advance(by: Self.stepTime, times: 3)
        let job = try await answer
        #expect(job.status == .ok && job.json["status"]?.text == "succeeded")
        #expect(await cluster.dispatcher.pollCount == 0)
        // What has ended is not waited for.
        #expect(try await client.get("/v1/jobs/\(id)?wait=60").json["status"]?.text == "succeeded")
        #expect(try await client.get("/v1/jobs/job-x?wait=60").status == .notFound)
      }
    }
  }

  @Test func anAnswerComesAfterTheTimeAtTheLatest() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll(stepTime: .seconds(60))
      try await cluster.app().test(.live) { client in
        let accepted = try await client.execute(
          uri: "/v1/jobs?wait=0.05", method: .post, headers: JobsTests.json,
          body: ByteBuffer(string: #"{"prompt":"p"}"#))
        #expect(accepted.status == .accepted && accepted.headers[.location] != nil)
        let id = try #require(try accepted.json["id"]?.text)
        let job = try await client.get("/v1/jobs/\(id)?wait=0.05")
        #expect(job.status == .ok && job.json["ended_at"] == nil)
      }
    }
  }

  @Test func aSubmissionThatWaitsHasTheEndedJobInItsAnswer() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        for (uri, headers) in [
          ("/v1/jobs?wait=30", JobsTests.json),
          ("/v1/jobs", [.contentType: "application/json", HTTPField.Name("prefer")!: "respond-async, wait=\"30\""]),
        ] as [(String, HTTPFields)] {
          let answer = try await client.execute(
            uri: uri, method: .post, headers: headers, body: ByteBuffer(string: #"{"prompt":"p"}"#))
          #expect(answer.status == .ok)
          #expect(try answer.json["status"]?.text == "succeeded")
          let applied = answer.headers[HTTPField.Name("preference-applied")!]
          #expect(applied == (headers.count == 2 ? "wait=30" : nil))
        }
      }
    }
  }

  @Test func theTimeIsBounded() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let id = try #require(try await client.submit(#"{"prompt":"p"}"#).json["id"]?.text)
        _ = try await client.waitForEnd(id)
        for text in ["61", "-1", "x", "1e2", "", "nan", "inf", "0x10", "1.2.3", "60.01", "-1e-3"] {
          let answer = try await client.get("/v1/jobs/\(id)?wait=\(text)")
          #expect(answer.status == .badRequest && answer.json["error"]?["param"]?.text == "wait", "\(text)")
        }
        for text in ["0", "1e-3", "4.209731976518861e-159", "+0.5"] {
          let encoded = text.replacing("+", with: "%2B")
          #expect(try await client.get("/v1/jobs/\(id)?wait=\(encoded)").status == .ok, "\(text)")
        }
        // A preference is a wish.
        for (wish, applied) in [
          ("wait=100000000000000000000", "wait=60"), ("wait=7; a=b", "wait=7"), ("WAIT = 5", "wait=5"),
          ("wait=-1", nil),
          ("wait", nil), ("handling=lenient", nil),
        ] {
          let answer = try await client.execute(
            uri: "/v1/jobs/\(id)", method: .get, headers: [HTTPField.Name("prefer")!: wish])
          #expect(answer.status == .ok)
          #expect(answer.headers[HTTPField.Name("preference-applied")!] == applied, "\(wish)")
        }
      }
    }
  }

  /// Neither its wait nor its place among the connections outlives a client that leaves; its job does.
  @Test(arguments: [false, true]) func aClientThatLeavesEndsItsWaitAndNotTheJob(submits: Bool) async throws {
    var limits = HTTPLimits()
    limits.maxConnectionsPerAddress = 1
    let time = ManualTime()
    try await ConnectionTests.serve(limits, stepTime: Self.stepTime, time: time) { cluster, _, port in
      try await RawClient.connect(port) { inbound, outbound in
        let post = RawClient.post(#"{"prompt":"p","steps":2,"seed":1}"#, path: "/v1/jobs\(submits ? "?wait=60" : "")")
        try await outbound.write(ByteBuffer(string: post))
        if !submits {
          let accepted = try await RawClient.read(&inbound) { $0.contains("job-") && $0.hasSuffix("}") }
          let job = try #require(accepted.firstMatch(of: /job-[0-9a-f]{32}/)).output
          // On the same connection.
          try await outbound.write(ByteBuffer(string: JobsTests.get("/v1/jobs/\(job)?wait=60")))
        }
        try await wait("the client waits") { await cluster.dispatcher.pollCount == 1 }
      }
      try await wait("the wait is over") { await cluster.dispatcher.pollCount == 0 }
      #expect(await cluster.dispatcher.openImageCount == 1)
      try await time.advance(by: Self.stepTime, times: 2)
      try await wait("the job has ended") { await cluster.dispatcher.openImageCount == 0 }
      var list = ""
      try await wait("its place is free") {
        list =
          (try? await RawClient.exchange(port, JobsTests.get("/v1/jobs", "connection: close\r\n"))) ?? ""
        return !list.isEmpty
      }
      #expect(list.contains(#""status":"succeeded""#), "\(list)")
    }
  }

  @Test func aConnectionServesMoreRequestsAfterAWait() async throws {
    try await ConnectionTests.serve(stepTime: .milliseconds(1)) { _, _, port in
      try await RawClient.connect(port) { inbound, outbound in
        for _ in 0..<3 {
          try await outbound.write(ByteBuffer(string: RawClient.post(#"{"prompt":"p"}"#, path: "/v1/jobs?wait=60")))
          let answer = try await RawClient.read(&inbound) { $0.contains("succeeded") && $0.hasSuffix("}") }
          #expect(answer.hasPrefix("HTTP/1.1 200") && !answer.lowercased().contains("connection: close"), "\(answer)")
        }
      }
    }
  }

  @Test func aShutdownAnswersWhoWaits() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll(stepTime: .seconds(60))
      try await cluster.app().test(.live) { client in
        let id = try #require(try await client.submit(#"{"prompt":"p"}"#).json["id"]?.text)
        async let answer = client.get("/v1/jobs/\(id)?wait=60")
        try await wait("the client waits") { await cluster.dispatcher.pollCount == 1 }
        await cluster.dispatcher.close(because: Status(.unavailable, "the gateway is shutting down"))
        #expect(try await answer.json["ended_at"] == nil)
        #expect(try await client.get("/v1/jobs/\(id)?wait=60").status == .ok)
      }
    }
  }
}
