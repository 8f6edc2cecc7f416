import StrictJSON

/// What a server of the Model Context Protocol says of itself, and the tools that it has. Connections to it are
/// ``MCPSession``s.
public struct MCPServer: Sendable {
  /// Revisions that a client agrees on by `initialize`, the oldest first.
  public static let handshakeVersions = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
  /// Revisions in which every request says its own, without a handshake.
  public static let statelessVersions = ["2026-07-28"]
  /// How long clients may keep what never changes, in milliseconds.
  private static let listLifetimeMs = 3_600_000

  /// Its name for programs.
  public var name: String
  /// Its name for people.
  public var title: String
  /// The software's version.
  public var version: String
  /// What a client's model should know of it.
  public var instructions: String
  /// Does the work.
  public var provider: any ToolProvider

  /// See the properties.
  public init(name: String, title: String, version: String, instructions: String, provider: any ToolProvider) {
    self.name = name
    self.title = title
    self.version = version
    self.instructions = instructions
    self.provider = provider
  }

  private var info: JSON { ["name": .string(name), "title": .string(title), "version": .string(version)] }
  private var capabilities: JSON { ["tools": ["listChanged": false]] }

  /// The revision for a client that asks for `requested`.
  static func agreed(_ requested: String) -> String {
    handshakeVersions.contains(requested) ? requested : handshakeVersions[handshakeVersions.count - 1]
  }

  /// The answer to `initialize`.
  func initialized(_ version: String) -> JSONObject {
    [
      "protocolVersion": .string(version), "capabilities": capabilities, "serverInfo": info,
      "instructions": .string(instructions),
    ]
  }

  /// The answer to `server/discover`.
  var discovered: JSONObject {
    [
      "supportedVersions": .array((Self.statelessVersions + Self.handshakeVersions).map { .string($0) }),
      "capabilities": capabilities, "instructions": .string(instructions),
      "_meta": ["io.modelcontextprotocol/serverInfo": info], "ttlMs": JSON(Self.listLifetimeMs), "cacheScope": "public",
    ]
  }

  /// The answer to `tools/list`.
  func listed(_ revision: Revision) -> JSONObject {
    var result: JSONObject = ["tools": .array(provider.tools.map(\.listed))]
    if case .stateless = revision {
      result["ttlMs"] = JSON(Self.listLifetimeMs)
      result["cacheScope"] = "public"
    }
    return result
  }

  /// A call's result as its client reads it.
  static func result(_ result: ToolResult, _ revision: Revision) -> JSONObject {
    var content = result.content
    if !revision.isAtLeast("2025-06-18") {
      // Links are not known there, and neither is structured content.
      content = content.map { block in
        block["type"] == "resource_link" ? .text(block["uri"]?.text ?? "") : block
      }
    }
    var members: JSONObject = ["content": .array(content), "isError": .bool(result.isError)]
    if let structured = result.structuredContent, revision.isAtLeast("2025-06-18") {
      members["structuredContent"] = structured
    }
    return members
  }
}

/// The revision of the protocol that a request is of.
enum Revision: Hashable, Sendable {
  /// Agreed on by `initialize`.
  case handshake(String)
  /// Said by the request.
  case stateless(String)

  /// Whether it is that of `date`, or a later one.
  func isAtLeast(_ date: String) -> Bool {
    switch self {
    // Dates in this form are in the order of their texts, and all that are spoken have it.
    case .handshake(let version), .stateless(let version): version >= date
    }
  }
}

/// What a stateless request says of itself in `_meta`.
enum RequestMeta {
  static let version = "io.modelcontextprotocol/protocolVersion"
  static let capabilities = "io.modelcontextprotocol/clientCapabilities"

  /// The revision of a stateless request; nil: it is none.
  static func revision(of params: JSONObject) throws(RPCError) -> Revision? {
    guard let meta = params["_meta"], let requested = meta[version] else { return nil }
    guard let text = requested.text else { throw RPCError(.invalidParams, "\(version) must be a string") }
    guard case .object? = meta[capabilities] else {
      throw RPCError(.invalidParams, "_meta lacks the object \(capabilities)")
    }
    guard MCPServer.statelessVersions.contains(text) else {
      let shown = String(text.prefix(40)), supported = MCPServer.statelessVersions.map { JSON.string($0) }
      throw RPCError(
        .unsupportedVersion, "the protocol revision \"\(shown)\" is not spoken without initialize",
        data: ["supported": .array(supported), "requested": .string(shown)])
    }
    return .stateless(text)
  }
}
