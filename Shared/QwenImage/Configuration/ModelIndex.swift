import Foundation
import StrictJSON
import Weights

/// `model_index.json`: which pipeline a checkpoint is for.
public struct ModelIndex: Sendable, Equatable, Codable {
  /// The diffusers pipeline class that the checkpoint is run as: `QwenImagePipeline`.
  public var className: String

  /// The pipeline classes whose checkpoints this project runs. Those for images to images and for inpainting have the
  /// parts and weights of the first, which is what they are run as.
  public static let supportedClassNames = ["QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"]

  /// Classes that have the language model, with or without output head and vision tower.
  private static let textEncoders = ["Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLModel", "Qwen2_5_VLTextModel"]
  /// Classes that read the tokenizer's files, by name or whatever they are; the files are checked when they are read.
  private static let tokenizers = [
    "Qwen2Tokenizer", "Qwen2TokenizerFast", "TokenizersBackend", "PreTrainedTokenizerFast",
  ]

  /// Reads `model_index.json` and requires a supported pipeline of known components.
  public init(contentsOf url: URL) throws(ConfigurationError) {
    let fields = try ConfigurationFields(contentsOf: url)
    _ = try fields.string("_class_name")
    try fields.require("_class_name", oneOf: Self.supportedClassNames)
    className = Self.supportedClassNames[0]
    try Self.requireComponent("scheduler", oneOf: ["FlowMatchEulerDiscreteScheduler"], fields)
    try Self.requireComponent("text_encoder", oneOf: Self.textEncoders, fields)
    try Self.requireComponent("tokenizer", oneOf: Self.tokenizers, fields)
    try Self.requireComponent("transformer", oneOf: ["QwenImageTransformer2DModel"], fields)
    try Self.requireComponent("vae", oneOf: ["AutoencoderKLQwenImage"], fields)
  }

  private static func requireComponent(
    _ component: String, oneOf supported: [String], _ fields: ConfigurationFields
  ) throws(ConfigurationError) {
    guard let value = fields.value(component) else { throw .missing(file: fields.file, field: component) }
    // Modular pipelines add where the component comes from.
    guard let pair = value.elements, pair.count == 2 || pair.count == 3, let className = pair[1].text else {
      let found = value.elements.map { "[" + $0.map(\.kind).joined(separator: ", ") + "]" } ?? value.kind
      throw .wrongType(
        file: fields.file, field: component, expected: "[library, class]", found: String(found.prefix(80)))
    }
    if pair.count == 3 { try requireOwn(component, pair[2], fields) }
    guard supported.contains(className) else {
      throw .unsupported(
        file: fields.file, field: component, value: "\"\(className.prefix(80))\"", supported: supported)
    }
  }

  /// Requires that the component's origin is its own folder of this checkpoint.
  private static func requireOwn(
    _ component: String, _ origin: JSON, _ fields: ConfigurationFields
  ) throws(ConfigurationError) {
    guard case .object(let members) = origin else {
      throw .wrongType(file: fields.file, field: component, expected: "[library, class, {…}]", found: origin.kind)
    }
    for (key, own) in [("repo", nil), ("pretrained_model_name_or_path", nil), ("subfolder", component)]
      as [(String, String?)]
    {
      guard let text = members[key]?.text, text != own else { continue }
      throw .unsupported(
        file: fields.file, field: "\(component).\(key)", value: "\"\(text.prefix(80))\"",
        supported: [own ?? "null: components in folders of this checkpoint"])
    }
  }
}
