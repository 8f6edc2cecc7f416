import Foundation
import Weights

/// How images are prepared for the vision tower (transformers `Qwen2VLImageProcessor`).
public struct ImageProcessorConfiguration: Sendable, Equatable, Codable {
  /// Fewest pixels that the tower sees; smaller images are enlarged.
  public var minPixels: Int
  /// Most pixels that the tower sees; larger images are made smaller.
  public var maxPixels: Int
  /// What values of 0 to 255 are multiplied with.
  public var rescaleFactor: Double
  /// Per channel, subtracted after rescaling.
  public var mean: [Double]
  /// Per channel, divided by after that.
  public var standardDeviation: [Double]

  private static let classes = [
    "Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil", "Qwen2_5_VLImageProcessor",
  ]
  /// Larger areas would not fit 32-bit sizes of anything that follows.
  private static let pixelsMax = 1 << 30

  /// Reads `image_processor` of `processor_config.json`, as transformers 5 writes it, or `preprocessor_config.json`;
  /// absent files and fields have the values of `standard`.
  ///
  /// - Parameters:
  ///   - directory: `processor/`.
  ///   - geometry: the tower's, which the sizes of patches must agree with.
  ///   - standard: the published values.
  package init(
    directory: URL, geometry: PatchGeometry, standard: ImageProcessorConfiguration
  ) throws(ConfigurationError) {
    self = standard
    guard let fields = try Self.fields(in: directory) else { return }
    try fields.require("image_processor_type", oneOf: Self.classes)
    for step in ["do_resize", "do_rescale", "do_normalize"] where try fields.boolean(step, default: true) == false {
      throw .unsupported(
        file: fields.file, field: step, value: "false", supported: ["true: the tower was trained with this step"])
    }
    let bicubic = 3, resample = try fields.integer("resample", in: 0...5, default: bicubic)
    guard resample == bicubic else {
      throw .unsupported(
        file: fields.file, field: "resample", value: "\(resample)", supported: ["\(bicubic) (bicubic)"])
    }
    for (name, size) in [
      ("patch_size", geometry.patchSize), ("temporal_patch_size", geometry.temporalPatchSize),
      ("merge_size", geometry.mergeSize),
    ] {
      let found = try fields.integer(name, in: 1...256, default: size)
      guard found == size else { throw fields.outOfRange(name, found, "\(size), as the vision tower has it") }
    }
    try readPixels(fields)
    rescaleFactor = try fields.number("rescale_factor", in: 1e-9...1e9, default: rescaleFactor)
    let channels = PatchGeometry.channels
    if fields.value("image_mean") != nil {
      mean = try fields.numbers("image_mean", count: channels...channels, in: -1e6...1e6)
    }
    if fields.value("image_std") != nil {
      standardDeviation = try fields.numbers("image_std", count: channels...channels, in: 1e-6...1e6)
    }
  }

  /// `min_pixels` and `max_pixels`, or `size.shortest_edge` and `size.longest_edge`, which mean the same here; where
  /// both exist the former count.
  private mutating func readPixels(_ fields: ConfigurationFields) throws(ConfigurationError) {
    if let size = try fields.object("size") {
      minPixels = try size.integer("shortest_edge", in: 1...Self.pixelsMax, default: minPixels)
      maxPixels = try size.integer("longest_edge", in: 1...Self.pixelsMax, default: maxPixels)
    }
    minPixels = try fields.integer("min_pixels", in: 1...Self.pixelsMax, default: minPixels)
    maxPixels = try fields.integer("max_pixels", in: 1...Self.pixelsMax, default: maxPixels)
    guard minPixels <= maxPixels else {
      throw fields.outOfRange("min_pixels", minPixels, "at most max_pixels, \(maxPixels)")
    }
  }

  private static func fields(in directory: URL) throws(ConfigurationError) -> ConfigurationFields? {
    for (name, member) in [("processor_config.json", "image_processor"), ("preprocessor_config.json", nil)] {
      let file = directory.appending(path: name)
      guard isPresent(file.path) else { continue }
      let fields = try ConfigurationFields(contentsOf: file)
      guard let member else { return fields }
      // Older files of this name are about the text only.
      if let own = try fields.object(member) { return own }
    }
    return nil
  }

  /// See the properties.
  public init(
    minPixels: Int, maxPixels: Int, rescaleFactor: Double, mean: [Double], standardDeviation: [Double]
  ) {
    self.minPixels = minPixels
    self.maxPixels = maxPixels
    self.rescaleFactor = rescaleFactor
    self.mean = mean
    self.standardDeviation = standardDeviation
  }
}
