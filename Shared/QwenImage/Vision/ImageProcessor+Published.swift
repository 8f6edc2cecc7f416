import Diffusion
import Foundation
import Kernels

extension ImageProcessorConfiguration {
  /// The values published with Qwen-Image-Edit.
  public static let published = ImageProcessorConfiguration(
    minPixels: 3136, maxPixels: 12_845_056, rescaleFactor: 1.0 / 255,
    mean: [0.48145466, 0.4578275, 0.40821073], standardDeviation: [0.26862954, 0.26130258, 0.27577711])

  /// Reads the files of a checkpoint; absent files and fields have their published values.
  ///
  /// - Parameters:
  ///   - directory: `processor/`.
  ///   - vision: the tower's configuration, which the sizes of patches must agree with.
  public init(directory: URL, vision: VisionConfiguration) throws(ConfigurationError) {
    try self.init(directory: directory, geometry: vision.geometry, standard: .published)
  }
}

extension ImagePreprocessor {
  /// Prepares images for a tower.
  public init(vision: VisionConfiguration, processor: ImageProcessorConfiguration, pool: ThreadPool) {
    self.init(geometry: vision.geometry, processor: processor, pool: pool)
  }
}
