import StrictJSON

/// One client's conversation with a server: takes messages, answers them, and keeps the calls that run.
public actor MCPSession {
  /// Takes a message that is to be sent.
  public typealias Sender = @Sendable (JSON) async -> Void

  /// Calls that one client may have running.
  public static let maxCalls = 16
  /// Messages of a batch, which one revision of the protocol has.
  private static let maxBatch = 16
  private static let batchVersion = "2025-03-26"
  /// Nesting and values of a message.
  private static let maxDepth = 32, maxValues = 10_000

  private let server: MCPServer
  /// Agreed on by `initialize`.
  private var revision: Revision?
  private var calls: [JSON: Task<Void, Never>] = [:]

  /// A conversation that has not begun.
  public init(_ server: MCPServer) { self.server = server }

  /// Takes what a client has sent: a message, or a batch of them.
  ///
  /// - Parameters:
  ///   - bytes: JSON; the caller bounds its length.
  ///   - send: is called with what is to be sent, in order.
  /// - Returns: the call of a tool that it began, which sends until it has ended; nil: everything was sent.
  @discardableResult
  public func receive(_ bytes: [UInt8], send: @escaping Sender) async -> Task<Void, Never>? {
    let value: JSON
    do throws(JSONError) { value = try JSON(bytes, maxDepth: Self.maxDepth, maxValues: Self.maxValues) } catch {
      await send(RPCError(.parse, "the message is not JSON: \(error)").message())
      return nil
    }
    return await receive(value, send: send)
  }

  /// The same for a document.
  @discardableResult
  public func receive(_ value: JSON, send: @escaping Sender) async -> Task<Void, Never>? {
    guard case .array(let messages) = value else { return await take(value, send: send) }
    guard revision == .handshake(Self.batchVersion) else {
      let reason = "batches are of the protocol revision \(Self.batchVersion): send one message at a time"
      await send(RPCError(.invalidRequest, reason).message())
      return nil
    }
    guard (1...Self.maxBatch).contains(messages.count) else {
      let reason = "the batch has \(messages.count) messages; 1 to \(Self.maxBatch) are taken"
      await send(RPCError(.invalidRequest, reason).message())
      return nil
    }
    return Task { await takeBatch(messages, send: send) }
  }

  /// Ends all calls: the client is gone.
  public func end() {
    for call in calls.values { call.cancel() }
  }

  /// Waits until no call runs any more.
  public func waitForCalls() async {
    while let call = calls.first { await call.value.value }
  }

  /// Answers are sent together, notifications at once.
  private func takeBatch(_ messages: [JSON], send: @escaping Sender) async {
    let answers = Collector()
    for message in messages {
      let call = await take(message) { sent in
        if sent["method"] == nil { await answers.append(sent) } else { await send(sent) }
      }
      await call?.value
    }
    let collected = await answers.messages
    if !collected.isEmpty { await send(.array(collected)) }
  }

  private actor Collector {
    private(set) var messages: [JSON] = []
    func append(_ message: JSON) { messages.append(message) }
  }

  // MARK: Messages

  private func take(_ value: JSON, send: @escaping Sender) async -> Task<Void, Never>? {
    let message: RPCMessage
    do throws(RPCError) { message = try RPCMessage(value) } catch {
      await send(error.message(for: RPCMessage.id(of: value)))
      return nil
    }
    switch message {
    case .response: return nil
    case .notification(let method, let params):
      if method == "notifications/cancelled", let id = params["requestId"] { calls[id]?.cancel() }
      return nil
    case .request(let id, let method, let params):
      do throws(RPCError) {
        if method == "tools/call" { return try begin(id, params, send) }
        let result = try answer(method, params)
        await send(["jsonrpc": "2.0", "id": id, "result": .object(result)])
      } catch { await send(error.message(for: id)) }
      return nil
    }
  }

  private func answer(_ method: String, _ params: JSONObject) throws(RPCError) -> JSONObject {
    let stateless = try RequestMeta.revision(of: params)
    switch method {
    case "initialize" where stateless == nil: return try initialize(params)
    case "ping": return Self.completed([:], stateless)
    case "server/discover":
      guard stateless != nil else {
        throw RPCError(.invalidParams, "_meta lacks \(RequestMeta.version), which every request of that revision has")
      }
      return Self.completed(server.discovered, stateless)
    case "tools/list":
      let revision = try current(stateless)
      if let cursor = params["cursor"], cursor != .null { throw RPCError(.invalidParams, "there is no further page") }
      return Self.completed(server.listed(revision), stateless)
    default: throw RPCError(.methodNotFound, "there is no method \"\(method.prefix(80))\"")
    }
  }

  private func initialize(_ params: JSONObject) throws(RPCError) -> JSONObject {
    guard revision == nil else { throw RPCError(.invalidRequest, "initialize was sent before") }
    guard let requested = params["protocolVersion"]?.text else {
      throw RPCError(.invalidParams, "protocolVersion is missing, or is no string")
    }
    let version = MCPServer.agreed(requested)
    revision = .handshake(version)
    return server.initialized(version)
  }

  /// The revision of a request: its own, or what was agreed on.
  private func current(_ stateless: Revision?) throws(RPCError) -> Revision {
    guard let revision = stateless ?? revision else {
      throw RPCError(.invalidRequest, "send initialize first, or a protocol revision with every request")
    }
    return revision
  }

  private static func completed(_ result: JSONObject, _ stateless: Revision?) -> JSONObject {
    guard stateless != nil else { return result }
    return result.merging(["resultType": "complete"]) { $1 }
  }

  // MARK: Calls

  private func begin(_ id: JSON, _ params: JSONObject, _ send: @escaping Sender) throws(RPCError) -> Task<Void, Never> {
    let stateless = try RequestMeta.revision(of: params), revision = try current(stateless)
    guard let name = params["name"]?.text else { throw RPCError(.invalidParams, "name is missing, or is no string") }
    guard let tool = server.provider.tools.first(where: { $0.name == name }) else {
      let known = server.provider.tools.map(\.name).joined(separator: ", ")
      throw RPCError(.invalidParams, "there is no tool \"\(name.prefix(80))\"; there are \(known)")
    }
    let arguments: JSONObject
    switch params["arguments"] {
    case nil, .null: arguments = [:]
    case .object(let members): arguments = members
    case let other?: throw RPCError(.invalidParams, "arguments must be an object, not \(other.kind)")
    }
    let token = params["_meta"]?["progressToken"]
    guard token.map(RPCMessage.isID) ?? true else {
      throw RPCError(.invalidParams, "progressToken must be a string or a whole number")
    }
    guard calls[id] == nil else { throw RPCError(.invalidRequest, "a call with this id runs already") }
    guard calls.count < Self.maxCalls else {
      throw RPCError(.busy, "\(calls.count) calls run already, the limit of a client; wait for one of them")
    }
    let call = Task { [server] in
      let result: ToolResult
      if let problem = SchemaCheck.problem(of: .object(arguments), tool.inputSchema) {
        result = .error("\(problem). Correct the arguments of \(name), and call it again.")
      } else {
        result = await server.provider.call(name, arguments, Self.context(token, send))
      }
      ended(id)
      // By the protocol a call that was cancelled has no answer.
      guard !Task.isCancelled else { return }
      let members = Self.completed(MCPServer.result(result, revision), stateless)
      await send(["jsonrpc": "2.0", "id": id, "result": .object(members)])
    }
    calls[id] = call
    return call
  }

  private func ended(_ id: JSON) { calls[id] = nil }

  private static func context(_ token: JSON?, _ send: @escaping Sender) -> ToolCallContext {
    guard let token else { return ToolCallContext { _, _, _ in } }
    let last = LastProgress()
    return ToolCallContext { progress, total, message in
      guard await last.rises(to: progress) else { return }
      await send([
        "jsonrpc": "2.0", "method": "notifications/progress",
        "params": [
          "progressToken": token, "progress": JSON(progress), "total": JSON(total), "message": .string(message),
        ],
      ])
    }
  }

  /// What was reported: progress may not fall or stay.
  private actor LastProgress {
    private var value = -Double.infinity

    func rises(to progress: Double) -> Bool {
      guard progress > value, !Task.isCancelled else { return false }
      value = progress
      return true
    }
  }
}
