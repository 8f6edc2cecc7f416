import Foundation

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
    if FileManager.default.fileExists(atPath: file.path(percentEncoded: false)) { try apply(Overrides.read(file)) }
    try check()
  }

  /// A request with this model's values where the caller has none.
  public func request(
    prompt: String, negativePrompt: String?, trueCFGScale: Double?, steps: Int?, width: Int?, height: Int?, seed: UInt64
  ) -> ImageRequest {
    ImageRequest(
      prompt: prompt, negativePrompt: negativePrompt ?? defaultNegativePrompt, trueCFGScale: trueCFGScale ?? defaultTrueCFGScale,
      steps: steps ?? defaultSteps, width: width ?? defaultSize.width, height: height ?? defaultSize.height, seed: seed)
  }

  private struct Overrides: Decodable {
    var id: String?
    var width: Int?
    var height: Int?
    var steps: Int?
    var trueCfgScale: Double?
    var negativePrompt: String?
    var minSide: Int?
    var maxSide: Int?
    var maxPixels: Int?
    var maxSteps: Int?
    var recommendedSizes: [String]?

    static func read(_ file: URL) throws(PipelineError) -> Overrides {
      let decoder = JSONDecoder()
      decoder.keyDecodingStrategy = .convertFromSnakeCase
      do {
        return try decoder.decode(Overrides.self, from: Data(contentsOf: file))
      } catch {
        throw .checkpoint("\(file.lastPathComponent): \(error)")
      }
    }
  }

  private mutating func apply(_ overrides: Overrides) throws(PipelineError) {
    id = overrides.id ?? id
    defaultSize = Size(width: overrides.width ?? defaultSize.width, height: overrides.height ?? defaultSize.height)
    defaultSteps = overrides.steps ?? defaultSteps
    defaultTrueCFGScale = overrides.trueCfgScale ?? defaultTrueCFGScale
    defaultNegativePrompt = overrides.negativePrompt ?? defaultNegativePrompt
    limits.minSide = overrides.minSide ?? limits.minSide
    limits.maxSide = overrides.maxSide ?? limits.maxSide
    limits.maxPixels = overrides.maxPixels ?? limits.maxPixels
    limits.maxSteps = overrides.maxSteps ?? limits.maxSteps
    guard let names = overrides.recommendedSizes else { return }
    var sizes: [Size] = []
    for name in names {
      let sides = name.split(separator: "x").map { Int($0) }
      guard sides.count == 2, let width = sides[0], let height = sides[1] else {
        throw .checkpoint("generation_defaults.json: recommended_sizes has \"\(name)\"; expected WIDTHxHEIGHT")
      }
      sizes.append(Size(width: width, height: height))
    }
    recommendedSizes = sizes
  }

  private func check() throws(PipelineError) {
    do {
      try limits.validate(request(prompt: "", negativePrompt: nil, trueCFGScale: nil, steps: nil, width: nil, height: nil, seed: 0))
    } catch {
      throw .checkpoint("generation_defaults.json: \(error)")
    }
  }
}
