import ClusterCore
import Foundation
import Gateway
import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import HTTPTesting
import HTTPTypes
import Hummingbird
import Journal
import NIOCore
import Scheduling
import StrictJSON
import TestSupport
import Testing

@Suite("Deadlines, tags and metadata of jobs", .timeLimit(.minutes(2)))
struct JobOptionsTests {
  private static func options(_ fields: String) throws -> JobOptions {
    try GenerationRequest(body: Array(#"{"prompt":"p",\#(fields)}"#.utf8), maxPromptBytes: 100).jobOptions
  }

  @Test func fieldsAreRead() throws {
    let options = try Self.options(
      #""deadline":1800000000,"tags":["a","b c","a","ü"],"metadata":{"orderId":"17","":null}"#
        .replacingOccurrences(of: #","":null"#, with: ""))
    #expect(options.deadline == 1_800_000_000 && options.timeoutSeconds == nil)
    #expect(options.tags == ["a", "b c", "ü"])
    #expect(options.metadata == ["orderId": "17"])
    #expect(try Self.options(#""timeout_seconds":2.5"#).timeoutSeconds == 2.5)
    #expect(try Self.options(#""deadline":null,"timeout_seconds":null,"tags":null,"metadata":null"#) == JobOptions())
    let long = String(repeating: "ü", count: 64), value = String(repeating: "x", count: 512)
    #expect(try Self.options(#""tags":["\#(long)"],"metadata":{"\#(long)":"\#(value)"}"#).metadata[long] == value)
  }

  @Test(arguments: [
    (#""deadline":0"#, "deadline"), (#""deadline":1.5"#, "deadline"), (#""deadline":"soon""#, "deadline"),
    (#""deadline":253402300800"#, "deadline"), (#""timeout_seconds":0"#, "timeout_seconds"),
    (#""timeout_seconds":10000001"#, "timeout_seconds"), (#""timeout_seconds":"5""#, "timeout_seconds"),
    (#""deadline":1800000000,"timeout_seconds":5"#, "timeout_seconds"), (#""tags":"a""#, "tags"),
    (#""tags":["a",1]"#, "tags[1]"), (#""tags":[""]"#, "tags[0]"), (#""tags":["a","x\ny"]"#, "tags[1]"),
    (#""tags":["\#(String(repeating: "x", count: 65))"]"#, "tags[0]"),
    (#""tags":[\#((0..<17).map { #""\#($0)""# }.joined(separator: ","))]"#, "tags"), (#""metadata":[]"#, "metadata"),
    (#""metadata":{"a":1}"#, "metadata.a"), (#""metadata":{"":"x"}"#, "metadata"),
    (#""metadata":{"a":"\u0000"}"#, "metadata.a"),
    (#""metadata":{"\#(String(repeating: "x", count: 65))":"x"}"#, "metadata"),
    (#""metadata":{"a":"\#(String(repeating: "x", count: 513))"}"#, "metadata.a"),
    (#""metadata":{\#((0..<17).map { #""\#($0)":"""# }.joined(separator: ","))}"#, "metadata"),
  ]) func wrongFieldsAreNamed(fields: String, param: String) throws {
    #expect { try Self.options(fields) } throws: { ($0 as? APIError)?.param == param }
  }

  @Test func theEarlierOfDeadlineAndLimitCounts() throws {
    var options = JobOptions()
    #expect(try options.deadlineAtMs(nowMs: 5000, limitMs: 60_000) == 65_000)
    options.timeoutSeconds = 2.5
    #expect(try options.deadlineAtMs(nowMs: 5000, limitMs: 60_000) == 7500)
    options.timeoutSeconds = 61
    #expect { try options.deadlineAtMs(nowMs: 5000, limitMs: 60_000) } throws: {
      ($0 as? Status)?.field == "timeout_seconds"
    }
    options = JobOptions()
    options.deadline = 65
    #expect(try options.deadlineAtMs(nowMs: 5000, limitMs: 60_000) == 65_000)
    for deadline in [5, 66] {
      options.deadline = deadline
      #expect { try options.deadlineAtMs(nowMs: 5000, limitMs: 60_000) } throws: {
        ($0 as? Status)?.field == "deadline"
      }
    }
  }

  @Test func aJobShowsThemAlsoAfterARestart() async throws {
    let folder = NSTemporaryDirectory() + "journal-\(UInt64.random(in: 0 ... .max))"
    defer { try? FileManager.default.removeItem(atPath: folder) }
    @Sendable func check(_ job: JSON, _ deadline: Int) {
      #expect(job["deadline"]?.integer == deadline)
      #expect(job["tags"]?.elements?.map(\.text) == ["x", "y"])
      #expect(job["metadata"]?["orderId"]?.text == "17" && job["metadata"]?["a_b"]?.text == "")
    }
    let (id, deadline) = try await ToyCluster.run(journal: folder + "/j") { cluster in
      _ = try await cluster.joinAll(stepTime: .seconds(60))
      return try await cluster.app().test(.live) { client in
        let plain = try await client.submit(#"{"prompt":"p"}"#).json
        #expect(plain["tags"] == .array([]) && plain["metadata"] == .object([:]))
        let deadline = try #require(plain["created_at"]?.integer) + 3000
        let notes = #""tags":["x","y"],"metadata":{"orderId":"17","a_b":""}"#
        let accepted = try await client.submit(#"{"prompt":"p","deadline":\#(deadline),\#(notes)}"#)
        #expect(accepted.status == .accepted, "\(String(buffer: accepted.body))")
        check(try accepted.json, deadline)
        return (try #require(try accepted.json["id"]?.text), deadline)
      }
    }
    try await ToyCluster.run(journal: folder + "/j") { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        check(try await client.get("/v1/jobs/\(id)").json, deadline)
        check(try await client.waitForEnd(id), deadline)
      }
    }
  }

  @Test func aJobPastItsDeadlineFails() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll(stepTime: .seconds(60))
      try await cluster.app().test(.live) { client in
        let id = try #require(try await client.submit(#"{"prompt":"p","timeout_seconds":0.3}"#).json["id"]?.text)
        let job = try await client.waitForEnd(id)
        #expect(job["status"]?.text == "failed")
        #expect(job["images"]?[0]?["error"]?["code"]?.text == "deadline_exceeded")
        #expect(try await client.get("/v1/jobs/\(id)/result").status == .gatewayTimeout)
        for (field, value) in [("timeout_seconds", 90_000), ("deadline", 1_000_000_000)] {
          let refused = try await client.submit(#"{"prompt":"p","\#(field)":\#(value)}"#)
          #expect(refused.status == .badRequest)
          #expect(try refused.error?["param"]?.text == field)
        }
      }
    }
  }

  /// A gateway that was down does not give a job more time.
  @Test func aDeadlineThatPassesDuringARestartCounts() async throws {
    let folder = NSTemporaryDirectory() + "journal-\(UInt64.random(in: 0 ... .max))"
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let id = try await ToyCluster.run(journal: folder + "/j") { cluster in
      _ = try await cluster.joinAll(stepTime: .seconds(60))
      return try await cluster.app().test(.live) { client in
        try #require(try await client.submit(#"{"prompt":"p","timeout_seconds":0.5}"#).json["id"]?.text)
      }
    }
    try await ToyCluster.run(journal: folder + "/j") { cluster in
      try await cluster.app().test(.live) { client in
        let job = try await client.waitForEnd(id)
        #expect(job["images"]?[0]?["error"]?["code"]?.text == "deadline_exceeded")
      }
    }
  }
}
