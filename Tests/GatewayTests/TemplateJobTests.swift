import AccessKeys
import Foundation
import Gateway
import HTTPTesting
import HTTPTypes
import Hummingbird
import NIOCore
import StrictJSON
import Testing

/// `POST /v1/templates/jobs`.
@Suite("Jobs of templates", .timeLimit(.minutes(2)))
struct TemplateJobTests {
  private static let template: JSON = [
    "name": "signs", "prompt": "a sign that says \"{word}\"", "slots": ["word": ["max_length": 7]],
    "languages": ["en": [:], "zh": ["prompt": "\"{word}\"字"]], "seed": ["row": 10], "tags": ["spring"],
    "brand": ["forbidden_words": ["FREE"]],
  ]

  private static func submit(
    _ members: JSON, _ client: any TestClientProtocol, headers: HTTPFields = JobsTests.json
  ) async throws -> TestResponse {
    try await client.execute(
      uri: "/v1/templates/jobs", method: .post, headers: headers, body: ByteBuffer(bytes: members.bytes))
  }

  @Test func rowsBecomeJobsInAllLanguages() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let body: JSON = ["template": Self.template, "rows": [["word": "SALE"], ["word": "OPEN", "word.zh": "大"]]]
        let answer = try await Self.submit(body, client)
        #expect(answer.status == .ok)
        let json = try answer.json, data = try #require(json["data"]?.elements)
        #expect(json["accepted"]?.integer == 4 && json["failed"]?.integer == 0)
        #expect(data.map { $0["row"]?.integer } == [1, 1, 2, 2])
        #expect(data.map { $0["language"]?.text } == ["en", "zh", "en", "zh"])
        #expect(data.map { $0["output"]?.text } == ["0001-en", "0001-zh", "0002-en", "0002-zh"])
        #expect(data.map { $0["status"]?.integer } == [202, 202, 202, 202])
        let jobs = data.compactMap { $0["job"] }
        #expect(jobs[3]["prompt"]?.text == "\"大\"字" && jobs[0]["prompt"]?.text == "a sign that says \"SALE\"")
        #expect(jobs[2]["images"]?[0]?["seed"]?.integer == 12 && jobs[1]["tags"] == ["template:signs", "spring"])
        #expect(jobs[1]["metadata"] == ["language": "zh", "row": "1", "template": "signs"])
        for job in jobs {
          #expect(try await client.waitForEnd(#require(job["id"]?.text))["status"]?.text == "succeeded")
        }
        let list = try await client.get("/v1/jobs?tag=template:signs").json
        #expect(list["data"]?.elements?.count == 4)
      }
    }
  }

  @Test func textsOfYAMLAndCSVAreTaken() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let yaml = "name: t\nprompt: '{x} is here'\nslots: { x: {} }\nsizes: { a: 64x64 }\n"
        let body: JSON = ["template": .string(yaml), "rows": "x\nA\n\"B, C\"\n", "idempotency_key": "order-1"]
        let first = try await Self.submit(body, client), second = try await Self.submit(body, client)
        let ids = try [first, second].map { try $0.json["data"]?.elements?.map { $0["job"]?["id"]?.text } }
        #expect(ids[0] == ids[1] && ids[0]?.count == 2)
        #expect(try second.json["data"]?.elements?.allSatisfy { $0["replayed"] == true } == true)
        #expect(try first.json["data"]?[1]?["job"]?["prompt"]?.text == "B, C is here")
      }
    }
  }

  @Test func aDryRunMakesNoJobs() async throws {
    try await ToyCluster.run { cluster in
      try await cluster.app().test(.live) { client in
        var rows = JSON.array([["word": "SALE"]])
        let answer = try await Self.submit(["template": Self.template, "rows": rows, "dry_run": true], client)
        #expect(answer.status == .ok)
        let data = try #require(answer.json["data"]?.elements)
        #expect(data.count == 2 && data[1]["row"] == 1 && data[1]["language"] == "zh" && data[1]["output"] == "0001-zh")
        #expect(data[1]["request"]?["prompt"] == "\"SALE\"字" && data[1]["request"]?["seed"] == 11)
        rows = .array((1...2000).map { ["word": JSON($0)] })
        #expect(
          try await Self.submit(["template": Self.template, "rows": rows, "dry_run": true], client).json["data"]?
            .elements?.count == 4000)
        #expect(try await client.get("/v1/jobs").json["data"] == [])
      }
    }
  }

  @Test func whatIsWrongIsNamedAndMakesNoJobs() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let rows: JSON = [["word": "SALE"]], template = Self.template
        guard case .object(let members) = template else { return }
        func with(_ name: String, _ value: JSON) -> JSON { .object(members.merging([name: value]) { $1 }) }
        let cases: [(body: JSON, code: String, param: String?)] = [
          ([], "invalid_type", nil), (["rows": rows], "missing_required_parameter", "template"),
          (["template": template], "missing_required_parameter", "rows"),
          (["template": 7, "rows": rows], "invalid_value", "template"),
          (["template": template, "rows": 7], "invalid_value", "rows"),
          (["template": template, "rows": []], "invalid_value", "rows"),
          (["template": template, "rows": rows, "x": 1], "unknown_parameter", "x"),
          (["template": template, "rows": rows, "dry_run": 1], "invalid_type", "dry_run"),
          (["template": template, "rows": rows, "idempotency_key": ""], "invalid_value", "idempotency_key"),
          (["template": with("prompts", "x"), "rows": rows], "invalid_value", "template.prompts"),
          (["template": with("prompt", "{y}"), "rows": rows], "invalid_value", "template.prompt"),
          (["template": "a: *x", "rows": rows], "invalid_value", "template"),
          (["template": template, "rows": [["word": "SALE"], ["word": "free ice"]]], "invalid_value", "rows[1].word"),
          (["template": template, "rows": [["word": "SALE"], [:]]], "invalid_value", "rows[1].word"),
          (["template": template, "rows": [["w": 1]]], "invalid_value", "rows[0].w"),
          (["template": template, "rows": "w\n1\n"], "invalid_value", "rows.w"),
          // What only the model's card knows, and what only the API's fields know.
          (["template": with("sizes", ["a": "1x1"]), "rows": rows], "invalid_value", "rows[0].size"),
          (
            ["template": with("request", ["output_format": "gif"]), "rows": rows], "unsupported_value",
            "rows[0].output_format"
          ),
          (["template": template, "rows": .array((1...501).map { ["word": JSON($0)] })], "invalid_value", "rows"),
        ]
        for (body, code, param) in cases {
          let answer = try await Self.submit(body, client)
          #expect(answer.status == .badRequest, "\(code) \(param ?? "")")
          let error = try #require(answer.json["error"])
          #expect(error["code"]?.text == code && error["param"]?.text == param, "\(error)")
        }
        var headers = JobsTests.json
        headers[.init("idempotency-key")!] = "k"
        let keyed = try await Self.submit(["template": template, "rows": rows], client, headers: headers)
        #expect(try keyed.json["error"]?["param"]?.text == "Idempotency-Key")
        let text = try await Self.submit(
          ["template": template, "rows": rows], client, headers: [.contentType: "application/yaml"])
        #expect(text.status == .unsupportedMediaType)
        #expect(try await client.get("/v1/jobs").json["data"] == [])
      }
    }
  }
}
