import Foundation
import Gateway
import HTTPTesting
import HTTPTypes
import Hummingbird
import NIOCore
import Testing

@Suite("What clients accept", .timeLimit(.minutes(2)))
struct AcceptTests {
  @Test(
    arguments: [
      (nil, 1, 1), ("", 1, 1), ("*/*", 1, 1), ("image/png", 1, 0), ("image/*", 1, 0), ("application/json", 0, 1),
      ("application/json;charset=utf-8", 0, 1), ("IMAGE/PNG;Q=0.5, */*;q=0.1", 0.5, 0.1),
      ("image/*;q=0.2,image/png;q=0.7", 0.7, 0),
      ("image/png;q=0, */*", 0, 1), ("image/png ; q=0.3 , application/json ; q=1.0", 0.3, 1), ("text/html", 0, 0),
      ("*/*;q=0, application/json", 0, 1), (#"text/x;a="image/png,;\",*/*", application/json"#, 0, 1),
      ("nonsense", 1, 1),
      (",,;q=1,", 1, 1),
      ("*/png", 1, 1), ("image/png;q=2", 1, 1), ("image/png;q=nan, application/json", 0, 1),
      ("image/avif,image/webp,*/*;q=0.8", 0.8, 0.8),
    ] as [(String?, Double, Double)])
  func rangesAreWeighed(field: String?, png: Double, json: Double) {
    let accepted = AcceptedMedia(field)
    #expect(accepted.quality(of: "image/png") == png)
    #expect(accepted.quality(of: "application/json") == json)
  }

  /// What a job's images are decides, not what the address could give.
  @Test(arguments: ["webp", "jpeg"]) func theFormatOfAJobIsThatOfItsAddress(format: String) async throws {
    try await ToyCluster.run { cluster in
      let workers = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let job = try await client.submit(
          #"{"prompt":"p","seed":1,"output_format":"\#(format)","output_compression":80}"#)
        #expect(try job.json["output_format"]?.text == format && job.json["background"]?.text == "opaque")
        let id = try #require(try job.json["id"]?.text)
        _ = try await client.waitForEnd(id)
        for (accept, type) in [
          (nil, "image/\(format)"), ("image/*", "image/\(format)"), ("image/png", "image/\(format)"),
          ("image/\(format);q=0, application/json", "application/json"),
          ("image/png, application/json", "application/json"),
        ] as [(String?, String)] {
          var headers: HTTPFields = [:]
          headers[.accept] = accept
          let result = try await client.execute(uri: "/v1/jobs/\(id)/result", method: .get, headers: headers)
          #expect(result.headers[.contentType] == type, "\(accept ?? "none")")
          if type == "application/json" { #expect(try result.json["output_format"]?.text == format) }
        }
        let request = try #require(await workers.decoder.log.decodeRequest)
        #expect(request.format.mediaType == "image/\(format)" && request.quality == 80 && request.background == .asMade)
        let answer = try await client.generate(#"{"prompt":"p","seed":1,"output_format":"\#(format)"}"#)
        #expect(try answer.json["output_format"]?.text == format)
        #expect(try answer.image() == Toy.expected(prompt: "p", seed: 1))
        let all = try #require(await workers.decoder.log.decodeRequest)
        #expect(all.quality == 100)
        let events = try await client.generate(#"{"prompt":"p","seed":1,"stream":true,"output_format":"\#(format)"}"#)
        #expect(String(buffer: events.body).contains(#""output_format":"\#(format)""#))
      }
    }
  }

  /// Fields that clients send by themselves accept anything: the address of an image gives the image. JSON is for those
  /// that want no image.
  @Test func theAddressOfAnImageGivesTheImage() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let id = try #require(try await client.submit(#"{"prompt":"p","seed":1}"#).json["id"]?.text)
        _ = try await client.waitForEnd(id)
        let images = [
          nil, "*/*", "image/*", "image/png", "image/webp",
          "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
          // axios; Angular and n8n; Python's requests; fetch of an image element.
          "application/json, text/plain, */*",
          "application/json,text/html,application/xhtml+xml,application/xml,text/*;q=0.9, image/*;q=0.8, */*;q=0.7",
          "application/json;q=0.1, image/png", "application/json, image/png;q=0.1",
          "image/avif,image/webp,image/apng,image/*,*/*;q=0.8",
        ]
        for accept in images {
          var headers: HTTPFields = [:]
          headers[.accept] = accept
          let result = try await client.execute(uri: "/v1/jobs/\(id)/result", method: .get, headers: headers)
          #expect(result.headers[.contentType] == "image/png", "\(accept ?? "none")")
          #expect(Array(buffer: result.body) == Toy.expected(prompt: "p", seed: 1))
          #expect(result.headers[.vary]?.lowercased().contains("accept") == true)
        }
        for accept in [
          "application/json", "application/json; charset=utf-8", "application/*", "application/json, image/*;q=0",
          "text/plain, application/json;q=0.2",
        ] {
          let result = try await client.execute(uri: "/v1/jobs/\(id)/result", method: .get, headers: [.accept: accept])
          #expect(result.headers[.contentType] == "application/json", "\(accept)")
          #expect(try result.image() == Toy.expected(prompt: "p", seed: 1))
          #expect(result.headers[.vary]?.lowercased().contains("accept") == true)
        }
        // Other routes have one form, whatever is accepted.
        for (uri, contentType) in [
          ("/v1/jobs/\(id)", "application/json"), ("/v1/jobs/\(id)/events", "text/event-stream; charset=utf-8"),
          ("/", "text/html; charset=utf-8"),
        ] {
          let answer = try await client.execute(uri: uri, method: .get, headers: [.accept: "image/png"])
          #expect(answer.status == .ok && answer.headers[.contentType] == contentType)
        }
      }
    }
  }
}
