import Foundation
import Testing

/// Which addresses reach a gateway, and what is said when none does.
@Suite(.timeLimit(.minutes(1))) struct GatewayAddressTests {
  private static let noJobs = FakeServer.json(#"{"data":[],"has_more":false}"#)

  /// Lists the jobs of a server that gives `answer`.
  private func list(
    _ answer: @escaping FakeServer.Answer, _ more: [String] = [], environment: [String: String] = [:]
  ) async throws -> CommandLineTool.Result {
    try await FakeServer.with(answer) { server in
      try await CommandLineTool.run(["jobs", "list", "--gateway", server.address] + more, environment: environment)
    }
  }

  @Test(arguments: [
    ("", "/v1/jobs"), ("/", "/v1/jobs"), ("/v1", "/v1/jobs"), ("/v1/", "/v1/jobs"), ("//v1//", "/v1/jobs"),
    ("/v1/images/generations", "/v1/jobs"), ("/images", "/images/v1/jobs"), ("/images/v1", "/images/v1/jobs"),
    ("/a/v1/b", "/a/v1/b/v1/jobs"), ("/a%20b/", "/a%20b/v1/jobs"),
  ])
  func takesAddressesWithAPath(path: String, route: String) async throws {
    for inEnvironment in [false, true] {
      try await FakeServer.with({ _ in Self.noJobs }) { server in
        let address = server.address.replacing("http", with: inEnvironment ? " HTTP" : "http") + path
        let result = try await CommandLineTool.run(
          ["jobs", "list"] + (inEnvironment ? [] : ["--gateway", address]),
          environment: inEnvironment ? ["QWEN_IMAGE_GATEWAY": address] : [:])
        #expect(result.isSuccess, "\(result)")
        #expect(server.requests.first?.hasPrefix("GET \(route)?limit=20 HTTP/1.1\r\n") ?? false, "\(server.requests)")
      }
    }
  }

  @Test(arguments: [
    ("localhost:8080", "localhost:8080 lacks a scheme; write http://localhost:8080 or https://localhost:8080"),
    ("127.0.0.1", "127.0.0.1 lacks a scheme; write http://127.0.0.1 or https://127.0.0.1"),
    ("ftp://host", "ftp://host has the scheme ftp; a gateway is reached by http or https"),
    ("http://", "http:// names no host"),
    ("http://host:0", "http://host:0 has a port that is not from 1 to 65535"),
    ("http://host:99999/", "http://host:99999/ has a port that is not from 1 to 65535"),
    (
      "http://me:secret@host",
      "http://me:secret@host holds a user name; a gateway takes an API key instead, by --api-key or QWEN_IMAGE_API_KEY"
    ),
    ("http://host/?a=b", "http://host/?a=b must end with its path, without ? or #"),
    ("http://host:x", "http://host:x is not an address"),
  ])
  func saysHowAnAddressMustLook(address: String, message: String) async throws {
    let option = try await CommandLineTool.run(["generate", "--prompt", "p", "--gateway", address, "-o", "/dev/null"])
    #expect(option.status == .exited(1) && option.errors == "Error: --gateway: \(message)\n", "\(option)")
    let variable = try await CommandLineTool.run(["jobs", "list"], environment: ["QWEN_IMAGE_GATEWAY": address])
    #expect(
      variable.status == .exited(1) && variable.errors == "Error: QWEN_IMAGE_GATEWAY: \(message)\n", "\(variable)")
  }

  /// At once: a watched job whose gateway is lost is asked for again for a minute, which is the limit of this test.
  @Test func namesTheAddressWhereNothingListens() async throws {
    let server = try FakeServer { _ in nil }
    server.stop()
    for command in [["generate", "--prompt", "p", "-o", "/dev/null"], ["jobs", "list"], ["jobs", "watch", "job-1"]] {
      let result = try await CommandLineTool.run(command + ["--gateway", server.address])
      let sentence = "Error: no gateway can be reached at \(server.address): Connection refused. Start one ("
      #expect(result.status == .exited(1) && result.errors.hasPrefix(sentence), "\(result)")
    }
  }

  @Test func saysThatAServerIsNoGateway() async throws {
    let page = FakeServer.answer("501 Unsupported method ('POST')", "text/html", Array("<html>\n<p>no</p>".utf8))
    let proxy = FakeServer.answer("502 Bad Gateway", "text/html", Array("<html>".utf8))
    let cases: [([UInt8], String)] = [
      (page, "what answers there sent the status 501 and text/html"),
      (proxy, "what answers there sent the status 502 and text/html; perhaps a proxy whose gateway is away"),
      (FakeServer.answer("200 OK", "text/html", Array("<html>".utf8)), "its answer lacks what a gateway's has"),
      (FakeServer.json("{}"), "its answer lacks what a gateway's has"),
      (
        Array("SSH-2.0-OpenSSH_9.7\r\n".utf8),
        "what answers there does not speak HTTP; if it speaks TLS, write https://"
      ),
      // How a server of TLS answers a request that is none.
      ([0x15, 3, 1, 0, 2, 2, 22], "what answers there does not speak HTTP; if it speaks TLS, write https://"),
    ]
    for (answer, reason) in cases {
      let result = try await list { _ in answer }
      #expect(
        result.status == .exited(1) && result.errors.hasPrefix("Error: there is no gateway at http://127.0.0.1:"),
        "\(result)")
      #expect(result.errors.hasSuffix(": \(reason)\n"), "\(result)")
    }
    try await FakeServer.with({ _ in FakeServer.answer("200 OK", "text/html", Array("<html>".utf8)) }) { server in
      let result = try await CommandLineTool.run(["jobs", "show", "job-1", "--gateway", server.address])
      #expect(result.status == .exited(1) && result.errors.hasSuffix(": its answer is not JSON\n"), "\(result)")
    }
    for answer in [FakeServer.answer("200 OK", "text/html", []), Self.noJobs] {
      try await FakeServer.with({ _ in answer }) { server in
        let result = try await CommandLineTool.run([
          "generate", "--prompt", "p", "--gateway", server.address, "-o", "/dev/null",
        ])
        #expect(
          result.status == .exited(1)
            && result.errors.hasSuffix("what answers there does not send a stream of events\n"), "\(result)")
      }
    }
  }

  @Test func takesOnlyImages() async throws {
    let text = FakeServer.events([("image_generation.completed", #"{"b64_json":"PGh0bWw+"}"#)])
    for (command, answer) in [
      (["generate", "--prompt", "p"], text),
      (["jobs", "fetch", "job-1"], FakeServer.answer("200 OK", "text/html", Array("<html>".utf8))),
    ] {
      try await withFolder { folder in
        try await FakeServer.with({ _ in answer }) { server in
          let result = try await CommandLineTool.run(command + ["--gateway", server.address], directory: folder)
          #expect(
            result.status == .exited(1) && result.errors.contains("sent 6 bytes that are no PNG, WebP or JPEG file"),
            "\(result)")
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)
      }
    }
  }

  @Test func saysThatAServerDoesNotSpeakTLS() async throws {
    try await FakeServer.with({ _ in Self.noJobs }) { server in
      // The server waits for the end of the headers, which a client of TLS does not send: it must hang up first.
      let address = server.address.replacing("http", with: "https")
      let result = try await CommandLineTool.run(["jobs", "list", "--gateway", address, "--timeout", "1"])
      #expect(result.status == .exited(1) && result.errors.contains(address), "\(result)")
    }
    try await FakeServer.withGreeting("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n") { server in
      let address = server.address.replacing("http", with: "https")
      let result = try await CommandLineTool.run(["jobs", "list", "--gateway", address])
      #expect(
        result.errors
          == "Error: there is no gateway at \(address): what answers there does not speak TLS; try http:// instead\n",
        "\(result)")
    }
  }

  @Test func followsNoRedirect() async throws {
    let answer = FakeServer.answer(
      "308 Permanent Redirect", "text/html", [], headers: ["location: https://example.org/v1/jobs"])
    let result = try await list { _ in answer }
    #expect(
      result.errors.hasSuffix("redirects to https://example.org/v1/jobs; name that address with --gateway\n"),
      "\(result)")
  }

  @Test func saysWhatAGatewayRefuses() async throws {
    let cases: [(String, [String], [String], String)] = [
      (
        "401 Unauthorized", [], [],
        "the gateway asks for an API key (401); give it with --api-key or QWEN_IMAGE_API_KEY"
      ),
      ("401 Unauthorized", [], ["--api-key", "k"], "the gateway does not take this API key (401): because"),
      ("403 Forbidden", [], [], "the gateway refused the request (403): because"),
      ("404 Not Found", [], [], "the gateway refused the request (404): because"),
      (
        "429 Too Many Requests", ["retry-after: 7"], [],
        "the gateway refused the request (429): because; try again in 7 s"
      ),
      (
        "503 Service Unavailable", ["retry-after: 5"], [],
        "the gateway refused the request (503): because; try again in 5 s"
      ),
      ("503 Service Unavailable", ["retry-after: -5"], [], "the gateway refused the request (503): because"),
    ]
    for (status, headers, arguments, message) in cases {
      let answer = try FakeServer.error(status, "because", headers: headers)
      let result = try await list({ _ in answer }, arguments)
      #expect(result.status == .exited(1) && result.errors == "Error: \(message)\n", "\(result)")
    }
  }

  @Test func sendsTheKeyWithoutWhatSurroundsIt() async throws {
    try await FakeServer.with({ _ in Self.noJobs }) { server in
      let result = try await CommandLineTool.run(
        ["jobs", "list", "--gateway", server.address], environment: ["QWEN_IMAGE_API_KEY": " qk-1 \r\n"])
      #expect(
        result.isSuccess && server.requests.first?.lowercased().contains("authorization: bearer qk-1\r\n") ?? false,
        "\(result)")
      let refused = try await CommandLineTool.run(["jobs", "list", "--gateway", server.address, "--api-key", "a\nb"])
      #expect(
        refused.errors == "Error: --api-key or --key holds a character that a request cannot carry\n", "\(refused)")
    }
  }

  @Test func doesNotWaitForASilentServer() async throws {
    for command in [["generate", "--prompt", "p", "-o", "/dev/null"], ["jobs", "list"]] {
      try await FakeServer.with({ _ in nil }) { server in
        let result = try await CommandLineTool.run(command + ["--gateway", server.address, "--timeout", "0.3"])
        let message =
          "Error: the gateway at \(server.address) has not answered for 0.3 s; --timeout sets how long to wait\n"
        #expect(result.status == .exited(1) && result.errors == message, "\(result)")
      }
    }
    let bad = try await CommandLineTool.run(["jobs", "list", "--timeout", "-1"])
    #expect(
      bad.status == .exited(64) && bad.errors.contains("--timeout is -1.0; it must be from 0.1 to 86400 seconds"),
      "\(bad)")
  }

  @Test func saysThatAConnectionBroke() async throws {
    let result = try await list { _ in [] }
    #expect(result.errors.contains("the connection to the gateway at http://127.0.0.1:"), "\(result)")
    let half = FakeServer.answer("200 OK", "text/event-stream", Array(": still here\n\n".utf8))
    try await FakeServer.with({ _ in half }) { server in
      let result = try await CommandLineTool.run([
        "generate", "--prompt", "p", "--gateway", server.address, "-o", "/dev/null",
      ])
      #expect(result.errors == "Error: the gateway closed the connection before the image was complete\n", "\(result)")
    }
  }

  /// Names of jobs are parts of paths, whatever they hold.
  @Test func sendsNamesEscaped() async throws {
    try await FakeServer.with({ _ in Self.noJobs }) { server in
      _ = try await CommandLineTool.run(["jobs", "show", "../a?b#c d/é", "--gateway", server.address])
      _ = try await CommandLineTool.run(["jobs", "list", "--after", "a&limit=1", "--gateway", server.address])
      #expect(
        server.requests.map { String($0.prefix { $0 != "\r\n" }) } == [
          "GET /v1/jobs/%2E%2E%2Fa%3Fb%23c%20d%2F%C3%A9 HTTP/1.1", "GET /v1/jobs?limit=20&after=a%26limit%3D1 HTTP/1.1",
        ])
    }
  }

  /// A server that ends every stream at once is not asked without a pause.
  @Test func attachesAgainWithPauses() async throws {
    let job =
      #"{"id":"job-1","status":"running","created_at":1,"prompt":"p","size":"64x64","#
      + #""step":1,"steps":2,"n":1,"images":[]}"#
    let end = job.replacing("running", with: "succeeded")
    let start = ContinuousClock.now
    let answer: FakeServer.Answer = { request in
      if request.contains("/events") { return FakeServer.events([]) }
      return FakeServer.json(ContinuousClock.now - start < .seconds(2) ? job : end)
    }
    try await FakeServer.with(answer) { server in
      let result = try await CommandLineTool.run(["jobs", "watch", "job-1", "--gateway", server.address])
      #expect(result.isSuccess && result.text == "succeeded\n", "\(result)")
      #expect(server.requests.count < 20, "\(server.requests.count) requests in two seconds")
    }
  }
}
