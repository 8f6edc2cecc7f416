import ClusterCore
import Foundation
import Gateway
import GatewayAPI
import HTTPTesting
import HTTPTypes
import Hummingbird
import NIOCore
import StrictJSON
import Testing

@Suite("Images in HTTP requests", .timeLimit(.minutes(2)))
struct IntakeHTTPTests {
  static let form: HTTPFields = [.contentType: "multipart/form-data; boundary=b"]

  static func body(_ parts: [[UInt8]]) -> ByteBuffer {
    ByteBuffer(bytes: parts.flatMap { $0 } + Array("--b--\r\n".utf8))
  }

  private func run(
    _ limits: HTTPLimits = HTTPLimits(), _ body: @Sendable @escaping (any TestClientProtocol) async throws -> Void
  ) async throws {
    try await ToyCluster.run { cluster in
      let card = Intake.imageToImageCard
      for stage in [StageName.textEncoder, .vaeEncoder, .vaeDecoder, .denoiser] {
        try await cluster.join(stage, card: card)
      }
      try await cluster.waitUntilReady()
      try await cluster.app(limits).test(.live) { client in try await body(client) }
      #expect(await cluster.dispatcher.openImageCount == 0)
    }
  }

  @Test func formAndJSONGiveTheSameImage() async throws {
    try await run { client in
      let file = try Intake.png(shade: 4)
      let expected = Toy.expected(prompt: "a cat", seed: 9, steps: 4, from: Intake.image(shade: 4).pixels)
      let parts = [
        Intake.prompt, Intake.text("seed", "9"), Intake.text("strength", "1"), Intake.text("steps", "4"),
        Intake.part("image[]", file),
      ]
      let fromForm = try await client.execute(
        uri: "/v1/images/edits", method: .post, headers: Self.form, body: Self.body(parts))
      #expect(fromForm.status == .ok, "\(String(buffer: fromForm.body))")
      #expect(try fromForm.image() == expected)
      let json = #"{"prompt":"a cat","seed":9,"strength":1,"steps":4,"image":"\#(Intake.dataURL(file))"}"#
      let fromJSON = try await client.execute(
        uri: "/v1/images/edits", method: .post, headers: [.contentType: "application/json"],
        body: ByteBuffer(string: json))
      #expect(try fromJSON.image() == expected)
    }
  }

  /// A form whose boundaries lie between any two reads of the connection.
  @Test func bodiesComeInPiecesOfAnySize() async throws {
    let parts = [Intake.prompt, Intake.part("image", Array(try Intake.png().dropLast(3)))]
    try await ToyCluster.run { cluster in
      try await cluster.join(.textEncoder, card: Intake.imageToImageCard)
      try await cluster.join(.denoiser, card: Intake.imageToImageCard)
      try await cluster.join(.vaeDecoder, card: Intake.imageToImageCard)
      try await cluster.join(.vaeEncoder, card: Intake.imageToImageCard)
      try await cluster.waitUntilReady()
      try await cluster.app().test(.live) { client in
        let port = try #require(client.port)
        let body = Array(buffer: Self.body(parts))
        for size in [1, 2, 3, 5, 7, 64] {
          // The beginning and the end, where the boundaries are, in small pieces.
          let head =
            "POST /v1/images/edits HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
            + "content-type: multipart/form-data; boundary=\"b\"\r\ntransfer-encoding: chunked\r\n\r\n"
          let answer = try await RawClient.connect(port) { inbound, outbound in
            try await outbound.write(ByteBuffer(string: head))
            let middle = 120..<body.count - 40
            for start in stride(from: 0, to: middle.lowerBound, by: size) {
              try await outbound.write(Self.chunk(body[start..<min(start + size, middle.lowerBound)]))
            }
            try await outbound.write(Self.chunk(body[middle]))
            for start in stride(from: middle.upperBound, to: body.count, by: size) {
              try await outbound.write(Self.chunk(body[start..<min(start + size, body.count)]))
            }
            try await outbound.write(ByteBuffer(string: "0\r\n\r\n"))
            return try await RawClient.read(&inbound) { _ in false }
          }
          #expect(answer.hasPrefix("HTTP/1.1 400"), "\(answer.prefix(200))")
          #expect(answer.contains("image: a damaged or incomplete PNG file"), "\(size): \(answer)")
        }
      }
    }
  }

