import Foundation
import HTTPClient
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(5))) struct HTTPClientTests {
  private let client = HTTPClient(userAgent: "test/1", maxBufferedBytes: 1 << 16, environment: [:])

  @Test func aRequestArrivesAsItIs() async throws {
    let seen = Mutex<(header: String, body: [UInt8])?>(nil)
    let server = ScriptedServer { connection in
      let request = connection.readRequest()
      seen.withLock { $0 = request }
      connection.write("HTTP/1.1 100 Continue\r\nx: 1\r\n\r\n")
      connection.write("HTTP/1.1 201 Created\r\nX-One:  two: three \r\ncontent-length: 5\r\nx-one:\r\n\r\nhello")
    }
    var request = HTTPClient.Request(server.url("/a/b?c=d%20e"), method: "POST")
    request.headers = [("content-type", "application/json"), ("x-empty", "")]
    // Beyond a mebibyte libcurl would ask for leave by `Expect: 100-continue`.
    request.body = Array(repeating: 0, count: 3_000_000)
    let response = try await client.execute(request)
    #expect(response.status == 201)
    #expect(response.headers.map { "\($0.name)=\($0.value)" } == ["X-One=two: three", "content-length=5", "x-one="])
    #expect(try await response.body.collect(upTo: 5) == Array("hello".utf8))
    let (header, body) = try #require(seen.withLock { $0 })
    #expect(header.hasPrefix("POST /a/b?c=d%20e HTTP/1.1\r\n"))
    for field in ["Host: 127.0.0.1:\(server.port)", "User-Agent: test/1", "content-type: application/json", "x-empty:"]
    {
      #expect(header.contains("\r\n\(field)\r\n"), "\(field) in \(header)")
    }
    #expect(!header.lowercased().contains("expect:"))
    #expect(body == request.body)
  }

  @Test(arguments: ["GET", "DELETE"]) func methodsWithoutABody(method: String) async throws {
    let server = ScriptedServer { connection in
      let header = connection.readRequest()?.header ?? ""
      connection.write("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n\(header.prefix(6))")
    }
    let response = try await client.execute(HTTPClient.Request(server.url(), method: method))
    #expect(try await response.body.collect(upTo: 6) == Array("\(method) / ".utf8.prefix(6)))
  }

  @Test func aHeadRequestHasNoBody() async throws {
    let server = ScriptedServer { connection in
      while connection.readRequest() != nil { connection.write("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n") }
    }
    let response = try await client.execute(HTTPClient.Request(server.url(), method: "HEAD"))
    #expect(response.status == 200 && response.headers.map(\.value) == ["1000"])
    #expect(try await response.body.collect(upTo: 0) == [])
  }

  @Test func connectionsAreUsedAgain() async throws {
    let server = ScriptedServer { connection in
      while connection.readRequest() != nil { connection.write("HTTP/1.1 204 No Content\r\n\r\n") }
    }
    for _ in 0..<3 { #expect(try await client.execute(HTTPClient.Request(server.url())).status == 204) }
    #expect(server.connectionCount == 1)
  }

  /// The server sends a piece when the one before has been read, so this ends only if each is handed on at once.
  @Test func piecesComeBeforeTheResponseEnds() async throws {
    let mayContinue = DispatchSemaphore(value: 0)
    let server = ScriptedServer { connection in
      _ = connection.readRequest()
      connection.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
      for piece in ["one", "two", "three"] {
        mayContinue.wait()
        connection.write("\(String(piece.utf8.count, radix: 16))\r\n\(piece)\r\n")
      }
      connection.write("0\r\n\r\n")
    }
    let response = try await client.execute(HTTPClient.Request(server.url()))
    #expect(response.status == 200)
    var pieces: [String] = []
    mayContinue.signal()
    for try await piece in response.body {
      pieces.append(String(decoding: piece, as: UTF8.self))
      mayContinue.signal()
    }
    #expect(pieces == ["one", "two", "three"])
  }

  @Test func aLongBodyWaitsForItsReader() async throws {
    let length = 20 << 20
    let sent = Mutex(0)
    let server = ScriptedServer { connection in
      _ = connection.readRequest()
      connection.write("HTTP/1.1 200 OK\r\ncontent-length: \(length)\r\n\r\n")
      for index in 0..<320 {
        guard connection.write(Array(repeating: UInt8(truncatingIfNeeded: index), count: length / 320)) else { return }
        sent.withLock { $0 += length / 320 }
      }
    }
    let response = try await client.execute(HTTPClient.Request(server.url()))
    // What is neither read nor in the client's buffer fills the sockets' buffers, and then the server waits.
    var before = -1
    while sent.withLock({ $0 }) != before {
      before = sent.withLock { $0 }
      try await Task.sleep(for: .milliseconds(200))
    }
    #expect(before < length, "all was taken in though nothing read it")
    let bytes = try await response.body.collect(upTo: length)
    #expect(bytes.count == length)
    #expect(bytes.indices.allSatisfy { bytes[$0] == UInt8(truncatingIfNeeded: $0 / (length / 320)) })
  }

  @Test func aBodyBeyondTheLimitIsAnError() async throws {
    let server = ScriptedServer { connection in
      _ = connection.readRequest()
      connection.write("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n" + String(repeating: "x", count: 1001))
    }
    let response = try await client.execute(HTTPClient.Request(server.url()))
    let error = await #expect(throws: HTTPClientError.self) { try await response.body.collect(upTo: 1000) }
    #expect(error?.kind == .tooLong && error?.message.contains("1000 bytes") == true)
  }

  @Test func aBodyThatBreaksOffIsAnError() async throws {
    let server = ScriptedServer { connection in
      _ = connection.readRequest()
      connection.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    }
    let response = try await client.execute(HTTPClient.Request(server.url()))
    let error = await #expect(throws: HTTPClientError.self) { try await response.body.collect(upTo: 1000) }
    #expect(error?.kind == .broken)
  }

  @Test func aConnectionThatIsClosedAtOnceIsAnError() async throws {
    let server = ScriptedServer { connection in _ = connection.readRequest() }
    let error = await #expect(throws: HTTPClientError.self) {
      try await client.execute(HTTPClient.Request(server.url()))
    }
    #expect(error?.kind == .broken)
  }

  @Test func nothingThatIsHTTPIsAnError() async throws {
    let server = ScriptedServer { connection in
      _ = connection.readRequest()
      connection.write("SSH-2.0-OpenSSH_9.2\r\n")
    }
    let error = await #expect(throws: HTTPClientError.self) {
      try await client.execute(HTTPClient.Request(server.url()))
    }
    #expect(error?.kind == .noHTTP)
  }

  @Test func aPortWhereNothingListensIsNamed() async throws {
    let port = ScriptedServer { _ in }.port
    let error = await #expect(throws: HTTPClientError.self) {
      try await client.execute(HTTPClient.Request("http://127.0.0.1:\(port)/"))
    }
    #expect(error?.kind == .unreachable)
    #expect(error?.message.contains("127.0.0.1 port \(port)") == true, "\(error?.message ?? "")")
  }

  @Test func aNameThatIsNoHostsIsNamed() async throws {
    let error = await #expect(throws: HTTPClientError.self) {
      try await client.execute(HTTPClient.Request("http://no-such-host.invalid/"))
    }
    #expect(error?.kind == .unreachable)
    #expect(error?.message.contains("no-such-host.invalid") == true)
  }

  @Test(arguments: [
    "ftp://127.0.0.1/", "file:///etc/passwd", "http://", "http://127.0.0.1:99999/", "http://127.0.0.1/a b",
  ])
  func malformedAddressesAreRefused(url: String) async throws {
    let error = await #expect(throws: HTTPClientError.self) { try await client.execute(HTTPClient.Request(url)) }
    #expect(error?.kind == .badRequest, "\(url): \(error?.message ?? "")")
  }

  @Test(arguments: [("a", "b\r\nc: d"), ("a\r\nc", "d"), ("a", "b\0c"), ("", "b"), ("a b", "c"), ("a:", "b")])
  func headerFieldsCannotHideOthers(name: String, value: String) async throws {
    var request = HTTPClient.Request("http://127.0.0.1:1/")
    request.headers = [(name, value)]
    let bad = request
    let error = await #expect(throws: HTTPClientError.self) { try await client.execute(bad) }
    #expect(error?.kind == .badRequest)
  }

  @Test func theTimeLimitBoundsTheHeaderAndTheBody() async throws {
    let server = ScriptedServer { connection in
      let request = connection.readRequest()
      if request?.header.hasPrefix("GET /body") == true {
        connection.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
      }
      _ = connection.waitUntilClosed()
    }
    let early = await #expect(throws: HTTPClientError.self) {
      try await client.execute(HTTPClient.Request(server.url("/header"), timeout: .milliseconds(200)))
    }
    #expect(early?.kind == .timedOut)
    let late = await #expect(throws: HTTPClientError.self) {
      try await client.execute(HTTPClient.Request(server.url("/body"), timeout: .milliseconds(500))).body.collect(
        upTo: 10)
    }
    #expect(late?.kind == .timedOut)
  }

  @Test func redirectionsAreFollowedFiveTimes() async throws {
    let server = ScriptedServer { connection in
      while let header = connection.readRequest()?.header {
        let number = Int(header.split(separator: " ")[1].dropFirst()) ?? 0
        connection.write(
          number == 0
            ? "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone"
            : "HTTP/1.1 307 Temporary Redirect\r\nlocation: /\(number - 1)\r\ncontent-length: 5\r\n\r\nthere")
      }
    }
    let response = try await client.execute(HTTPClient.Request(server.url("/5")))
    #expect(response.status == 200)
    #expect(try await response.body.collect(upTo: 4) == Array("done".utf8))
    await #expect(throws: HTTPClientError.self) { try await client.execute(HTTPClient.Request(server.url("/6"))) }
  }

  @Test func redirectionsDoNotLeadOutOfHTTP() async throws {
    let server = ScriptedServer { connection in
      _ = connection.readRequest()
      connection.write("HTTP/1.1 302 Found\r\nlocation: file:///etc/passwd\r\ncontent-length: 0\r\n\r\n")
    }
    let error = await #expect(throws: HTTPClientError.self) {
      try await client.execute(HTTPClient.Request(server.url()))
    }
    #expect(error?.kind == .noHTTP)
  }

  @Test func aJobsAddressIsNoRedirection() async throws {
    let server = ScriptedServer { connection in
      _ = connection.readRequest()
      connection.write("HTTP/1.1 202 Accepted\r\nlocation: /v1/jobs/1\r\ncontent-length: 2\r\n\r\n{}")
    }
    let response = try await client.execute(HTTPClient.Request(server.url(), method: "POST"))
    #expect(response.status == 202)
    #expect(try await response.body.collect(upTo: 2) == Array("{}".utf8))
  }

  /// Before the header, between pieces, and when the response is dropped: the server sees its connection closed.
  @Test(arguments: ["/header", "/body", "/dropped"]) func aReaderThatLeavesClosesTheConnection(path: String)
    async throws
  {
    let (events, continuation) = AsyncStream<String>.makeStream()
    let server = ScriptedServer { connection in
      _ = connection.readRequest()
      if path != "/header" { connection.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n") }
      continuation.yield("reached")
      continuation.yield(connection.waitUntilClosed() ? "closed" : "open")
    }
    var iterator = events.makeAsyncIterator()
    if path == "/dropped" {
      #expect(try await client.execute(HTTPClient.Request(server.url(path))).status == 200)
      #expect(await iterator.next() == "reached")
    } else {
      let task = Task { [client] in
        try await client.execute(HTTPClient.Request(server.url(path))).body.collect(upTo: 100)
      }
      #expect(await iterator.next() == "reached")
      task.cancel()
      await #expect(throws: CancellationError.self) { try await task.value }
    }
    #expect(await iterator.next() == "closed")
  }

  @Test func aClientThatIsShutDownRefusesAndEndsWhatRuns() async throws {
    let (events, continuation) = AsyncStream<Void>.makeStream()
    let server = ScriptedServer { connection in
      _ = connection.readRequest()
      continuation.yield()
      _ = connection.waitUntilClosed()
    }
    let task = Task { [client] in try await client.execute(HTTPClient.Request(server.url())) }
    var iterator = events.makeAsyncIterator()
    await iterator.next()
    client.shutDown()
    await #expect(throws: HTTPClientError.self) { _ = try await task.value }
    await #expect(throws: HTTPClientError.self) { _ = try await client.execute(HTTPClient.Request(server.url())) }
    client.shutDown()
  }

  @Test func manyExchangesAtOnceGetTheirOwnAnswers() async throws {
    let server = ScriptedServer { connection in
      while let header = connection.readRequest()?.header {
        let path = header.split(separator: " ")[1]
        connection.write("HTTP/1.1 200 OK\r\ncontent-length: \(path.utf8.count)\r\n\r\n\(path)")
      }
    }
    try await withThrowingTaskGroup(of: (Int, String).self) { group in
      for number in 0..<50 {
        group.addTask { [client] in
          let response = try await client.execute(HTTPClient.Request(server.url("/\(number)")))
          return (number, String(decoding: try await response.body.collect(upTo: 100), as: UTF8.self))
        }
      }
      for try await (number, path) in group { #expect(path == "/\(number)") }
    }
    #expect(server.connectionCount <= 8)
  }
}
