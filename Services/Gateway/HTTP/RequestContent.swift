import Foundation
import GatewayAPI
import GatewayPipelines
import Hashing
import StrictJSON
import Wire

/// The body of a request that makes images.
enum RequestContent: Sendable {
  /// `application/json`.
  case json([UInt8])
  /// One of several in JSON.
  case value(JSON)
  /// `multipart/form-data`.
  case form(MultipartForm)

  /// What it asks for.
  func request(
    _ kind: GenerationRequest.Kind, pipelines: PipelineRegistry, intake: ImageIntake
  ) throws(APIError) -> GenerationRequest {
    let maxPromptBytes = WireLimits().maxTextBytes
    switch self {
    case .json(let bytes):
      return try GenerationRequest(
        body: bytes, kind, pipelines: pipelines, intake: intake, maxPromptBytes: maxPromptBytes)
    case .value(let value):
      return try GenerationRequest(
        value: value, kind, pipelines: pipelines, intake: intake, maxPromptBytes: maxPromptBytes)
    case .form(let form):
      return try GenerationRequest(
        form: form, kind, pipelines: pipelines, intake: intake, maxPromptBytes: maxPromptBytes)
    }
  }

  /// The same for the same fields in any order and spacing. Whether events are streamed or addresses are sent makes no
  /// other image.
  func digest() throws -> Data {
    var canonical = ""
    switch self {
    case .json(let bytes): return try RequestContent.value(JSON(bytes)).digest()
    case .value(let value):
      guard case .object(var fields) = value else { return Data() }
      fields["stream"] = nil
      if fields["response_format"] == .string(GenerationRequest.ResultFormat.url.rawValue) {
        fields["response_format"] = nil
      }
      Self.append(.object(fields), to: &canonical)
    case .form(let form):
      // Images of one field in their order, whatever the parts are called; an empty part says nothing.
      let images = ImageField.sorted(form.parts).map { ($0.field, $0.part.bytes) }
      let texts = form.parts.filter {
        ImageField($0.name) == nil && !$0.bytes.isEmpty && !["stream", "response_format"].contains($0.name)
      }
      for (name, bytes) in images + texts.map({ ($0.name, $0.bytes) }).sorted(by: { $0.0 < $1.0 }) {
        let hash = SHA256.hash(bytes).map { String($0, radix: 16) }.joined(separator: " ")
        canonical += "\(name.utf8.count):\(name)=\(bytes.count):\(hash) "
      }
    }
    return Data(SHA256.hash(canonical.utf8))
  }

  private static func append(_ value: JSON, to text: inout String) {
    switch value {
    case .object(let members):
      text += "{"
      for name in members.keys.sorted() {
        guard let member = members[name], member != .null else { continue }
        text += "\(name.utf8.count):\(name)="
        append(member, to: &text)
      }
      text += "}"
    case .array(let elements):
      text += "["
      for element in elements { append(element, to: &text) }
      text += "]"
    case .string(let string): text += "\(string.utf8.count):\(string)"
    case .number(let number): text += "#\(number.text) "
    case .bool(let flag): text += flag ? "true " : "false "
    case .null: text += "null "
    }
  }
}
