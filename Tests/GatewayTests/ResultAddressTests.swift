import AccessKeys
import Foundation
import Gateway
import HTTPTesting
import HTTPTypes
import Hummingbird
import NIOCore
import StrictJSON
import Testing

@Suite("Addresses of results", .timeLimit(.minutes(2)))
struct ResultAddressTests {
  /// The path and the query of an address that begins with `origin`.
  static func target(_ url: String?, _ origin: String) throws -> String {
    let url = try #require(url)
    #expect(url.hasPrefix(origin), "\(url)")
    return String(url.dropFirst(origin.count))
  }

  @Test func anAddressIsAnsweredAndLeadsToTheImage() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let origin = "http://127.0.0.1:\(try #require(client.port))"
        let answer = try await client.generate(#"{"prompt":"a cat","seed":5,"n":2,"response_format":"url"}"#)
        #expect(answer.status == .ok)
        for index in 0..<2 {
          let image = try #require(try answer.json["data"]?[index])
          #expect(image["b64_json"] == nil && image["seed"]?.integer == 5 + index)
          let target = try Self.target(image["url"]?.text, origin)
          #expect(target.hasPrefix("\(try #require(answer.headers[.location]))/result?index=\(index)"))
          let result = try await client.execute(uri: target, method: .get)
          #expect(result.headers[.contentType] == "image/png")
          #expect(Array(buffer: result.body) == Toy.expected(prompt: "a cat", seed: UInt64(5 + index)))
        }
        let stream = try await client.generate(#"{"prompt":"a cat","seed":5,"stream":true,"response_format":"url"}"#)
        let completed = try #require(try APITests.events(String(buffer: stream.body)).last)
        #expect(completed.name == "image_generation.completed" && completed.data["b64_json"] == nil)
        let streamed = try await client.execute(uri: try Self.target(completed.data["url"]?.text, origin), method: .get)
        #expect(Array(buffer: streamed.body) == Toy.expected(prompt: "a cat", seed: 5))
        // The form of the answer makes no other request.
        let keyed = try await client.generate(#"{"prompt":"p","response_format":"url"}"#, headers: JobsTests.keyed("k"))
        let same = try await client.generate(#"{"prompt":"p"}"#, headers: JobsTests.keyed("k"))
        #expect(keyed.headers[.location] == same.headers[.location] && keyed.headers[.location] != nil)
        #expect(try same.json["data"]?[0]?["b64_json"] != nil && same.json["data"]?[0]?["url"] == nil)
      }
    }
  }

  /// It begins with what the client used, or with what the operator says.
  @Test func theAddressIsTheOneThatTheClientSees() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      let forwarded: HTTPFields = [
        .contentType: "application/json", HTTPField.Name("x-forwarded-proto")!: "https",
        HTTPField.Name("x-forwarded-host")!: "b.example",
        HTTPField.Name("x-forwarded-prefix")!: "/p",
      ]
      for (settings, origin) in [
        (try AddressTests.settings(publicURL: "https://a.example/x"), "https://a.example/x"),
        (try AddressTests.settings(basePath: "/qi", trustsForwarded: true), "https://b.example/p"),
      ] {
        try await cluster.app(settings: settings).test(.live) { client in
          let answer = try await client.generate(#"{"prompt":"p","response_format":"url"}"#, headers: forwarded)
          _ = try Self.target(try answer.json["data"]?[0]?["url"]?.text, "\(origin)/v1/jobs/job-")
        }
      }
      try await cluster.app(settings: try AddressTests.settings(basePath: "/qi")).test(.live) { client in
        let port = try #require(client.port)
        for (host, origin) in [("c.example:99", "http://c.example:99/qi"), ("[::1]", "http://[::1]/qi")] {
          let body = #"{"prompt":"p","response_format":"url"}"#
          let request = RawClient.post(body).replacingOccurrences(of: "host: 127.0.0.1", with: "host: \(host)")
          let answer = try await RawClient.exchange(port, request)
          #expect(answer.contains(#""url":"\#(origin)/v1/jobs/job-"#), "\(answer)")
        }
        // HTTP/1.0 needs no host: what is left is the address that the client has connected to.
        let old = try await RawClient.exchange(port, VersionTests.post(#"{"prompt":"p","response_format":"url"}"#))
        #expect(old.contains(#""url":"http://127.0.0.1:\#(port)/qi/v1/jobs/job-"#), "\(old)")
      }
    }
  }

  /// Programs that ask for addresses fetch them without a key. An address opens its image, and nothing else.
  @Test func aSignedAddressOpensItsImageAlone() async throws {
    let keys = AccessTests.Keys()
    let (first, second) = (try keys.add("acme"), try keys.add("zeta"))
    let keyring = try Keyring(path: keys.path, logger: Toy.logger, refresh: .zero)
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app(keyring: keyring).test(.live) { client in
        func status(_ target: String, _ method: HTTPRequest.Method = .get, _ headers: HTTPFields = [:]) async throws
          -> Int
        {
          try await client.execute(uri: target, method: method, headers: headers).status.code
        }
        let body = #"{"prompt":"p","seed":1,"n":2,"response_format":"url"}"#
        let answer = try await client.generate(body, headers: AccessTests.headers(first))
        let origin = "http://127.0.0.1:\(try #require(client.port))"
        let targets = try (0..<2).map { try Self.target(try answer.json["data"]?[$0]?["url"]?.text, origin) }
        for (index, target) in targets.enumerated() {
          let result = try await client.execute(uri: target, method: .get, headers: [.accept: "application/json"])
          #expect(
            result.status == .ok && Array(buffer: result.body) == Toy.expected(prompt: "p", seed: UInt64(1 + index)))
          #expect(try await status(target, .head) == 200)
          // The owner's key works as well, and another's is not helped by the signature.
          #expect(try await status(target, .get, AccessTests.headers(first)) == 200)
          #expect(try await status(target, .get, AccessTests.headers(second)) == 404)
          #expect(!target.contains(first.text.suffix(64)))
        }
        let other = try await client.generate(body, headers: AccessTests.headers(first))
        let otherJob = try #require(other.headers[.location])
        let job = try #require(answer.headers[.location])
        let query = try #require(targets[0].split(separator: "?").last)
        let signature = try #require(query.split(separator: "=").last)
        var wrong = [
          "\(job)/result?\(query.replacingOccurrences(of: "index=0", with: "index=1"))", "\(otherJob)/result?\(query)",
          "\(job)?\(query)", "\(job)/events?\(query)", "/v1/jobs?\(query)", "/v1/workers?\(query)", "\(job)/result",
          "\(job)/result?\(query.replacingOccurrences(of: "key=\(first.id)", with: "key=\(second.id)"))",
          "\(job)/result?\(query.replacingOccurrences(of: "key=\(first.id)", with: "key="))",
          "\(job)/result?index=1&\(query)", "\(job)/result?index=00&key=\(first.id)&signature=\(signature)",
        ]
        for odd in [
          "", "0", signature.dropLast() + "g", signature.dropLast(2), signature.uppercased()[...], signature + "00",
        ] {
          wrong.append("\(job)/result?index=0&key=\(first.id)&signature=\(odd)")
        }
        for target in wrong where target != targets[0] { #expect(try await status(target) == 401, "\(target)") }
        for method in [HTTPRequest.Method.delete, .post, .options] {
          #expect(try await status(targets[0], method) == 401, "\(method)")
        }
        // It ends with the key.
        try keys.removeFirst()
        #expect(try await status(targets[0]) == 401)
      }
    }
  }
}
