import ClusterCore
import Diffusion
import Foundation
import ImageCodec
import Kernels
import Weights

extension ImageProcessorConfiguration {
  /// The values published with Qwen-Image-2.1.
  public static let qwen3Published = ImageProcessorConfiguration(
    minPixels: 65_536, maxPixels: 16_777_216, rescaleFactor: 1.0 / 255, mean: [0.5, 0.5, 0.5],
    standardDeviation: [0.5, 0.5, 0.5])
}

/// How the images of prompts are read: the configurations of the vision tower and of the processor.
public struct Qwen3PromptImages: Sendable, Equatable, Encodable {
  /// `vision_config` of `text_encoder/config.json`.
  public var vision: Qwen3VisionConfiguration
  /// `processor/preprocessor_config.json`.
  public var processor: ImageProcessorConfiguration

  /// Reads both, and checks that they fit together.
  ///
  /// - Parameters:
  ///   - url: the checkpoint.
  ///   - text: the language model's configuration.
  public init(contentsOf url: URL, text: Qwen3TextConfiguration) throws(ConfigurationError) {
    vision = try Qwen3VisionConfiguration(contentsOf: url.appending(path: "text_encoder/config.json"), text: text)
    processor = try ImageProcessorConfiguration(
      directory: url.appending(path: "processor"), geometry: vision.geometry, standard: .qwen3Published)
  }

  /// Loads the tower.
  ///
  /// - Parameter weights: of `text_encoder/`, by their published names.
  public func reader(
    _ weights: ComponentWeights, compute: Compute, pool: ThreadPool
  ) throws(WeightsError) -> ImageReader {
    ImageReader(
      tower: try Qwen3VisionTower(weights, configuration: vision, compute: compute),
      preprocessor: ImagePreprocessor(geometry: vision.geometry, processor: processor, pool: pool),
      // The rows of one image of 2048×2048 pixels, for embeddings and for three layers.
      recentBytesMax: 256 << 20)
  }
}

/// A reference, as text encoder and autoencoder see it: both in the same size, from one resampling.
public enum ReferenceResizing {
  /// The size of a reference: of about `outputResolution`² pixels with the image's proportions, in multiples of 32.
  public static func size(of image: ImageSize, outputResolution: Int) -> ImageSize {
    image.scaled(toArea: outputResolution * outputResolution)
  }

  /// The reference with four channels, alpha not premultiplied; pixels are weighed by their alpha while it is resized.
  /// The autoencoder takes it as it is, the text encoder over white.
  ///
  /// - Parameter image: of one, three or four channels.
  public static func resized(_ image: RasterImage, outputResolution: Int) -> RasterImage {
    let own = ImageSize(widthPx: image.width, heightPx: image.height)
    let size = size(of: own, outputResolution: outputResolution)
    return image.rgba.resized(width: size.widthPx, height: size.heightPx, filter: .lanczos)
  }
}
