import ClusterCore
import ImageCodec
import TensorCore

/// What a request has besides its prompt: images, and how they are used.
public struct PipelineInputs: Sendable {
  /// A control image.
  public struct Control: Sendable {
    /// RGB.
    public var image: RasterImage
    /// What the network's residuals are multiplied with.
    public var scale: Double
    /// The part of the steps in which it acts, from 0 to 1.
    public var range: ClosedRange<Double>

    /// See the properties.
    public init(_ image: RasterImage, scale: Double = 1, range: ClosedRange<Double> = 0...1) {
      self.image = image
      self.scale = scale
      self.range = range
    }
  }

  /// The images of the request, in order.
  public var images: [RasterImage] = []
  /// White where the image is made anew; nil: none.
  public var mask: RasterImage?
  /// How much of the image is made anew, from 0 (nothing) to 1; nil: the pipeline's default.
  public var strength: Double?
  /// Only the masked part, with so many pixels around it, is made anew, at full size; nil: the whole image.
  public var paddingMaskCrop: Int?
  /// Standard deviation of the blur of the mask's edge, in pixels of the mask.
  public var maskBlur = 0.0
  /// Whether the image's own pixels take the place of decoded ones outside of the mask. The reference does so with a
  /// crop only.
  public var pastesBack = false
  /// Control images, one for each of the loaded networks, in their order.
  public var controls: [Control] = []
  /// Layers to take the image apart into.
  public var layers = LayerCount.default
  /// References have about the square of it in pixels; nil: as the model does it.
  public var outputResolutionPx: Int?
  /// What was made around the image before it came to be one of ``images``; nil: nothing.
  public var outpainting: Outpainting?
  /// The files that the images were read from, which the result names.
  public var files: [ImageSource.Input] = []
  /// Whether what the model has left transparent is white; layers stay as they are.
  public var isOpaque = false

  /// No images.
  public init() {}

  /// What the choice of a pipeline needs to know.
  public var summary: RequestImages {
    RequestImages(
      sizes: images.map(\.size), hasMask: mask != nil, controlCount: controls.count, hasStrength: strength != nil)
  }
}

extension PipelineInputs {
  /// What an image that `pipeline` makes keeps about them; the gateway writes the same.
  public func source(for pipeline: PipelineName) -> ImageSource? {
    guard pipeline != .textToImage else { return nil }
    var source = ImageSource(pipeline: pipeline.text, inputs: files)
    if pipeline.takesStrength { source.strength = strength ?? PartialSchedule.defaultStrength }
    if pipeline.takesOutputResolution { source.outputResolution = outputResolutionPx }
    if pipeline.keepsPixels {
      source.paddingMaskCrop = paddingMaskCrop
      source.pasteBack = pastesBack
    }
    if mask != nil, maskBlur > 0 { source.maskBlur = maskBlur }
    source.outpaint = outpainting.map { ImageSource.Margins($0) }
    if pipeline.isForControl {
      source.controlScale = controls.map(\.scale)
      source.controlStart = controls.map(\.range.lowerBound)
      source.controlEnd = controls.map(\.range.upperBound)
    }
    if pipeline == .layered { source.layers = layers }
    return source
  }
}

extension RasterImage {
  /// The part and size that a network is to see.
  package func prepared(by preparation: ImagePreparation, filter: ResamplingFilter = .lanczos) -> RasterImage {
    let part = preparation.region.map { cropped(to: Region($0)) } ?? self
    let (width, height) = (preparation.size.widthPx, preparation.size.heightPx)
    switch preparation.fit {
    case .stretch: return part.resized(width: width, height: height, filter: filter)
    case .fill: return part.resizedToFill(width: width, height: height, filter: filter)
    }
  }

  /// The image's size.
  package var size: ImageSize { ImageSize(widthPx: width, heightPx: height) }
}

extension RasterImage.Region {
  init(_ region: PixelRegion) {
    self.init(left: region.left, top: region.top, right: region.right, bottom: region.bottom)
  }
}

extension PixelRegion {
  init(_ region: RasterImage.Region) {
    self.init(left: region.left, top: region.top, right: region.right, bottom: region.bottom)
  }
}

extension Tensor {
  /// The pixels [height, width, channels] in [-1, 1]: x / 255 · 2 - 1, as the reference computes it.
  package init(pixels image: RasterImage) {
    self.init(image.pixels.map { Float($0) / 255 * 2 - 1 }, shape: [image.height, image.width, image.channels])
  }

  /// A mask [1, height / scale, width / scale] of an image of one channel: 1 where it is at least half white, of every
  /// `scale`-th pixel along both sides.
  init(mask image: RasterImage, scale: Int) {
    precondition(image.channels == 1, "a mask of \(image.channels) channels")
    let (height, width) = (image.height / scale, image.width / scale)
    let values = (0..<height * width).map { index in
      // x / 255 ≥ 0.5, which no 8-bit value meets exactly.
      image.pixels[index / width * scale * image.width + index % width * scale] >= 128 ? Float(1) : 0
    }
    self.init(values, shape: [1, height, width])
  }
}
