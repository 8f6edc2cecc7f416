import AccessKeys
import ClusterCore
import Foundation
import Gateway
import GatewayAPI
import GatewayDispatch
import HTTPTesting
import HTTPTypes
import Hummingbird
import Journal
import NIOCore
import StrictJSON
import TestSupport
import Testing

@Suite("Many jobs in one request", .timeLimit(.minutes(2)))
struct BulkTests {
  private static let lines: HTTPFields = [.contentType: "application/x-ndjson"]

  private static func submit(
    _ body: String, _ client: any TestClientProtocol, query: String = "", headers: HTTPFields = JobsTests.json
  ) async throws -> TestResponse {
    try await client.execute(
      uri: "/v1/jobs/bulk\(query)", method: .post, headers: headers, body: ByteBuffer(string: body))
  }

  private static func ids(_ response: TestResponse) throws -> [String] {
    try response.json["data"]?.elements?.compactMap { $0["job"]?["id"]?.text } ?? []
  }

  @Test func everyJobIsAnsweredForItself() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let items = [
          #"{"prompt":"a","seed":1,"tags":["x,]}\""]}"#, #"{"prompt":""}"#, #"{"prompt":"b","n":2}"#,
          #"{"prompt":"c","x":[1]}"#,
          "7", "",
          #"{"prompt":"d","stream":true}"#, #"{"prompt":"e","idempotency_key":" "}"#,
          #"{"prompt":"f","idempotency_key":5}"#,
        ]
        let answer = try await Self.submit("[ \(items.joined(separator: " , ")) ]\n", client)
        #expect(answer.status == .ok)
        let json = try answer.json
        #expect(json["accepted"]?.integer == 2 && json["failed"]?.integer == 7)
        let data = try #require(json["data"]?.elements)
        #expect(data.map { $0["index"]?.integer } == Array(items.indices))
        #expect(data.map { $0["status"]?.integer } == [202, 400, 202, 400, 400, 400, 400, 400, 400])
        #expect(
          data.map { $0["error"]?["param"]?.text }
            == [nil, "prompt", nil, "x", nil, nil, "stream", "idempotency_key", "idempotency_key"])
        #expect(data[0]["job"]?["tags"]?[0]?.text == "x,]}\"" && data[2]["job"]?["n"]?.integer == 2)
        for id in try Self.ids(answer) { #expect(try await client.waitForEnd(id)["status"]?.text == "succeeded") }
        let list = try await client.get("/v1/jobs?order=asc").json
        #expect(try list["data"]?.elements?.compactMap { $0["id"]?.text } == Self.ids(answer))
      }
    }
  }

  @Test func linesAreJobs() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let body = "{\"prompt\":\"a\"}\r\n\n  \n{\"prompt\":\"b\"}\n{\"prompt\":"
        let answer = try await Self.submit(body, client, headers: Self.lines)
        #expect(answer.status == .ok)
        #expect(try answer.json["data"]?.elements?.map { $0["status"]?.integer } == [202, 202, 400])
      }
    }
  }

  @Test func keysAreThoseOfTheHeader() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let single = try await client.submit(#"{"prompt":"a"}"#, JobsTests.keyed("k")).json["id"]?.text
        for query in ["", "?atomic=true"] {
          let body = #"[{"idempotency_key":"k","prompt":"a"},{"prompt":"b","idempotency_key":"l"}]"#
          let answer = try await Self.submit(body, client, query: query)
          let data = try #require(try answer.json["data"]?.elements)
          #expect(data[0]["job"]?["id"]?.text == single && data[0]["replayed"] == .bool(true))
          #expect(data[1]["replayed"] == (query.isEmpty ? nil : .bool(true)))
        }
        let reused = try await Self.submit(#"[{"prompt":"c","idempotency_key":"k"}]"#, client).json
        #expect(reused["data"]?[0]?["error"]?["code"]?.text == "idempotency_key_reused")
        let twice = #"[{"prompt":"c","idempotency_key":"m"},{"prompt":"c","idempotency_key":"m"}]"#
        #expect(try Set(Self.ids(try await Self.submit(twice, client))).count == 1)
        let atomic = try await Self.submit(twice.replacing("\"m\"", with: "\"n\""), client, query: "?atomic=true")
        #expect(try atomic.status == .badRequest && atomic.error?["param"]?.text == "[1].idempotency_key")
      }
    }
  }

  @Test func allJobsOrNone() async throws {
    let folder = NSTemporaryDirectory() + "journal-\(UInt64.random(in: 0 ... .max))"
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let ids = try await ToyCluster.run({ $0.scheduling.maxJobs = 6 }, journal: folder + "/j") { cluster in
      _ = try await cluster.joinAll(stepTime: .seconds(60))
      return try await cluster.app().test(.live) { client in
        let wrong = try await Self.submit(#"[{"prompt":"a"},{"prompt":"b","n":0}]"#, client, query: "?atomic=true")
        #expect(wrong.status == .badRequest)
        #expect(
          try wrong.error?["param"]?.text == "[1].n" && wrong.error?["message"]?.text?.hasPrefix("[1]: n is 0") == true)
        let many = try await Self.submit(
          "[" + Array(repeating: #"{"prompt":"a","n":2}"#, count: 4).joined(separator: ",") + "]", client,
          query: "?atomic=true")
        #expect(many.status == .tooManyRequests && many.headers[.retryAfter] != nil)
        #expect(await cluster.dispatcher.openImageCount == 0)
        #expect(try await client.get("/v1/jobs").json["data"]?.count == 0)
        let right = try await Self.submit(
          #"[{"prompt":"a","n":2},{"prompt":"b","tags":["t"]},{"prompt":"c","n":3}]"#, client, query: "?atomic=true")
        let ids = try Self.ids(right)
        #expect(right.status == .ok && ids.count == 3)
        // The queue is full now.
        let each = try await Self.submit(#"[{"prompt":"a"}]"#, client).json
        #expect(each["data"]?[0]?["error"]?["code"]?.text == "queue_full")
        return ids
      }
    }
    try await ToyCluster.run(journal: folder + "/j") { cluster in
      #expect(await cluster.dispatcher.openImageCount == 6)
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        for id in ids {
          let job = try await client.waitForEnd(id)
          #expect(job["status"]?.text == "succeeded")
        }
      }
    }
    #expect(try SQLiteJournalStore(path: folder + "/j").problems() == [])
  }

  @Test(arguments: [
    ("", "invalid_json"), ("{}", "invalid_json"), ("[", "invalid_json"), ("[{}", "invalid_json"),
    ("[] x", "invalid_json"),
    ("[\"]", "invalid_json"), ("[]", "invalid_value"),
    ("[" + Array(repeating: "{}", count: 101).joined(separator: ",") + "]", "invalid_value"),
  ]) func bodiesThatAreNoJobs(body: String, code: String) async throws {
    try await ToyCluster.run { cluster in
      try await cluster.app().test(.live) { client in
        let answer = try await Self.submit(body, client)
        #expect(answer.status == .badRequest)
        #expect(try answer.error?["code"]?.text == code)
      }
    }
  }

  @Test func requestsAreChecked() async throws {
    var small = HTTPLimits()
    small.maxBodyBytes = 100
    let limits = small
    try await ToyCluster.run { cluster in
      try await cluster.app(limits).test(.live) { client in
        let long = try await Self.submit("[\(String(repeating: " ", count: 100))]", client)
        #expect(long.status == .contentTooLarge)
        let type = try await Self.submit("[]", client, headers: [.contentType: "text/plain"])
        #expect(type.status == .unsupportedMediaType)
        #expect(try await Self.submit("[]", client, query: "?atomic=yes").error?["param"]?.text == "atomic")
        #expect(
          try await Self.submit("[]", client, headers: JobsTests.keyed("k")).error?["param"]?.text == "Idempotency-Key")
        #expect(try await client.execute(uri: "/v1/jobs/bulk", method: .get).status == .methodNotAllowed)
      }
    }
  }

  @Test func everyJobCountsAsARequest() async throws {
    let key = AccessKey.generate()
    var limits = AccessLimits()
    limits.requestsPerMinute = 5
    let path = NSTemporaryDirectory() + "keys-\(UInt64.random(in: 0 ... .max))"
    defer { try? FileManager.default.removeItem(atPath: path) }
    try AccessEntry(key, tenant: "acme", limits: limits).line.write(toFile: path, atomically: true, encoding: .utf8)
    let keyring = try Keyring(path: path, logger: Toy.logger)
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app(keyring: keyring).test(.live) { client in
        let headers: HTTPFields = [.contentType: "application/json", .authorization: "Bearer \(key.text)"]
        func submit(_ count: Int) async throws -> HTTPResponse.Status {
          let items = Array(repeating: #"{"prompt":"p"}"#, count: count).joined(separator: ",")
          return try await Self.submit("[\(items)]", client, headers: headers).status
        }
        // Of five, the first request takes one, the second one three.
        let statuses = [try await submit(6), try await submit(3), try await submit(2)]
        #expect(statuses == [.forbidden, .ok, .tooManyRequests])
      }
    }
  }
}
