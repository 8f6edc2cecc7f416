import Foundation
import Weights

/// How a model wants to be used: its name, what it takes, and what it does when a request leaves something open.
///
/// Published checkpoints do not say any of this in their files, so the family's documented values apply. A checkpoint may
/// carry a `generation_defaults.json` beside `model_index.json` with values of its own:
///
///     {"id": "nano", "width": 64, "height": 64, "steps": 12, "true_cfg_scale": 3.5, "negative_prompt": " ",
///      "min_side": 64, "max_side": 128, "recommended_sizes": ["64x64"]}
public struct ModelProfile: Sendable, Equatable {
  /// Width and height in pixels.
  public struct Size: Sendable, Hashable {
    /// Width in pixels.
    public let width: Int
    /// Height in pixels.
    public let height: Int
  }

  /// As users name the model.
  public var id: String
  /// What requests may ask for.
  public var limits: ModelLimits
  /// The size of a picture whose request names none.
  public var defaultSize: Size
  /// The steps of a request that names none.
  public var defaultSteps: Int
  /// The guidance scale of a request that names none.
  public var defaultTrueCFGScale: Double
  /// The negative prompt of a request that has none.
  public var defaultNegativePrompt: String
  /// Sizes the model was trained for.
  public var recommendedSizes: [Size]

  /// The model card's values for Qwen-Image.
  private static let publishedSizes: [Size] = [
    (1328, 1328), (1664, 928), (928, 1664), (1472, 1104), (1104, 1472), (1584, 1056), (1056, 1584),
  ].map { Size(width: $0.0, height: $0.1) }

  /// The profile of a checkpoint: the family's values, and over them what `generation_defaults.json` says.
  ///
  /// - Throws: ``PipelineError/checkpoint(_:)`` naming the field of the file that is wrong.
  public init(_ model: ModelDirectory) throws(PipelineError) {
    id = model.url.standardizedFileURL.lastPathComponent
    limits = ModelLimits()
    defaultSize = Size(width: 1024, height: 1024)
    defaultSteps = 50
    defaultTrueCFGScale = 4
    defaultNegativePrompt = " "
    recommendedSizes = Self.publishedSizes
    let file = model.url.appending(path: "generation_defaults.json")
    guard isPresent(file.path) else { return }
    do { try apply(ConfigurationFields(contentsOf: file)) } catch { throw .checkpoint("\(error)") }
    try check(file.path)
  }

  /// A request with this model's values where the caller has none.
  public func request(
    prompt: String, negativePrompt: String?, trueCFGScale: Double?, steps: Int?, width: Int?, height: Int?, seed: UInt64
  ) -> ImageRequest {
    ImageRequest(
      prompt: prompt, negativePrompt: negativePrompt ?? defaultNegativePrompt,
      trueCFGScale: trueCFGScale ?? defaultTrueCFGScale,
      steps: steps ?? defaultSteps, width: width ?? defaultSize.width, height: height ?? defaultSize.height, seed: seed)
  }

  private static let fieldNames = [
    "id", "width", "height", "steps", "true_cfg_scale", "negative_prompt", "min_side", "max_side", "max_pixels",
    "max_steps", "recommended_sizes",
  ]
  /// Whatever a checkpoint says, sides and steps stay within these, and sums of them within 64 bits.
  private static let maxSide = 16_384, maxSteps = 10_000, maxIDBytes = 256, maxRecommendedSizes = 100

  /// Takes over what `generation_defaults.json` says.
  private mutating func apply(_ fields: ConfigurationFields) throws(ConfigurationError) {
    try fields.requireOnly(Self.fieldNames)
    id = try fields.string("id", default: id)
    guard (1...Self.maxIDBytes).contains(id.utf8.count) else {
      throw fields.outOfRange("id", "\(id.utf8.count) bytes long", "1 to \(Self.maxIDBytes) bytes long")
    }
    limits.minSide = try fields.integer("min_side", in: 1...Self.maxSide, default: limits.minSide)
    limits.maxSide = try fields.integer("max_side", in: 1...Self.maxSide, default: limits.maxSide)
    guard limits.minSide <= limits.maxSide else {
      throw fields.outOfRange("min_side", limits.minSide, "at most max_side, \(limits.maxSide)")
    }
    limits.maxPixels = try fields.integer(
      "max_pixels", in: 1...Self.maxSide * Self.maxSide, default: limits.maxPixels)
    limits.maxSteps = try fields.integer("max_steps", in: 1...Self.maxSteps, default: limits.maxSteps)
    defaultSize = Size(
      width: try fields.integer("width", in: 1...Self.maxSide, default: defaultSize.width),
      height: try fields.integer("height", in: 1...Self.maxSide, default: defaultSize.height))
    defaultSteps = try fields.integer("steps", in: 1...Self.maxSteps, default: defaultSteps)
    defaultTrueCFGScale = try fields.number(
      "true_cfg_scale", in: 0...limits.maxTrueCFGScale, default: defaultTrueCFGScale)
    defaultNegativePrompt = try fields.string("negative_prompt", default: defaultNegativePrompt)
    guard fields.value("recommended_sizes") != nil else { return }
    recommendedSizes = try fields.strings("recommended_sizes", count: 0...Self.maxRecommendedSizes)
      .map { (name) throws(ConfigurationError) in
        let sides = name.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
        guard sides.count == 2, sides.allSatisfy({ (1...Self.maxSide).contains($0) }) else {
          throw fields.outOfRange("recommended_sizes", "\"\(name.prefix(40))\"", "WIDTHxHEIGHT, such as 64x64")
        }
        return Size(width: sides[0], height: sides[1])
      }
  }

  private func check(_ file: String) throws(PipelineError) {
    do {
      try limits.validate(
        request(prompt: "", negativePrompt: nil, trueCFGScale: nil, steps: nil, width: nil, height: nil, seed: 0))
    } catch {
      throw .checkpoint("\(file): \(error)")
    }
  }
}
