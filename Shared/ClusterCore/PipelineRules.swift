/// What a request has beside its prompt, as far as the choice of a pipeline needs to know.
public struct RequestImages: Hashable, Sendable {
  /// Sizes of the images to begin with or to edit, in order.
  public var sizes: [ImageSize]
  /// Whether there is a mask.
  public var hasMask: Bool
  /// Control images.
  public var controlCount: Int
  /// Whether the request says how much of the image is made anew.
  public var hasStrength: Bool

  /// See the properties.
  public init(sizes: [ImageSize] = [], hasMask: Bool = false, controlCount: Int = 0, hasStrength: Bool = false) {
    self.sizes = sizes
    self.hasMask = hasMask
    self.controlCount = controlCount
    self.hasStrength = hasStrength
  }

  /// The pipelines that the images may be for, the most specific first.
  var candidates: [PipelineName] {
    if controlCount > 0 { return [hasMask ? .controlNetInpaint : .controlNet] }
    if sizes.isEmpty { return [.textToImage] }
    if hasMask { return [.editInpaint, .inpaint] }
    if sizes.count > 1 { return [.editPlus] }
    return hasStrength ? [.imageToImage] : [.editPlus, .edit, .layered, .imageToImage]
  }
}

extension ModelCard {
  /// The pipeline that a request is for.
  ///
  /// - Parameter name: as the request says; nil: what its images are for.
  /// - Throws: INVALID_ARGUMENT when the model does not serve it.
  public func pipeline(named name: String?, for images: RequestImages) throws(Status) -> PipelineName {
    let served = pipelines.map { "\"\($0)\"" }.joined(separator: ", ")
    if let name {
      guard let choice = pipelines.first(where: { $0.text == name }) else {
        throw Status(
          .invalidArgument, "pipeline is \"\(name.prefix(80))\", but \(model.id) serves \(served)", field: "pipeline")
      }
      return choice
    }
    let candidates = images.candidates
    guard let choice = candidates.first(where: { pipelines.contains($0) }) else {
      let wanted = candidates.map { "\"\($0)\"" }.joined(separator: " or ")
      throw Status(
        .invalidArgument, "what the request has is for the pipeline \(wanted), but \(model.id) serves \(served)",
        field: images.controlCount > 0 ? "control_image" : images.sizes.isEmpty ? "image" : "pipeline")
    }
    return choice
  }

  /// Denoising steps of a request: one for each of the noise levels that it gives, else those of a distilled model
  /// unless the request names a schedule, else what it asks for, else the default.
  public func steps(asked: Int?, sigmas: [Double]?, _ schedule: ScheduleName? = nil) -> Int {
    sigmas?.count ?? (schedule == nil ? limits.scheduleSteps : asked) ?? asked ?? defaults.steps
  }

  /// Whether what is transparent in a request's only image is made anew, as in OpenAI's API. Models that read whole
  /// images take it as a part of the image.
  public var takesMaskFromTransparency: Bool {
    pipelines.contains(.inpaint) && !pipelines.contains { [.edit, .editPlus, .layered].contains($0) }
  }

  /// The size of a request's image. Image-to-image and inpainting keep the size of an image of up to four times the
  /// pixels of the model's default; a larger one is made at about the default's.
  ///
  /// - Parameters:
  ///   - pipeline: what is to be done.
  ///   - size: as the request says; nil: the pipeline's own.
  ///   - images: sizes of the request's images, in order.
  ///   - outputResolutionPx: references have about the square of it in pixels, and so has an image without any; nil:
  ///     as the model does it.
  public func size(
    for pipeline: PipelineName, _ size: ImageSize?, _ images: [ImageSize], outputResolutionPx: Int? = nil
  ) -> ImageSize {
    let own = ownSize(for: pipeline, images, outputResolutionPx)
    // These pipelines have the size of what they are given.
    return [.editInpaint, .layered].contains(pipeline) ? own : size ?? own
  }

  private func ownSize(for pipeline: PipelineName, _ images: [ImageSize], _ resolutionPx: Int?) -> ImageSize {
    let multiple = limits.sizeMultiplePx, references = references.with(outputResolutionPx: resolutionPx)
    guard let first = images.first, let last = images.last else {
      return resolutionPx.map { ImageSize(widthPx: $0, heightPx: $0).floored(to: multiple) } ?? defaults.size
    }
    switch pipeline {
    case .edit, .editInpaint, .layered: return first.scaled(toArea: references.referencePx).floored(to: multiple)
    case .editPlus: return last.scaled(toArea: references.referencePx).floored(to: multiple)
    case .imageToImage, .inpaint:
      let size = first.floored(to: multiple), isUsual = size.pixelCount <= 4 * defaults.size.pixelCount
      // A photograph alone asks for no hour of work.
      return limits.takes(size) && isUsual
        ? size : first.scaled(toArea: defaults.size.pixelCount, multiple: multiple)
    default: return defaults.size
    }
  }
}

extension ModelLimits {
  /// Whether an image may have this size.
  public func takes(_ size: ImageSize) -> Bool {
    let sides = minSidePx...maxSidePx
    return sides.contains(size.widthPx) && sides.contains(size.heightPx) && size.pixelCount <= maxPixels
      && size.widthPx % sizeMultiplePx == 0 && size.heightPx % sizeMultiplePx == 0
  }
}

/// How many steps of a schedule a request for a part of an image makes.
public enum PartialSchedule {
  /// The strength of a request that names none.
  public static let defaultStrength = 0.6

  /// The first step that is made: the larger `strength`, the earlier (diffusers `get_timesteps`).
  ///
  /// - Throws: INVALID_ARGUMENT when no step would be made.
  public static func firstStep(steps: Int, strength: Double) throws(Status) -> Int {
    guard strength.isFinite, (0...1).contains(strength) else {
      throw Status(.invalidArgument, "strength is \(strength), but must be from 0 to 1", field: "strength")
    }
    let count = Double(steps), first = Int(max(count - min(count * strength, count), 0))
    guard first < steps else {
      throw Status(
        .invalidArgument, "strength is \(strength), which leaves none of the \(steps) steps", field: "strength")
    }
    return first
  }
}

/// How many layers an image is taken apart into.
public enum LayerCount {
  /// What a request may ask for.
  public static let limit = 2...10
  /// Of a request that names none.
  public static let `default` = 4
}
