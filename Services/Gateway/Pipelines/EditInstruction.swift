import ClusterCore
import GatewayAPI
import StrictJSON

/// One of several edits that a request asks for: an element of `edit_instructions`. Each edits what the one before it
/// has made.
struct EditInstruction: Hashable, Sendable {
  static let maxCount = 8

  /// nil: the request's.
  var prompt: String?
  /// nil: the request's.
  var negativePrompt: String?
  /// nil: the one that the instruction's fields are for.
  var pipeline: String?
  /// What is edited; nil: the image.
  var object: ObjectEdit?
  /// The fields of pipelines' own, read by each of them.
  var options: [PipelineName: [String: JSON]]
  /// Those of them that the instruction has.
  var optionFields: Set<String>

  /// Reads the list; empty when the field is absent.
  static func list(
    _ fields: inout FieldReader, _ pipelines: PipelineRegistry, maxPromptBytes: Int
  ) throws(APIError) -> [EditInstruction] {
    let elements = try fields.objects("edit_instructions", maxCount: maxCount) ?? []
    return try elements.enumerated().map { (index, element) throws(APIError) in
      var element = element
      do throws(APIError) { return try EditInstruction(&element, pipelines, maxPromptBytes) } catch {
        throw error.inside("edit_instructions[\(index)]")
      }
    }
  }

  private init(
    _ fields: inout FieldReader, _ pipelines: PipelineRegistry, _ maxPromptBytes: Int
  ) throws(APIError) {
    let text = try fields.string("prompt", maxBytes: maxPromptBytes, tooLong: .promptTooLong)
    prompt = text.flatMap { $0.isEmpty ? nil : $0 }
    negativePrompt = try fields.string("negative_prompt", maxBytes: maxPromptBytes, tooLong: .promptTooLong)
    pipeline = try pipelines.name(try fields.string("pipeline"))
    object = try ObjectEdit(&fields)
    options = try pipelines.readOptions(&fields)
    let names = Set(options.values.flatMap(\.keys))
    optionFields = names.filter { fields.holds($0) }
    try fields.refuseOthers()
  }
}

extension GenerationRequest {
  /// The request with one of its instructions instead of what it says itself.
  func following(_ instruction: EditInstruction) -> GenerationRequest {
    var request = self
    request.prompt = instruction.prompt ?? prompt
    request.negativePrompt = instruction.negativePrompt ?? negativePrompt
    request.pipeline = instruction.pipeline
    request.object = instruction.object
    (request.options, request.optionFields) = (instruction.options, instruction.optionFields)
    request.instructions = []
    request.background = .auto
    return request
  }
}
