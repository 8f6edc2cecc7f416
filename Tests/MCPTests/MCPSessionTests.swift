import MCP
import StrictJSON
import TestSupport
import Testing

/// Tools whose calls the tests look into.
actor WaitingTools: ToolProvider {
  /// Calls that have begun and not ended.
  private var waiting: [String: CheckedContinuation<Void, Never>] = [:]
  private var begun: Set<String> = []
  private(set) var wasCancelled = false

  nonisolated let tools = [
    Tool(
      name: "echo", title: "Echo", description: "Gives back what it is given.",
      inputSchema: [
        "type": "object", "required": ["text"], "additionalProperties": false,
        "properties": ["text": ["type": "string", "maxLength": 5], "count": ["type": "integer", "minimum": 1]],
      ], isReadOnly: true),
    Tool(name: "wait", title: "Wait", description: "Waits.", inputSchema: ["type": "object"]),
    Tool(name: "link", title: "Link", description: "Gives a link.", inputSchema: ["type": "object"]),
  ]

  func call(_ name: String, _ arguments: JSONObject, _ context: ToolCallContext) async -> ToolResult {
    switch name {
    case "echo":
      for step in [1.0, 2, 2, 1, 3] { await context.progress(step, of: 3, "step \(Int(step))") }
      let text = arguments["text"]?.text ?? ""
      return ToolResult(content: [.text(text)], structuredContent: ["text": .string(text)])
    case "link":
      return ToolResult(content: [["type": "resource_link", "uri": "file:///a.png", "name": "a"]])
    default:
      let key = arguments["key"]?.text ?? ""
      await withTaskCancellationHandler {
        await withCheckedContinuation { continuation in
          waiting[key] = continuation
          begun.insert(key)
        }
      } onCancel: {
        Task { await self.release(key) }
      }
      if Task.isCancelled { wasCancelled = true }
      return ToolResult(content: [.text("waited")])
    }
  }

  func release(_ key: String) { waiting.removeValue(forKey: key)?.resume() }

  /// Waits until a call has begun.
  func until(begun key: String) async { while !begun.contains(key) { await Task.yield() } }
}

