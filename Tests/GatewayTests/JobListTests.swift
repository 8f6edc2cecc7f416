import Foundation
import Gateway
import GatewayDispatch
import HTTPTesting
import HTTPTypes
import Hummingbird
import Journal
import NIOCore
import StrictJSON
import TestSupport
import Testing

@Suite("Lists of jobs", .timeLimit(.minutes(2)))
struct JobListTests {
  private static func ids(_ list: JSON) -> [String]? { list["data"]?.elements?.compactMap { $0["id"]?.text } }

  @Test func jobsAreFoundByStatusModelTagAndTime() async throws {
    try await ToyCluster.run { cluster in
      let workers = try await cluster.joinAll(stepTime: .seconds(60))
      try await cluster.app().test(.live) { client in
        var ids: [String] = []
        for tags in [#"["a"]"#, #"["a","b"]"#, "[]"] {
          ids.append(
            try #require(try await client.submit(#"{"prompt":"p","tags":\#(tags)}"#).json["id"]?.text))
        }
        try await wait("the first one runs") { await !workers.denoiser.log.tasks.isEmpty }
        #expect(try await client.execute(uri: "/v1/jobs/\(ids[1])", method: .delete).status == .ok)
        let now = try #require(try await client.get("/v1/jobs/\(ids[0])").json["created_at"]?.integer)
        for (query, expected) in [
          ("", [2, 1, 0]), ("order=asc", [0, 1, 2]), ("status=running", [0]), ("status=queued", [2]),
          ("status=queued,running", [2, 0]), ("status=cancelled&status=queued", [2, 1]), ("status=failed", []),
          ("tag=a", [1, 0]), ("tag=a&tag=b", [1]), ("tag=a&status=running", [0]), ("tag=x", []),
          ("model=toy/model", [2, 1, 0]), ("model=toy%2Fmodel&tag=a&order=asc", [0, 1]), ("model=x", []),
          ("created_after=\(now - 1000)", [2, 1, 0]), ("created_before=\(now - 1000)", []),
          ("created_after=\(now + 1000)", []), ("created_before=0", []),
          ("created_after=\(now - 1000)&created_before=\(now + 1000)&status=queued", [2]),
        ] {
          let list = try await client.get("/v1/jobs?\(query)")
          #expect(list.status == .ok, "\(query): \(list.json)")
          #expect(Self.ids(list.json) == expected.map { ids[$0] }, "\(query)")
          #expect(list.json["has_more"] == .bool(false) && list.json["next"] == nil, "\(query)")
        }
      }
    }
  }

  @Test func aliasesOfModelsFindTheirJobs() async throws {
    let given = try await ConfigurationTests.configuration(["--models-aliases", "dall-e-3=toy/model"]).server
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app(settings: given).test(.live) { client in
        let id = try #require(try await client.submit(#"{"prompt":"p"}"#).json["id"]?.text)
        #expect(Self.ids(try await client.get("/v1/jobs?model=dall-e-3").json) == [id])
      }
    }
  }

  @Test(
    arguments: [
      ("status=done", "status"), ("status=", nil), ("status=queued,,x", "status"), ("order=up", "order"),
      ("created_after=x", "created_after"), ("created_before=-1", "created_before"),
      ("created_after=5&created_before=6", "created_before"), ("created_after=253402300800", "created_after"),
      ((0..<17).map { "tag=\($0)" }.joined(separator: "&"), "tag"), ("text=x", "text"),
    ] as [(String, String?)]) func wrongParametersAreNamed(query: String, param: String?) async throws
  {
    try await ToyCluster.run { cluster in
      try await cluster.app().test(.live) { client in
        let answer = try await client.get("/v1/jobs?\(query)")
        #expect(answer.status == (param == nil ? .ok : .badRequest))
        #expect(answer.json["error"]?["param"]?.text == param, "\(answer.json)")
      }
    }
  }

  @Test func pagesAreStableWhileJobsComeAndGo() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll(credits: 16)
      try await cluster.app().test(.live) { client in
        func submit() async throws -> String {
          try #require(try await client.submit(#"{"prompt":"p","steps":1,"tags":["x"]}"#).json["id"]?.text)
        }
        var ids: [String] = []
        for _ in 0..<9 { ids.append(try await submit()) }
        for filter in ["", "tag=x&", "status=queued,running,succeeded&"] {
          var seen: [String] = [], next = ""
          repeat {
            let page = try await client.get("/v1/jobs?\(filter)limit=2\(next)").json
            seen += Self.ids(page) ?? []
            _ = try await submit()
            next = page["next"]?.text.map { "&after=\($0)" } ?? ""
          } while !next.isEmpty
          #expect(seen.suffix(ids.count) == ids.reversed()[...], "\(filter)")
          #expect(Set(seen).count == seen.count)
          ids = []
          let all = try await client.get("/v1/jobs?limit=100&order=asc").json
          ids = Self.ids(all) ?? []
        }
        #expect(try await client.get("/v1/jobs?after=5_job-x").status == .ok)
        #expect(try await client.get("/v1/jobs?after=job-x").status == .notFound)
      }
    }
  }
}
