import ClusterCore
import Foundation
import Gateway
import GatewayAPI
import HTTPTesting
import HTTPTypes
import Hummingbird
import ImageCodec
import NIOCore
import StrictJSON
import TestSupport
import Testing

/// A1111's API over connections.
@Suite("A1111's API", .timeLimit(.minutes(2)))
struct WebUITests {
  @Test func imagesAreThoseOfTheOtherRoutes() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let response = try await client.webUI(
          "txt2img",
          #"{"prompt":"a cat","seed":5,"steps":3,"batch_size":2,"n_iter":1,"width":70,"height":64,"cfg_scale":7}"#)
        #expect(response.status == .ok && response.headers[.connection] == "close")
        let json = try response.json
        #expect(json["images"]?.count == 2)
        for index in 0..<2 {
          #expect(try response.webUIImage(index) == Toy.expected(prompt: "a cat", seed: 5 + UInt64(index), steps: 3))
        }
        let parameters = try #require(json["parameters"])
        #expect(parameters["width"]?.integer == 64 && parameters["steps"]?.integer == 3)
        #expect(parameters["sampler_name"]?.text == "Euler" && parameters["init_images"] == .null)
        let info = try JSON(Array(#require(json["info"]?.text).utf8))
        #expect(info["all_seeds"] == [5, 6] && info["seed"]?.integer == 5 && info["infotexts"]?.count == 2)
        #expect(info["infotexts"]?[1]?.text?.contains("Seed: 6") == true && info["sd_model_name"]?.text == "toy/model")
        #expect(info["notes"]?.elements?.contains { $0.text?.contains("64x64") == true } == true)
        // The job is there as every other one is.
        let location = try #require(response.headers[.location])
        #expect(location.hasSuffix(info["job_id"]?.text ?? "?"))
        #expect(try await client.get(location).json["status"]?.text == "succeeded")
        let without = try await client.webUI("txt2img", #"{"prompt":"p","send_images":false}"#).json
        #expect(without["images"] == [] && without["info"]?.text?.contains("all_seeds") == true)
      }
    }
  }

  @Test func errorsHaveTheShapeThatClientsShow() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        for (route, body, place, text) in [
          ("txt2img", #"{"prompt":"p","steps":500}"#, "steps", "50"),
          ("txt2img", #"{"prompt":""}"#, "prompt", "empty"),
          ("txt2img", #"{"prompt":"p","cfg_scale":1000}"#, "cfg_scale", "100"),
          ("txt2img", #"{"prompt":"p","sampler_name":"x"}"#, "sampler_name", "not found"),
          ("img2img", #"{"prompt":"p"}"#, "init_images", "missing"),
          ("img2img", #"{"prompt":"p","init_images":["!"]}"#, "init_images", "base64"),
        ] {
          let response = try await client.webUI(route, body)
          #expect(response.status.code == 422, "\(body)")
          let json = try response.json
          #expect(json["detail"]?[0]?["loc"] == ["body", .string(place)], "\(json)")
          #expect(json["detail"]?[0]?["msg"]?.text?.contains(text) == true, "\(json)")
          #expect(json["errors"]?.text == json["detail"]?[0]?["msg"]?.text && json["body"]?.text == "")
        }
        let broken = try await client.webUI("txt2img", "{")
        #expect(try broken.status == .badRequest && broken.json["detail"]?.text?.contains("JSON") == true)
        let model = try await client.webUI(
          "txt2img", #"{"prompt":"p","override_settings":{"sd_model_checkpoint":"other"}}"#)
        #expect(try model.status == .notFound && model.json["errors"]?.text?.contains("other") == true)
        for (uri, status) in [("/sdapi/v1/interrogate", 404), ("/sdapi/v1/txt2img", 405)] {
          let response = try await client.execute(uri: uri, method: .get)
          #expect(try response.status.code == status && response.json["detail"]?.text != nil)
        }
        #expect(try await client.execute(uri: "/v1/nothing", method: .get).error?["code"]?.text == "route_not_found")
      }
    }
  }

  @Test func progressIsShownAndJobsAreInterrupted() async throws {
    try await ToyCluster.run { cluster in
      let workers = try await cluster.joinAll(stepTime: .milliseconds(100))
      try await cluster.app().test(.live) { client in
        let idle = try await client.get("/sdapi/v1/progress").json
        #expect(idle["progress"]?.integer == 0 && idle["state"]?["job_count"]?.integer == 0)
        #expect(idle["current_image"] == .null && idle["eta_relative"]?.integer == 0)
        #expect(try await client.get("/sdapi/v1/progress?skip_current_image=null").status == .unprocessableContent)
        async let answer = client.webUI("txt2img", #"{"prompt":"p","seed":1,"steps":40}"#)
        try await wait("it runs") { await workers.denoiser.log.steps > 2 }
        try await wait("progress is shown") {
          let progress = try await client.get("/sdapi/v1/progress?skip_current_image=false").json
          return try #require(progress["progress"]?.double) > 0.04 && progress["state"]?["job_count"]?.integer == 1
            && progress["state"]?["sampling_steps"]?.integer == 40
            && (progress["state"]?["sampling_step"]?.integer ?? 0) > 0
            && progress["state"]?["job"]?.text == "scripts_txt2img"
        }
        // Browsers send this for any page.
        let foreign = try await client.execute(
          uri: "/sdapi/v1/interrupt", method: .post, headers: [.origin: "https://example.org"])
        #expect(foreign.status == .forbidden)
        // Jobs that came by another way are not A1111's.
        let other = try await client.submit(#"{"prompt":"q","seed":1,"steps":1}"#)
        let id = try #require(try other.json["id"]?.text)
        #expect(try await client.webUI("interrupt", "").status == .ok)
        let interrupted = try await answer
        #expect(interrupted.status.code == 499)
        #expect(try interrupted.json["errors"]?.text?.contains("interrupted") == true)
        #expect(try await client.waitForEnd(id)["status"]?.text == "succeeded")
        #expect(try await client.get("/sdapi/v1/progress").json["state"]?["job_count"]?.integer == 0)
        // Nothing is running: both are of no consequence.
        #expect(try await client.webUI("interrupt", "").status == .ok)
        #expect(try await client.webUI("skip", "").status == .ok)
      }
    }
  }

  @Test func oneImageIsSkippedAndTheOthersAreMade() async throws {
    try await ToyCluster.run { cluster in
      let workers = try await cluster.joinAll(stepTime: .milliseconds(50))
      try await cluster.app().test(.live) { client in
        async let answer = client.webUI("txt2img", #"{"prompt":"p","seed":1,"steps":10,"batch_size":2}"#)
        try await wait("it runs") { await workers.denoiser.log.steps > 1 }
        #expect(try await client.webUI("skip", "").status == .ok)
        let json = try await answer.json
        #expect(json["images"]?.count == 1)
        let info = try JSON(Array(#require(json["info"]?.text).utf8))
        #expect(info["all_seeds"]?.count == 1 && info["infotexts"]?.count == 1)
      }
    }
  }

  @Test func theModelIsChosenForATenant() async throws {
    let keys = AccessTests.Keys()
    let one = try keys.add("one"), other = try keys.add("other")
    let keyring = try Keyring(path: keys.path, logger: Toy.logger, refresh: .milliseconds(10))
    var second = Toy.card
    second.model = ModelIdentity(id: "toy/second", fingerprint: "f2")
    try await ToyCluster.run { [second] cluster in
      _ = try await cluster.joinAll()
      for stage in [StageName.textEncoder, .denoiser, .vaeDecoder] { try await cluster.join(stage, card: second) }
      try await wait("there are two") { await cluster.dispatcher.catalog.modelIDs.count == 2 }
      try await cluster.app(keyring: keyring).test(.live) { client in
        func options(_ key: String, _ body: String? = nil) async throws -> TestResponse {
          try await client.execute(
            uri: "/sdapi/v1/options", method: body == nil ? .get : .post,
            headers: [.authorization: key, .contentType: "application/json"], body: body.map { ByteBuffer(string: $0) })
        }
        let (basic, bearer) = (Self.basic("user", one.text), "Bearer \(other.text)")
        #expect(try await options(basic).json["sd_model_checkpoint"]?.text == "toy/model")
        let body = #"{"sd_model_checkpoint":"toy/second [f2]","my_option":{"a":1},"sd_vae":"None"}"#
        #expect(try await options(basic, body).status == .ok)
        let set = try await options(basic).json
        #expect(set["sd_model_checkpoint"]?.text == "toy/second" && set["sd_checkpoint_hash"]?.text == "f2")
        #expect(set["my_option"]?["a"]?.integer == 1 && set["sd_vae"]?.text == "None")
        #expect(try await options(bearer).json["sd_model_checkpoint"]?.text == "toy/model")
        // As Open WebUI does: everything that was read is sent back.
        #expect(try await options(basic, String(decoding: set.bytes, as: UTF8.self)).status == .ok)
        for (key, model) in [(basic, "toy/second"), (Self.basic(other.text, ""), "toy/model")] {
          let response = try await client.webUI("txt2img", #"{"prompt":"p"}"#, authorization: key)
          let info = try JSON(Array(#require(response.json["info"]?.text).utf8))
          #expect(info["sd_model_name"]?.text == model)
        }
        let wrong = try await options(basic, #"{"sd_model_checkpoint":"nothing"}"#)
        #expect(try wrong.status == .notFound && wrong.json["errors"]?.text?.contains("toy/second") == true)
        let long = try await options(basic, #"{"x":"\#(String(repeating: "x", count: 40_000))"}"#)
        #expect(long.status == .contentTooLarge)
        #expect(try await options(basic).json["x"] == nil)
      }
    }
  }

  static func basic(_ user: String, _ password: String) -> String {
    "Basic \(Data("\(user):\(password)".utf8).base64EncodedString())"
  }

  @Test func theKeyIsUserOrPasswordHereAlone() async throws {
    let keys = AccessTests.Keys()
    let key = try keys.add("acme")
    let keyring = try Keyring(path: keys.path, logger: Toy.logger, refresh: .milliseconds(10))
    try await ToyCluster.run { cluster in
      try await cluster.app(keyring: keyring).test(.live) { client in
        func status(_ uri: String, _ authorization: String?) async throws -> Int {
          var headers: HTTPFields = [:]
          headers[.authorization] = authorization
          return try await client.execute(uri: uri, method: .get, headers: headers).status.code
        }
        for good in [Self.basic("user", key.text), Self.basic(key.text, "x"), "Bearer \(key.text)"] {
          #expect(try await status("/sdapi/v1/samplers", good) == 200)
          #expect(try await status("/internal/ping", good) == 200)
          #expect(try await status("//sdapi/v1/samplers", good) == 200)
          #expect(try await status("/sdapi/v1/sd-modules", good) == 404)
        }
        for bad in [nil, "", "Basic", "Basic \(key.text)", Self.basic("user", key.text + "0"), Self.basic("a", "b")] {
          #expect(try await status("/sdapi/v1/samplers", bad) == 401, "\(bad ?? "nil")")
        }
        #expect(try await status("/v1/models", Self.basic("user", key.text)) == 401)
        let refused = try await client.execute(uri: "/sdapi/v1/samplers", method: .get)
        #expect(try refused.json["detail"]?.text?.contains("API key") == true)
        // A challenge for Basic would have browsers keep the key, and send it for pages of others.
        #expect(refused.headers[.wwwAuthenticate] == "Bearer")
      }
    }
  }

  @Test func whatClientsAskForAtTheStartIsThere() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let lists = [
          "upscalers", "latent-upscale-modes", "samplers", "schedulers", "sd-vae", "loras", "prompt-styles",
          "hypernetworks", "face-restorers", "realesrgan-models", "sd-models", "script-info", "extensions",
        ]
        for name in lists {
          let (status, json) = try await client.get("/sdapi/v1/\(name)")
          #expect(status == .ok && json.elements != nil, "\(name)")
        }
        #expect(try await client.get("/sdapi/v1/sd-models").json[0]?["title"]?.text == "toy/model")
        #expect(try await client.get("/sdapi/v1/upscalers").json[0]?["name"]?.text == "None")
        #expect(try await client.get("/sdapi/v1/embeddings").json["loaded"] == [:])
        #expect(try await client.get("/sdapi/v1/cmd-flags").json["api"] == true)
        #expect(try await client.get("/sdapi/v1/memory").json["cuda"]?["error"] != nil)
        #expect(try await client.get("/internal/ping").json == [:])
        #expect(try await client.webUI("refresh-checkpoints", "").status == .ok)
      }
    }
  }

  @Test func whatAnImageSaysIsRead() async throws {
    let infotext =
      "a cat: red\nsecond line\nNegative prompt: dark\nSteps: 3, Sampler: Euler, "
      + #"Model: "a, \"b\"", Size: 64x32"#
    let texts = [PNG.Text("parameters", infotext), PNG.Text("Software", "test")]
    let file = Intake.dataURL(try PNG.encode(Intake.image(8, 8), texts: texts))
    try await ToyCluster.run { cluster in
      try await cluster.app().test(.live) { client in
        let json = try await client.webUI("png-info", #"{"image":"\#(file)"}"#).json
        #expect(json["info"]?.text == infotext && json["items"]?["Software"]?.text == "test")
        let expected: JSON = [
          "Steps": "3", "Sampler": "Euler", "Model": #"a, "b""#, "Size": "64x32", "Prompt": "a cat: red\nsecond line",
          "Negative prompt": "dark", "Size-1": "64", "Size-2": "32",
        ]
        #expect(json["parameters"] == expected, "\(json)")
        let bare = Intake.dataURL(try PNG.encode(Intake.image(8, 8)))
        #expect(try await client.webUI("png-info", #"{"image":"\#(bare)"}"#).json["info"]?.text == "")
        #expect(try await client.webUI("png-info", #"{"image":"eA=="}"#).status.code == 422)
        #expect(try await client.webUI("png-info", "{}").status.code == 422)
      }
    }
  }
}

extension TestClientProtocol {
  /// `POST /sdapi/v1/…`.
  func webUI(_ name: String, _ body: String, authorization: String? = nil) async throws -> TestResponse {
    var headers: HTTPFields = [.contentType: "application/json"]
    headers[.authorization] = authorization
    return try await execute(
      uri: "/sdapi/v1/\(name)", method: .post, headers: headers, body: ByteBuffer(string: body))
  }
}

extension TestResponse {
  /// An image of an answer of A1111's API.
  fileprivate func webUIImage(_ index: Int) throws -> [UInt8] {
    let text = try #require(try json["images"]?[index]?.text)
    return try Array(#require(Data(base64Encoded: text)))
  }
}
