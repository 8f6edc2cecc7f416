import Foundation
import HTTPTypes
import Hummingbird
import MCP
import StrictJSON

/// A message that came by HTTP, with what its header says of it.
struct MCPExchange: Sendable {
  private static let versionKey = "io.modelcontextprotocol/protocolVersion"

  let value: JSON
  let request: Request
  /// Whether the answer may be a stream of events.
  let acceptsEvents: Bool

  /// Whether it is of a revision without sessions: its header or itself says so.
  var isStateless: Bool {
    request.headers[.mcpProtocolVersion].map { MCPServer.statelessVersions.contains($0) } ?? false
      || value["params"]?["_meta"]?[Self.versionKey] != nil
  }

  var isInitialize: Bool { value["method"] == "initialize" }

  /// Whether any message in it is a request, or no message at all, which an error answers.
  var expectsAnswer: Bool {
    guard let messages = value.elements else { return Self.expectsAnswer(value) }
    return messages.isEmpty || messages.contains { Self.expectsAnswer($0) }
  }

  private static func expectsAnswer(_ message: JSON) -> Bool {
    guard case .object(let members) = message else { return true }
    return members["method"] != nil ? members["id"] != nil : members["result"] == nil && members["error"] == nil
  }

  /// What an error about it is sent under.
  var id: JSON {
    switch value["id"] {
    case .string(let text)?: .string(text)
    case .number(let number)?: .number(number)
    default: .null
    }
  }

  /// Where the header contradicts the message, which routers read no more of; nil: nowhere.
  var mismatch: RPCError? {
    if value.elements != nil { return RPCError(.invalidRequest, "send one message at a time") }
    let headers = request.headers
    for name in [HTTPField.Name.mcpProtocolVersion, .mcpMethod, .mcpName] where headers[values: name].count > 1 {
      return RPCError(.headerMismatch, "the field \(name.rawName) comes twice")
    }
    // Notifications need say nothing.
    guard value["id"] != nil else { return nil }
    guard let version = value["params"]?["_meta"]?[Self.versionKey] else {
      return RPCError(.invalidParams, "params._meta lacks \(Self.versionKey)")
    }
    guard headers[.mcpProtocolVersion] == version.text else {
      return RPCError(.headerMismatch, "the field MCP-Protocol-Version is not the message's \(Self.versionKey)")
    }
    guard headers[.mcpMethod] == value["method"]?.text else {
      return RPCError(.headerMismatch, "the field Mcp-Method is not the message's method")
    }
    guard value["method"] == "tools/call", let name = value["params"]?["name"]?.text else { return nil }
    guard headers[.mcpName].flatMap(Self.decoded) == name else {
      return RPCError(.headerMismatch, "the field Mcp-Name is not the name of the message's tool")
    }
    return nil
  }

  /// A value of a field: as it is, or in base64 with marks around it.
  private static func decoded(_ text: String) -> String? {
    guard text.hasPrefix("=?base64?"), text.hasSuffix("?="), text.utf8.count >= 11 else { return text }
    guard let data = Data(base64Encoded: String(text.dropFirst(9).dropLast(2))) else { return nil }
    return String(validating: data, as: UTF8.self)
  }
}

/// The sessions of clients that have shaken hands, and the requests of those that have not.
actor MCPSessions {
  private static let maxSessions = 64
  private static let maxRequests = 64
  /// A session without a request for so long is over, if another client comes.
  private static let maxIdle = Duration.seconds(3600)

  private struct Entry {
    let session: MCPSession
    var usedAt: ContinuousClock.Instant
  }

  private let server: MCPServer
  private var entries: [String: Entry] = [:]
  /// Of requests without a session.
  private var requests: [UInt64: MCPSession] = [:]
  private var lastRequest: UInt64 = 0

  init(_ server: MCPServer) { self.server = server }

  /// A session that begins; nil: there are too many.
  func begin() async -> (id: String, session: MCPSession)? {
    if entries.count >= Self.maxSessions {
      for (id, entry) in entries where .now - entry.usedAt > Self.maxIdle { await end(id) }
      guard entries.count < Self.maxSessions else { return nil }
    }
    // 256 random bits, which cannot be guessed.
    let id = (0..<4).map { _ in String(UInt64.random(in: 0 ... .max), radix: 16) }.joined(separator: "-")
    let session = MCPSession(server)
    entries[id] = Entry(session: session, usedAt: .now)
    return (id, session)
  }

  /// The session of that name; nil: there is none.
  func session(_ id: String) -> MCPSession? {
    entries[id]?.usedAt = .now
    return entries[id]?.session
  }

  /// Ends a session with its calls. Returns whether there was one.
  @discardableResult
  func end(_ id: String) async -> Bool {
    guard let entry = entries.removeValue(forKey: id) else { return false }
    await entry.session.end()
    return true
  }

  /// Ends all sessions and requests, and waits for their calls.
  func endAll() async {
    let all = entries.values.map(\.session) + requests.values
    entries = [:]
    for session in all { await session.end() }
    for session in all { await session.waitForCalls() }
  }

  // MARK: Requests without a session

  /// The right to one request.
  struct Lease: Sendable {
    let session: MCPSession
    fileprivate let number: UInt64
  }

  /// nil: there are too many. To be given back by ``end(_:)``.
  func lease() -> Lease? {
    guard requests.count < Self.maxRequests else { return nil }
    let lease = Lease(session: MCPSession(server), number: lastRequest + 1)
    lastRequest = lease.number
    requests[lease.number] = lease.session
    return lease
  }

  /// The request has its answer.
  func end(_ lease: Lease?) { if let lease { requests[lease.number] = nil } }
}
