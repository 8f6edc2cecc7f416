import StrictJSON

/// Something that a client's model can have done.
public struct Tool: Sendable {
  /// Its name.
  public var name: String
  /// Its name for people.
  public var title: String
  /// What it does, for the model.
  public var description: String
  /// The JSON Schema of its arguments: an object. What ``SchemaCheck`` knows of it is checked before a call.
  public var inputSchema: JSON
  /// The JSON Schema of ``ToolResult/structuredContent``; nil: it has no form of its own.
  public var outputSchema: JSON?
  /// Whether it changes nothing.
  public var isReadOnly: Bool

  /// See the properties.
  public init(
    name: String, title: String, description: String, inputSchema: JSON, outputSchema: JSON? = nil,
    isReadOnly: Bool = false
  ) {
    self.name = name
    self.title = title
    self.description = description
    self.inputSchema = inputSchema
    self.outputSchema = outputSchema
    self.isReadOnly = isReadOnly
  }

  var listed: JSON {
    var members: JSONObject = [
      "name": .string(name), "title": .string(title), "description": .string(description), "inputSchema": inputSchema,
      "annotations": [
        "title": .string(title), "readOnlyHint": .bool(isReadOnly), "destructiveHint": false, "openWorldHint": false,
      ],
    ]
    if let outputSchema { members["outputSchema"] = outputSchema }
    return .object(members)
  }
}

/// What a call has given.
public struct ToolResult: Sendable {
  /// For the model: blocks of text, images, links.
  public var content: [JSON]
  /// For programs; nil: nothing.
  public var structuredContent: JSON?
  /// Whether it is an error, which the content explains.
  public var isError: Bool

  /// See the properties.
  public init(content: [JSON], structuredContent: JSON? = nil, isError: Bool = false) {
    self.content = content
    self.structuredContent = structuredContent
    self.isError = isError
  }

  /// An error that the model is to read: what is wrong, and what to do.
  public static func error(_ text: String) -> ToolResult { ToolResult(content: [.text(text)], isError: true) }
}

extension JSON {
  /// A block of text.
  public static func text(_ text: String) -> JSON { ["type": "text", "text": .string(text)] }
}

/// What a call can say before it has ended.
public struct ToolCallContext: Sendable {
  let report: @Sendable (_ progress: Double, _ total: Double, _ message: String) async -> Void

  /// Reports how far the call is. What is not more than was reported before is not sent, and neither is anything to a
  /// client that did not ask for it.
  public func progress(_ progress: Double, of total: Double, _ message: String) async {
    await report(progress, total, message)
  }
}

/// Does what tools are for.
public protocol ToolProvider: Sendable {
  /// The tools, always the same.
  var tools: [Tool] { get }

  /// Calls a tool. A task that is cancelled is one whose client wants the result no longer.
  ///
  /// - Parameters:
  ///   - name: of one of the tools.
  ///   - arguments: as its schema has them.
  ///   - context: for progress.
  func call(_ name: String, _ arguments: JSONObject, _ context: ToolCallContext) async -> ToolResult
}
