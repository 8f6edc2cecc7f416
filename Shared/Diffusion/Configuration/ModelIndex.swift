import Foundation
import StrictJSON
import Weights

/// `model_index.json`: which pipeline a checkpoint is for, and of which classes its components are.
public struct ModelIndex: Sendable {
  /// The diffusers pipeline class: `QwenImagePipeline`.
  public let className: String
  private let fields: ConfigurationFields

  /// Reads the file.
  public init(contentsOf url: URL) throws(ConfigurationError) {
    fields = try ConfigurationFields(contentsOf: url)
    className = try fields.string("_class_name")
  }

  /// `sample_sigmas`: the noise levels of a distilled model's steps, each above 0 and at most 1, none above the one
  /// before; nil: there are none.
  public func sampleSigmas() throws(ConfigurationError) -> [Double]? {
    guard fields.value("sample_sigmas") != nil else { return nil }
    let sigmas = try fields.numbers("sample_sigmas", count: FlowMatchSchedule.stepLimit, in: 0...1)
    guard sigmas.allSatisfy({ $0 > 0 }), zip(sigmas, sigmas.dropFirst()).allSatisfy({ $0 >= $1 }) else {
      throw fields.outOfRange("sample_sigmas", sigmas, "above 0 and falling")
    }
    return sigmas
  }

  /// An error that says that only checkpoints of the classes `supported` can be read.
  func unsupported(_ supported: [String]) -> ConfigurationError {
    .unsupported(file: fields.file, field: "_class_name", value: "\"\(className.prefix(80))\"", supported: supported)
  }

  /// Requires that `component` is there and of one of the classes `supported`.
  public func require(_ component: String, oneOf supported: [String]) throws(ConfigurationError) {
    guard let value = fields.value(component) else { throw .missing(file: fields.file, field: component) }
    // Modular pipelines add where the component comes from.
    guard let pair = value.elements, pair.count == 2 || pair.count == 3, let className = pair[1].text else {
      let found = value.elements.map { "[" + $0.map(\.kind).joined(separator: ", ") + "]" } ?? value.kind
      throw .wrongType(
        file: fields.file, field: component, expected: "[library, class]", found: String(found.prefix(80)))
    }
    if pair.count == 3 { try Self.requireOwn(component, pair[2], fields) }
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
