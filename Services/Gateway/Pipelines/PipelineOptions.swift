import ClusterCore
import GatewayAPI
import ImageCodec
import StrictJSON

/// Fields that several pipelines take beyond the common ones.
public enum PipelineOptions: String, CaseIterable, Sendable {
  /// How much of the image is made anew.
  case strength
  /// Only the masked part, with so many pixels around it, is made anew.
  case paddingMaskCrop = "padding_mask_crop"
  /// Blur of the mask's edge, in pixels; the mask is blurred before it is kept.
  case maskBlur = "mask_blur"
  /// Whether the image's own pixels come back where the mask is black.
  case pasteBack = "paste_back"
  /// How control images act: `control_scale`, `control_start` and `control_end`, a number each, or a list with one for
  /// each image.
  case control = "control_scale"
  /// Layers to take the image apart into.
  case layers
  /// Noise levels of the steps, before the shift.
  case sigmas
  /// References have about the square of it in pixels, and so has an image without a size of its own.
  case outputResolution = "output_resolution"

  /// Reads the fields of `options`.
  static func read(
    _ options: Set<PipelineOptions>
  ) -> @Sendable (inout FieldReader) throws(APIError) -> [String: JSON] {
    { (fields) throws(APIError) in
      var values: [String: JSON] = [:]
      for option in allCases where options.contains(option) { try option.read(&fields, into: &values) }
      return values
    }
  }

  private func read(_ fields: inout FieldReader, into values: inout [String: JSON]) throws(APIError) {
    switch self {
    case .strength: values[rawValue] = try fields.number(rawValue, in: 0...1).map { .number(JSONNumber($0)) }
    case .paddingMaskCrop:
      values[rawValue] = try fields.integer(rawValue, in: 0...16_384).map { .number(JSONNumber(text: "\($0)")) }
    case .maskBlur:
      values[rawValue] = try fields.number(rawValue, in: 0...1000).map { .number(JSONNumber($0)) }
    case .layers:
      values[rawValue] = try fields.integer(rawValue, in: LayerCount.limit).map {
        .number(JSONNumber(text: "\($0)"))
      }
    case .sigmas: values[rawValue] = try sigmas(&fields)
    case .outputResolution:
      values[rawValue] = try fields.integer(rawValue, in: ReferenceAreas.outputResolutionLimit).map {
        .number(JSONNumber(text: "\($0)"))
      }
    case .pasteBack: values[rawValue] = try fields.bool(rawValue).map { .bool($0) }
    case .control:
      for (name, range) in [("control_scale", -10...10), ("control_start", 0...1), ("control_end", 0...1)]
        as [(String, ClosedRange<Double>)]
      {
        guard let numbers = try fields.numbers(name, in: range, maxCount: ImageSpec.maxControlCount) else { continue }
        values[name] = .array(numbers.map { .number(JSONNumber($0)) })
      }
    }
  }
}

extension PipelineOptions {
  private func sigmas(_ fields: inout FieldReader) throws(APIError) -> JSON? {
    guard let sigmas = try fields.numbers(rawValue, in: 0...1, maxCount: ImageMetadata.maxSigmas) else { return nil }
    for (index, sigma) in sigmas.enumerated() {
      guard sigma > 0, index == 0 || sigma <= sigmas[index - 1] else {
        throw APIError(
          .invalidValue, "\(rawValue)[\(index)] is \(sigma); noise levels must be above 0 and fall", param: rawValue)
      }
    }
    return .array(sigmas.map { .number(JSONNumber(text: "\($0)")) })
  }
}

extension ImageSpec {
  /// The key of ``options`` that says what becomes of transparency: `opaque`, or absent.
  static let backgroundKey = "background"

  /// Noise levels of the steps before the shift; none: the model's.
  var sigmas: [Double] { options[PipelineOptions.sigmas.rawValue]?.elements?.compactMap(\.double) ?? [] }

  /// In which sizes networks see the images.
  var references: ReferenceAreas {
    card.references.with(outputResolutionPx: number(PipelineOptions.outputResolution.rawValue).map { Int($0) })
  }

  /// Whether the result has an alpha channel.
  public var isTransparent: Bool {
    layers > 0 || card.hasTransparency && !isOpaque && encoding.keepsTransparency
  }

