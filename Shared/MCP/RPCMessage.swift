import StrictJSON

/// A message of JSON-RPC 2.0 that a client has sent.
enum RPCMessage: Sendable {
  /// Is to be answered under its id, a string or a whole number.
  case request(id: JSON, method: String, params: JSONObject)
  /// Is not answered.
  case notification(method: String, params: JSONObject)
  /// An answer. This server asks nothing, so there is nothing that it could be for.
  case response

  /// Reads a message.
  ///
  /// - Throws: ``RPCError`` when it is none, or its parameters are no object, which MCP has them be.
  init(_ value: JSON) throws(RPCError) {
    guard case .object(let members) = value else {
      throw RPCError(.invalidRequest, "a message must be an object, not \(value.kind)")
    }
    guard members["jsonrpc"] == "2.0" else { throw RPCError(.invalidRequest, "jsonrpc must be \"2.0\"") }
    guard let method = members["method"] else {
      guard members["result"] != nil || members["error"] != nil else {
        throw RPCError(.invalidRequest, "method is missing")
      }
      self = .response
      return
    }
    guard let method = method.text else { throw RPCError(.invalidRequest, "method must be a string") }
    let params: JSONObject
    switch members["params"] {
    case nil, .null: params = [:]
    case .object(let members): params = members
    case let other?: throw RPCError(.invalidParams, "params must be an object, not \(other.kind)")
    }
    guard let id = members["id"] else {
      self = .notification(method: method, params: params)
      return
    }
    guard Self.isID(id) else { throw RPCError(.invalidRequest, "id must be a string or a whole number") }
    self = .request(id: id, method: method, params: params)
  }

  /// What an error about a message is sent under: its id, if it has one that may be, else null.
  static func id(of value: JSON) -> JSON {
    guard let id = value["id"], isID(id) else { return .null }
    return id
  }

  private static let maxIDBytes = 256

  /// What names a request or its progress.
  static func isID(_ value: JSON) -> Bool {
    switch value {
    case .string(let text): text.utf8.count <= maxIDBytes
    case .number(let number): number.integer != nil
    default: false
    }
  }
}

/// An error of JSON-RPC, and of MCP over it.
public struct RPCError: Error, Hashable, Sendable {
  /// The kinds of errors that are sent.
  public enum Code: Int, Sendable {
    /// Not JSON.
    case parse = -32700
    /// JSON, but no message that may be sent now.
    case invalidRequest = -32600
    /// There is no such method.
    case methodNotFound = -32601
    /// The method's parameters are wrong.
    case invalidParams = -32602
    /// The server has failed.
    case `internal` = -32603
    /// More than the server does at a time.
    case busy = -32000
    /// A header field of HTTP says something else than the message.
    case headerMismatch = -32020
    /// The message is of a protocol revision that is not spoken.
    case unsupportedVersion = -32022
  }

  /// The kind.
  public var code: Code
  /// For people.
  public var message: String
  /// For programs.
  public var data: JSON?

  /// An error of kind `code`.
  public init(_ code: Code, _ message: String, data: JSON? = nil) {
    self.code = code
    self.message = message
    self.data = data
  }

  /// The message that answers the request `id`; null: a message that could not be read.
  public func message(for id: JSON = .null) -> JSON {
    var error: JSONObject = ["code": JSON(code.rawValue), "message": .string(message)]
    if let data { error["data"] = data }
    return ["jsonrpc": "2.0", "id": id, "error": .object(error)]
  }
}