/// A session, and all that it has sent.
actor Conversation {
  let session: MCPSession
  private(set) var sent: [JSON] = []

  init(_ bench: WaitingTools = WaitingTools()) {
    session = MCPSession(
      MCPServer(name: "test", title: "Test", version: "1", instructions: "Use it.", provider: bench))
  }

  private func append(_ message: JSON) { sent.append(message) }

  /// Sends a message; the call that it began is returned.
  @discardableResult
  func send(_ text: String) async -> Task<Void, Never>? {
    await session.receive(Array(text.utf8)) { await self.append($0) }
  }

  /// Sends a message, and waits for what it gives.
  func ask(_ text: String) async -> [JSON] {
    let count = sent.count
    await send(text)?.value
    return Array(sent[count...])
  }

  /// The one answer to a request with the id 1.
  func result(_ method: String, _ params: String = "{}") async throws -> JSON {
    let answers = await ask(#"{"jsonrpc":"2.0","id":1,"method":"\#(method)","params":\#(params)}"#)
    #expect(answers.count == 1 && answers[0]["jsonrpc"] == "2.0" && answers[0]["id"] == 1, "\(answers)")
    return try #require(answers.first)
  }

  func initialize(_ version: String = "2025-11-25") async throws -> JSON {
    try await result("initialize", #"{"protocolVersion":"\#(version)","capabilities":{}}"#)
  }
}

@Suite("Sessions of the Model Context Protocol", .timeLimit(.minutes(1)))
struct MCPSessionTests {
  static let stateless =
    #""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#

  @Test(arguments: [
    ("2025-11-25", "2025-11-25"), ("2025-06-18", "2025-06-18"), ("2025-03-26", "2025-03-26"),
    ("2024-11-05", "2024-11-05"), ("1999-01-01", "2025-11-25"), ("2026-07-28", "2025-11-25"),
  ])
  func aRevisionIsAgreedOn(_ requested: String, _ agreed: String) async throws {
    let conversation = Conversation()
    let begun = try await conversation.initialize(requested)
    #expect(begun["result"]?["protocolVersion"]?.text == agreed)
    #expect(begun["result"]?["serverInfo"]?["name"] == "test" && begun["result"]?["instructions"] == "Use it.")
    #expect(begun["result"]?["capabilities"] == ["tools": ["listChanged": false]])
    #expect(try await conversation.initialize()["error"]?["code"] == -32600, "once")
    let tools = try await conversation.result("tools/list")["result"]?["tools"]?.elements ?? []
    #expect(tools.map { $0["name"]?.text } == ["echo", "wait", "link"])
    #expect(tools[0]["annotations"]?["readOnlyHint"] == true && tools[0]["inputSchema"]?["required"] == ["text"])
    #expect(tools[0]["ttlMs"] == nil)
  }

  @Test func aRevisionWithoutAHandshakeIsSpokenAtOnce() async throws {
    let conversation = Conversation()
    let found = try await conversation.result("server/discover", "{\(Self.stateless)}")
    let result = try #require(found["result"])
    #expect(result["supportedVersions"]?[0] == "2026-07-28" && result["resultType"] == "complete")
    #expect(result["cacheScope"] == "public" && (result["ttlMs"]?.integer ?? -1) > 0)
    #expect(result["_meta"]?["io.modelcontextprotocol/serverInfo"]?["version"] == "1")
    let list = try await conversation.result("tools/list", "{\(Self.stateless)}")
    #expect(list["result"]?["resultType"] == "complete" && list["result"]?["ttlMs"] != nil)
    let params = #"{"name":"echo","arguments":{"text":"a"},\#(Self.stateless)}"#
    let call = try await conversation.result("tools/call", params)
    #expect(call["result"]?["resultType"] == "complete" && call["result"]?["structuredContent"] == ["text": "a"])
    let other = Self.stateless.replacing("2026-07-28", with: "2099-01-01")
    let unknown = try await conversation.result("tools/list", "{\(other)}")
    #expect(unknown["error"]?["code"] == -32022)
    #expect(unknown["error"]?["data"] == ["supported": ["2026-07-28"], "requested": "2099-01-01"])
    let incomplete = #"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#
    #expect(try await conversation.result("tools/list", incomplete)["error"]?["code"] == -32602)
    #expect(try await conversation.result("server/discover")["error"]?["code"] == -32602)
  }

  @Test(arguments: [
    ("x", -32700), ("{", -32700), (#"{"a":1,"a":2}"#, -32700), (String(repeating: "[", count: 40), -32700),
    ("[]", -32600), ("7", -32600), ("{}", -32600), (#"{"jsonrpc":"2.0","id":1}"#, -32600),
    (#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, -32600), (#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, -32600),
    (#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, -32600), (#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600),
    (#"{"jsonrpc":"2.0","id":1,"method":7}"#, -32600), (#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, -32600),
    (#"{"jsonrpc":"2.0","id":1,"method":"nothing"}"#, -32601),
    (#"{"jsonrpc":"2.0","id":1,"method":"x","params":[]}"#, -32602),
    (#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#, -32602),
    (#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, -32600),
  ])
  func whatIsNoMessageIsAnsweredWithACode(_ text: String, _ code: Int) async throws {
    let conversation = Conversation()
    let answers = await conversation.ask(text)
    #expect(answers.count == 1 && answers[0]["error"]?["code"]?.integer == code, "\(answers)")
    #expect(answers[0]["error"]?["message"]?.text?.isEmpty == false && answers[0]["id"] != nil)
    #expect(try await conversation.result("ping")["result"] == [:], "it serves on")
  }

  /// A trap ends the process, and so the test; whatever comes, the next message is served.
  @Test func damagedMessagesNeverTrap() async throws {
    let conversation = Conversation()
    _ = try await conversation.initialize("2025-03-26")
    let messages = [
      #"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"echo","arguments":{"text":"a","count":2}}}"#,
      #"{"jsonrpc":"2.0","id":"x","method":"tools/list","params":{\#(Self.stateless)}}"#,
      #"[{"jsonrpc":"2.0","id":1,"method":"ping"},"#
        + #"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}]"#,
      #"{"jsonrpc":"2.0","id":6,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#,
    ].map { Array($0.utf8) }
    let pieces = ["9999999999999999999", "1e400", "null", "[]", "{}", "true", "\"", ",", "-1", "\\u0000"]
    var random = TestRandom("protocol messages")
    for _ in 0..<3000 {
      var message = messages.randomElement(using: &random) ?? []
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        let place = Int.random(in: 0..<message.count, using: &random)
        let end = min(message.count, place + Int.random(in: 0...6, using: &random))
        message.replaceSubrange(place..<end, with: Array((pieces.randomElement(using: &random) ?? "").utf8))
      }
      await conversation.send(String(decoding: message, as: UTF8.self))?.value
    }
    #expect(try await conversation.result("ping")["result"] == [:])
  }

  @Test func notificationsAndAnswersAreNotAnswered() async throws {
    let conversation = Conversation()
    for text in [
      #"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, #"{"jsonrpc":"2.0","method":"x","params":{"a":1}}"#,
      #"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}"#,
      #"{"jsonrpc":"2.0","id":5,"result":{}}"#, #"{"jsonrpc":"2.0","id":5,"error":{"code":1,"message":"m"}}"#,
    ] { #expect(await conversation.ask(text) == []) }
  }

  @Test func progressRisesAndIsForThoseWhoAsk() async throws {
    let conversation = Conversation()
    _ = try await conversation.initialize()
    let quiet = await conversation.ask(
      #"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"echo","arguments":{"text":"hi"}}}"#)
    #expect(quiet.count == 1 && quiet[0]["id"] == "a" && quiet[0]["result"]?["isError"] == false)
    #expect(quiet[0]["result"]?["content"] == [["type": "text", "text": "hi"]])
    let all = await conversation.ask(
      #"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":"#
        + #"{"name":"echo","arguments":{"text":"hi"},"_meta":{"progressToken":"t"}}}"#)
    #expect(all.count == 4 && all[3]["result"] != nil)
    #expect(all.prefix(3).map { $0["params"]?["progress"] } == [1, 2, 3])
    #expect(all[0]["method"] == "notifications/progress" && all[0]["params"]?["progressToken"] == "t")
    #expect(all[0]["params"]?["total"] == 3 && all[0]["params"]?["message"] == "step 1")
  }

  @Test func wrongArgumentsAreForTheModelWrongCallsAreNot() async throws {
    let conversation = Conversation()
    _ = try await conversation.initialize()
    for (arguments, text) in [
      ("{}", "text is missing"), (#"{"text":7}"#, "a string"), (#"{"text":"toolong"}"#, "the limit is 5"),
      (#"{"text":"a","count":0}"#, "at least 1"), (#"{"text":"a","count":1.5}"#, "whole number"),
      (#"{"text":"a","other":1}"#, "other is not known"),
    ] {
      let answer = try await conversation.result("tools/call", #"{"name":"echo","arguments":\#(arguments)}"#)
      #expect(answer["result"]?["isError"] == true, "\(arguments)")
      #expect(answer["result"]?["content"]?[0]?["text"]?.text?.contains(text) == true, "\(answer)")
    }
    for params in [
      "{}", #"{"name":"none"}"#, #"{"name":"echo","arguments":[]}"#,
      #"{"name":"echo","arguments":{"text":"a"},"_meta":{"progressToken":true}}"#,
    ] { #expect(try await conversation.result("tools/call", params)["error"]?["code"] == -32602, "\(params)") }
    #expect(try await conversation.result("tools/list", #"{"cursor":"x"}"#)["error"]?["code"] == -32602)
  }

  @Test func aCancelledCallHasNoAnswer() async throws {
    let bench = WaitingTools(), conversation = Conversation(bench)
    _ = try await conversation.initialize()
    let before = await conversation.sent.count
    let call = await conversation.send(
      #"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"wait","arguments":{"key":"k"}}}"#)
    await bench.until(begun: "k")
    let twice = await conversation.ask(#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"wait"}}"#)
    #expect(twice[0]["error"]?["code"] == -32600, "the id is in use")
    // Another message is served meanwhile.
    #expect(try await conversation.result("ping")["result"] == [:])
    await conversation.send(#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#)
    await call?.value
    #expect(await bench.wasCancelled)
    #expect(await conversation.sent.count == before + 2)
  }

  @Test func callsAreLimitedAndEndWithTheClient() async throws {
    let bench = WaitingTools(), conversation = Conversation(bench)
    _ = try await conversation.initialize()
    for index in 0..<MCPSession.maxCalls {
      let params = #"{"name":"wait","arguments":{"key":"\#(index)"}}"#
      await conversation.send(#"{"jsonrpc":"2.0","id":"c\#(index)","method":"tools/call","params":\#(params)}"#)
      await bench.until(begun: "\(index)")
    }
    #expect(try await conversation.result("tools/call", #"{"name":"wait"}"#)["error"]?["code"] == -32000)
    await conversation.session.end()
    await conversation.session.waitForCalls()
    #expect(await bench.wasCancelled)
    let echoed = try await conversation.result("tools/call", #"{"name":"echo","arguments":{"text":"a"}}"#)
    #expect(echoed["result"]?["isError"] == false, "there is space again")
  }

  @Test func batchesAreOfOneRevision() async throws {
    let conversation = Conversation()
    _ = try await conversation.initialize("2025-03-26")
    let batch =
      #"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"x"},7,"#
      + #"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"echo","arguments":{"text":"a"}}}]"#
    let answers = await conversation.ask(batch)
    #expect(answers.count == 1 && answers[0].elements?.map { $0["id"] } == [1, .null, 2], "\(answers)")
    #expect(await conversation.ask(#"[{"jsonrpc":"2.0","method":"x"}]"#) == [])
    let many = "[\(Array(repeating: #"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, count: 17).joined(separator: ","))]"
    #expect(await conversation.ask(many)[0]["error"]?["code"] == -32600)
  }

  /// Older clients know neither links nor structured content.
  @Test func resultsAreWhatTheRevisionHas() async throws {
    for (version, block) in [
      ("2025-06-18", ["type": "resource_link", "uri": "file:///a.png", "name": "a"] as JSON),
      ("2024-11-05", ["type": "text", "text": "file:///a.png"]),
    ] {
      let conversation = Conversation()
      _ = try await conversation.initialize(version)
      #expect(try await conversation.result("tools/call", #"{"name":"link"}"#)["result"]?["content"]?[0] == block)
      let echo = try await conversation.result("tools/call", #"{"name":"echo","arguments":{"text":"a"}}"#)
      #expect((echo["result"]?["structuredContent"] != nil) == (version > "2025"))
    }
  }
}