  private static func chunk(_ bytes: ArraySlice<UInt8>) -> ByteBuffer {
    ByteBuffer(bytes: Array("\(String(bytes.count, radix: 16))\r\n".utf8) + bytes + [13, 10])
  }

  @Test func faultsAreClientErrorsAndNothingIsLeftOfThem() async throws {
    try await run { client in
      let file = try Intake.png()
      for (parts, param) in [
        ([Intake.part("image", try Intake.png(claiming: 100_000, 100_000))], "image"),
        ([Intake.part("image", try Intake.png(claiming: 16_384, 16_384))], "image"),
        ([Intake.part("image", try Intake.png(claiming: 0, 64))], "image"),
        ([Intake.part("image", Array(file.prefix(50)))], "image"), ([Intake.part("image", [])], "image"),
        (Array(repeating: Intake.part("image[]", file), count: 50), "image"),
        ([Intake.part("image", file), Intake.part("mask", try Intake.png(32, 64))], "mask"),
      ] as [([[UInt8]], String)] {
        let answer = try await client.execute(
          uri: "/v1/images/edits", method: .post, headers: Self.form, body: Self.body([Intake.prompt] + parts))
        #expect(answer.status == .badRequest)
        #expect(try answer.error?["param"]?.text == param, "\(String(buffer: answer.body))")
        #expect(try answer.error?["message"]?.text?.isEmpty == false)
      }
      for (type, body) in [
        ("multipart/form-data", "x"), ("multipart/form-data; boundary=b", ""),
        ("multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\nx"),
        ("multipart/form-data; boundary=\"b", "x"),
      ] {
        let answer = try await client.execute(
          uri: "/v1/images/edits", method: .post, headers: [.contentType: type], body: ByteBuffer(string: body))
        #expect(answer.status == .badRequest)
        #expect(try answer.error?["code"]?.text == "malformed_request", "\(String(buffer: answer.body))")
      }
    }
  }

  /// Requests that hold much of the memory for bodies make others with images wait, but not those without.
  @Test func allBodiesTogetherHaveALimit() async throws {
    var limits = HTTPLimits()
    limits.maxBodyBytes = 1 << 20
    limits.maxBodiesBytes = 1 << 20
    limits.bodyTimeout = .seconds(30)
    let app = limits
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app(app).test(.live) { client in
        let port = try #require(client.port)
        let large = String(repeating: "x", count: 1000 << 10)
        let half = "{\"prompt\":\"a cat\",\"user\":\"\(large)"
        let head =
          "POST /v1/images/generations HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
          + "content-length: \(half.utf8.count + 2)\r\n\r\n"
        let body = "{\"prompt\":\"a cat\",\"user\":\"\(String(large.prefix(200 << 10)))\"}"
        // If the second one comes first, the first one is refused, and comes again.
        try await wait("the second of two is refused") {
          try await RawClient.connect(port) { inbound, outbound in
            try await outbound.write(ByteBuffer(string: head + half))
            // As long as the first one is not complete, another of its size is refused, and may come again.
            var refused: TestResponse?
            for _ in 0..<100 where refused == nil {
              let answer = try await client.generate(body)
              if answer.status == .tooManyRequests { refused = answer }
            }
            guard let refused else { return false }
            #expect(refused.headers[.retryAfter] == "1")
            #expect(try refused.error?["code"]?.text == "queue_full")
            #expect(try refused.error?["message"]?.text?.contains("the limit is 1048576") == true)
            #expect(try await client.generate(#"{"prompt":"a cat"}"#).status == .ok)
            try await outbound.write(ByteBuffer(string: "\"}"))
            let answer = try await RawClient.read(&inbound) { $0.contains("\r\n\r\n") }
            if answer.hasPrefix("HTTP/1.1 429") { return false }
            #expect(answer.hasPrefix("HTTP/1.1 400"), "\(answer.prefix(300))")
            // It has let go: the same request is read, and refused for its field.
            #expect(try await client.generate(body).status == .badRequest)
            return true
          }
        }
      }
    }
  }
}