  /// Whether what the model has left transparent is white.
  var isOpaque: Bool { options[Self.backgroundKey]?.text == "opaque" }

  /// Layers that the image is taken apart into; 0: the result is one image.
  public var layers: Int {
    pipeline == .layered ? number("layers").map { Int($0) } ?? LayerCount.default : 0
  }

  /// Files of the result.
  public var fileCount: Int { max(layers, 1) }

  /// Images that are denoised together: layers and their composite, or one.
  var latentCount: Int { layers == 0 ? 1 : layers + 1 }

  /// How much of the image is made anew.
  var strength: Double { number("strength") ?? PartialSchedule.defaultStrength }

  /// Steps that are left out at the beginning.
  var startStep: Int {
    guard pipeline.takesStrength else { return 0 }
    return (try? PartialSchedule.firstStep(steps: steps, strength: strength)) ?? 0
  }

  /// Steps that are made.
  public var stepCount: Int { edits.isEmpty ? steps - startStep : sequence.reduce(0) { $0 + $1.stepCount } }

  /// Whether the image's own pixels come back where the mask is black.
  var pastesBack: Bool { if case .bool(false)? = options["paste_back"] { false } else { true } }

  private func number(_ name: String) -> Double? {
    if case .number(let number)? = options[name] { number.double } else { nil }
  }

  /// The number for control image `index`; one number is for all of them.
  func controlNumber(_ name: String, _ index: Int) -> Double? {
    guard case .array(let numbers)? = options[name], !numbers.isEmpty else { return nil }
    guard case .number(let number) = numbers[numbers.count == 1 ? 0 : min(index, numbers.count - 1)] else { return nil }
    return number.double
  }

  /// The region that is made anew with `padding_mask_crop`.
  var maskRegion: PixelRegion? {
    guard case .array(let sides)? = options["mask_region"], sides.count == 4 else { return nil }
    let values = sides.compactMap { if case .number(let number) = $0 { number.integer } else { nil } }
    guard values.count == 4, values[0] >= 0, values[1] >= 0, values[2] > values[0], values[3] > values[1] else {
      return nil
    }
    return PixelRegion(left: values[0], top: values[1], right: values[2], bottom: values[3])
  }

  /// How image and mask of an inpainting become what the networks see.
  var inpaintingPreparation: ImagePreparation {
    maskRegion.map { ImagePreparation(size: size, region: $0, fit: .fill) } ?? ImagePreparation(size: size)
  }

  /// Where the decoded image goes.
  var overlay: (image: InputReference, mask: InputReference, region: PixelRegion?)? {
    guard pastesBack, let mask else { return nil }
    return (image(0), mask, maskRegion)
  }

  /// The images to begin with or to edit, in order.
  public var images: [InputReference] { inputs.filter { $0.role == .image } }
  /// The control images, in order.
  public var controls: [InputReference] { inputs.filter { $0.role == .control } }
  /// The mask.
  public var mask: InputReference? { inputs.first { $0.role == .mask } }

  /// Image number `index`, which the pipeline has required.
  func image(_ index: Int) -> InputReference { images[index] }

  /// The size in which the autoencoder sees image number `index`.
  func referenceSize(_ index: Int) -> ImageSize { images[index].size.scaled(toArea: references.referencePx) }

  /// The sizes of the images that condition every step, as the autoencoder sees them.
  var referenceSizes: [ImageSize] {
    switch pipeline {
    case .edit, .editPlus: images.indices.map { referenceSize($0) }
    case .editInpaint, .layered: [size]
    default: []
    }
  }

  /// Refuses references of which no denoiser could keep what it needs, before any of them is encoded.
  func checkReferences() throws(APIError) {
    guard let max = card.limits.maxReferenceTokens else { return }
    let branches = negativePrompt == nil ? 1 : 2
    let tokens = referenceSizes.reduce(0) { $0 + card.latents.packedShape(of: $1)[0] }
    guard branches * tokens > max else { return }
    let sizes = referenceSizes.map { "\($0)" }.joined(separator: ", ")
    let guided = branches == 1 ? "" : ", twice that with guidance"
    throw APIError(
      .invalidValue,
      "the images have \(tokens) tokens (they are seen as \(sizes))\(guided); the denoisers of \(card.model.id) keep "
        + "keys and values of at most \(max): send fewer images, or ask for a lower output_resolution",
      param: "image")
  }
}
