import Foundation
import Weights

/// `model_index.json`: which pipeline a checkpoint is for.
public struct ModelIndex: Sendable, Equatable, Codable {
  /// The diffusers pipeline class, such as `QwenImagePipeline`.
  public var className: String

  /// The pipeline classes that this project runs.
  public static let supportedClassNames = ["QwenImagePipeline"]

  /// Reads `model_index.json` and requires a supported pipeline of known components.
  public init(contentsOf url: URL) throws(ConfigurationError) {
    let fields = try ConfigurationFields(contentsOf: url)
    className = try fields.string("_class_name")
    try fields.require("_class_name", oneOf: Self.supportedClassNames)
    try Self.requireComponent("scheduler", oneOf: ["FlowMatchEulerDiscreteScheduler"], fields)
    try Self.requireComponent("text_encoder", oneOf: ["Qwen2_5_VLForConditionalGeneration"], fields)
    try Self.requireComponent("tokenizer", oneOf: ["Qwen2Tokenizer", "Qwen2TokenizerFast"], fields)
    try Self.requireComponent("transformer", oneOf: ["QwenImageTransformer2DModel"], fields)
    try Self.requireComponent("vae", oneOf: ["AutoencoderKLQwenImage"], fields)
  }

  private static func requireComponent(
    _ component: String, oneOf supported: [String], _ fields: ConfigurationFields
  ) throws(ConfigurationError) {
    guard let value = fields.value(component) else { throw .missing(file: fields.file, field: component) }
    guard case .array(let pair) = value, pair.count == 2, case .string(let className) = pair[1] else {
      throw .wrongType(file: fields.file, field: component, expected: "[library, class]", found: value.kind)
    }
    guard supported.contains(className) else {
      throw .unsupported(file: fields.file, field: component, value: "\"\(className.prefix(80))\"", supported: supported)
    }
  }
}
