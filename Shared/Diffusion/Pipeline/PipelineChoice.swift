import ClusterCore
import ImageCodec

extension ModelCard {
  /// The pipeline that a request is for.
  ///
  /// - Parameter name: as the request says; nil: what its images are for.
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` when the model does not serve it.
  public func pipeline(named name: String?, for inputs: PipelineInputs) throws(PipelineError) -> PipelineName {
    let served = pipelines.map(\.text).joined(separator: ", ")
    guard let name else {
      let candidates = Self.candidates(for: inputs)
      guard let choice = candidates.first(where: { pipelines.contains($0) }) else {
        throw .invalidRequest(
          field: "image",
          reason: "and what is beside it are for \(candidates.map(\.text).joined(separator: " or ")); "
            + "\(model.id) serves \(served)")
      }
      return choice
    }
    guard let choice = pipelines.first(where: { $0.text == name }) else {
      throw .invalidRequest(field: "pipeline", reason: "is \(name.prefix(80)); \(model.id) serves \(served)")
    }
    return choice
  }

  /// What images are for, the most specific first.
  private static func candidates(for inputs: PipelineInputs) -> [PipelineName] {
    let hasMask = inputs.mask != nil
    if !inputs.controls.isEmpty { return [hasMask ? .controlNetInpaint : .controlNet] }
    if inputs.images.isEmpty { return [.textToImage] }
    if hasMask { return [.editInpaint, .inpaint] }
    if inputs.images.count > 1 { return [.editPlus] }
    return inputs.strength == nil ? [.editPlus, .edit, .layered, .imageToImage] : [.imageToImage]
  }

  /// The size of a request's image.
  ///
  /// - Parameters:
  ///   - width: as the request says; nil: the pipeline's own.
  ///   - height: the same.
  public func size(for pipeline: PipelineName, width: Int?, height: Int?, _ images: [ImageSize]) -> ImageSize {
    let own = ownSize(for: pipeline, images)
    // These pipelines have the size of what they were given.
    if [.editInpaint, .layered].contains(pipeline), !images.isEmpty { return own }
    return ImageSize(widthPx: width ?? own.widthPx, heightPx: height ?? own.heightPx)
  }

  private func ownSize(for pipeline: PipelineName, _ images: [ImageSize]) -> ImageSize {
    guard let first = images.first, let last = images.last else { return defaults.size }
    switch pipeline {
    case .edit, .editInpaint: return first.scaled(toArea: references.referencePx).floored(to: limits.sizeMultiplePx)
    case .editPlus: return last.scaled(toArea: references.referencePx).floored(to: limits.sizeMultiplePx)
    case .layered: return first.scaled(toArea: references.referencePx).floored(to: limits.sizeMultiplePx)
    case .imageToImage, .inpaint:
      let size = first.floored(to: limits.sizeMultiplePx)
      return limits.takes(size) ? size : first.scaled(toArea: defaults.size.pixelCount, multiple: limits.sizeMultiplePx)
    default: return defaults.size
    }
  }
}

extension ModelLimits {
  /// Whether an image may have this size.
  func takes(_ size: ImageSize) -> Bool {
    (minSidePx...maxSidePx).contains(size.widthPx) && (minSidePx...maxSidePx).contains(size.heightPx)
      && size.pixelCount <= maxPixels && size.widthPx % sizeMultiplePx == 0 && size.heightPx % sizeMultiplePx == 0
  }
}
