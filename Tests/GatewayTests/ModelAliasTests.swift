import Foundation
import Gateway
import HTTPTesting
import HTTPTypes
import Hummingbird
import Testing

@Suite("Further names of models", .timeLimit(.minutes(2)))
struct ModelAliasTests {
  static func settings(_ aliases: String) async throws -> HTTPSettings {
    var settings = try await ConfigurationTests.configuration(["--models-aliases", aliases]).server
    settings.hosts = .any
    return settings
  }

  @Test func aModelIsServedUnderItsFurtherNames() async throws {
    let settings = try await Self.settings("dall-e-3=toy/model,gpt-image-1=toy/model,other=not/there")
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app(settings: settings).test(.live) { client in
        for name in ["toy/model", "gpt-image-1", "dall-e-3"] {
          let answer = try await client.generate(
            #"{"prompt":"p","seed":1,"model":"\#(name)","response_format":"b64_json"}"#)
          #expect(answer.status == .ok, "\(name)")
          #expect(try answer.image() == Toy.expected(prompt: "p", seed: 1))
          // What has made it is said by its own name.
          #expect(try answer.json["model"]?.text == "toy/model")
        }
        let address = try await client.generate(#"{"prompt":"p","seed":1,"model":"dall-e-3"}"#)
        #expect(try address.json["data"]?[0]?["url"] != nil)
        let models = try await client.get("/v1/models").json["data"]?.elements ?? []
        #expect(models.map { $0["id"]?.text } == ["toy/model", "dall-e-3", "gpt-image-1"])
        #expect(models.map { $0["alias_of"]?.text } == [nil, "toy/model", "toy/model"])
        for model in models {
          #expect(
            model["ready"] == .bool(true) && model["fingerprint"]?.text == "f1" && model["object"]?.text == "model")
        }
        let one = try await client.get("/v1/models/dall-e-3")
        #expect(one.status == .ok && one.json == models[1])
        #expect(try await client.get("/v1/models/other").status == .notFound)
      }
    }
  }

  @Test func anUnknownNameSaysWhatCanBeDone() async throws {
    // A model's own name is never an alias.
    let settings = try await Self.settings("other=not/there,toy/model=some/model")
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app(settings: settings).test(.live) { client in
        #expect(try await client.generate(#"{"prompt":"p","model":"toy/model"}"#).status == .ok)
        #expect(try await client.get("/v1/models").json["data"]?.count == 1)
        for (name, text) in [
          ("dall-e-2", "--models-aliases"), ("other", #"(the request says "other", which stands for it)"#),
        ] {
          let answer = try await client.generate(#"{"prompt":"p","model":"\#(name)"}"#)
          #expect(answer.status == .notFound)
          #expect(try answer.error?["code"]?.text == "model_not_found" && answer.error?["param"]?.text == "model")
          #expect(
            try answer.error?["message"]?.text?.contains(text) == true
              && answer.error?["message"]?.text?.contains("toy/model") == true)
        }
      }
    }
  }

  @Test(arguments: [
    "a", "=b", "a=", "a b=c", "a=a", "a=b,a=c", "a=b,b=c", "b=c,a=b", "a=" + String(repeating: "b", count: 257),
  ])
  func wrongAliasesAreNamed(text: String) async {
    let problems = await ConfigurationTests.problems(["--models-aliases", text])
    #expect(problems.count == 1 && problems.first?.hasPrefix("models.aliases has \"") == true, "\(problems)")
  }
}
