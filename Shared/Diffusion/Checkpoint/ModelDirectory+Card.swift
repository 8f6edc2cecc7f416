import ClusterCore
import Foundation
import Weights

extension ModelDirectory {
  /// How the model wants to be used: its name, what it takes, and what it does when a request leaves something open.
  ///
  /// Published checkpoints do not say any of this in their files, so the family's documented values apply. A checkpoint
  /// may carry a `generation_defaults.json` beside `model_index.json` or `model.json` with values of its own:
  ///
  ///     {"id": "nano", "width": 64, "height": 64, "steps": 12, "true_cfg_scale": 3.5, "negative_prompt": " ",
  ///      "min_side": 64, "max_side": 128, "recommended_sizes": ["64x64"],
  ///      "reference_area": 16384, "condition_area": 16384}
  ///
  /// - Throws: ``PipelineError/checkpoint(_:)`` naming the field of the file that is wrong.
  public func card() throws(PipelineError) -> ModelCard {
    let name = url.standardizedFileURL.lastPathComponent
    var card = family.card(of: ModelIdentity(id: name, fingerprint: fingerprint))
    let files = [url, base].map { $0.appending(path: "generation_defaults.json") }
    guard let file = files.first(where: { isPresent($0.path) }) else { return card }
    do { try card.apply(ConfigurationFields(contentsOf: file)) } catch { throw .checkpoint("\(error)") }
    do {
      try card.limits.validate(
        ImageRequest(
          card, prompt: "", negativePrompt: nil, trueCFGScale: nil, steps: nil, width: nil, height: nil, seed: 0))
    } catch {
      throw .checkpoint("\(file.path): \(error)")
    }
    return card
  }
}

extension ModelCard {
  private static let fieldNames = [
    "id", "width", "height", "steps", "true_cfg_scale", "negative_prompt", "min_side", "max_side", "max_pixels",
    "max_steps", "recommended_sizes", "reference_area", "condition_area",
  ]
  /// Whatever a checkpoint says, sides and steps stay within these, and sums of them within 64 bits.
  private static let maxSide = 16_384, maxSteps = 10_000, maxIDBytes = 256, maxRecommendedSizes = 100

  /// Takes over what `generation_defaults.json` says.
  fileprivate mutating func apply(_ fields: ConfigurationFields) throws(ConfigurationError) {
    try fields.requireOnly(Self.fieldNames)
    model.id = try fields.string("id", default: model.id)
    guard (1...Self.maxIDBytes).contains(model.id.utf8.count) else {
      throw fields.outOfRange("id", "\(model.id.utf8.count) bytes long", "1 to \(Self.maxIDBytes) bytes long")
    }
    limits.minSidePx = try fields.integer("min_side", in: 1...Self.maxSide, default: limits.minSidePx)
    limits.maxSidePx = try fields.integer("max_side", in: 1...Self.maxSide, default: limits.maxSidePx)
    guard limits.minSidePx <= limits.maxSidePx else {
      throw fields.outOfRange("min_side", limits.minSidePx, "at most max_side, \(limits.maxSidePx)")
    }
    limits.maxPixels = try fields.integer(
      "max_pixels", in: 1...Self.maxSide * Self.maxSide, default: limits.maxPixels)
    limits.maxSteps = try fields.integer("max_steps", in: 1...Self.maxSteps, default: limits.maxSteps)
    defaults.size = ImageSize(
      widthPx: try fields.integer("width", in: 1...Self.maxSide, default: defaults.size.widthPx),
      heightPx: try fields.integer("height", in: 1...Self.maxSide, default: defaults.size.heightPx))
    defaults.steps = try fields.integer("steps", in: 1...Self.maxSteps, default: defaults.steps)
    defaults.trueCFGScale = try fields.number(
      "true_cfg_scale", in: 0...ModelLimits.maxTrueCFGScale, default: defaults.trueCFGScale)
    defaults.negativePrompt = try fields.string("negative_prompt", default: defaults.negativePrompt)
    let areas = 32 * 32...Self.maxSide * Self.maxSide
    references.referencePx = try fields.integer("reference_area", in: areas, default: references.referencePx)
    references.conditionPx = try fields.integer("condition_area", in: areas, default: references.conditionPx)
    guard fields.value("recommended_sizes") != nil else { return }
    recommendedSizes = try fields.strings("recommended_sizes", count: 0...Self.maxRecommendedSizes)
      .map { (name) throws(ConfigurationError) in
        let sides = name.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
        guard sides.count == 2, sides.allSatisfy({ (1...Self.maxSide).contains($0) }) else {
          throw fields.outOfRange("recommended_sizes", "\"\(name.prefix(40))\"", "WIDTHxHEIGHT, such as 64x64")
        }
        return ImageSize(widthPx: sides[0], heightPx: sides[1])
      }
  }
}
