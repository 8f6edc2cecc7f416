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
    case .form(let form):
      return try GenerationRequest(form: form, kind, pipelines: pipelines, maxPromptBytes: maxPromptBytes)
    }
  }

  /// The same for the same fields in any order and spacing. Whether events are streamed or addresses are sent makes no
  /// other image.
  func digest() throws -> Data {
    var canonical = ""
    switch self {
    case .json(let bytes):
      guard case .object(var fields) = try JSON(bytes) else { return Data() }
      fields["stream"] = nil
      if fields["response_format"] == .string(GenerationRequest.ResultFormat.url.rawValue) {
        fields["response_format"] = nil
      }
      Self.append(.object(fields), to: &canonical)
    case .form(let form):
      let parts = form.parts.filter { !["stream", "response_format"].contains($0.name) }
      let sorted = parts.enumerated().sorted { ($0.element.name, $0.offset) < ($1.element.name, $1.offset) }
      for (_, part) in sorted {
        let hash = SHA256.hash(part.bytes).map { String($0, radix: 16) }.joined(separator: " ")
        canonical += "\(part.name.utf8.count):\(part.name)=\(part.bytes.count):\(hash) "
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
