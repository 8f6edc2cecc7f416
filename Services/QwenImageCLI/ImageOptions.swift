import ArgumentParser
import ClusterCore
import Diffusion
import Foundation
import ImageCodec

/// The flags for images that a request begins with; `local` and the commands for clusters share them.
struct ImageOptions: ParsableArguments {
  @Option(
    name: [.short, .long],
    help: "An image to begin with or to edit: PNG, JPEG or WebP. Repeat it for several, in order.")
  var image: [String] = []

  @Option(help: "A mask: what is white, or transparent in a file with transparency, is made anew.")
  var mask: String?

  @Option(parsing: .unconditional, help: "How much of the image is made anew, above 0 and up to 1. Default: 0.6.")
  var strength: Double?

  @Option(parsing: .unconditional, help: "Make only the masked part anew, with so many pixels around it, at full size.")
  var paddingMaskCrop: Int?

  @Option(parsing: .unconditional, help: "Blur the mask's edge: standard deviation in pixels.")
  var maskBlur = 0.0

  @Option(help: "A control image. Repeat it for several control networks, in their order.")
  var controlImage: [String] = []

  @Option(parsing: .unconditionalSingleValue, help: "Strength of a control image. Repeat it for several. Default: 1.")
  var controlScale: [Double] = []

  @Option(
    parsing: .unconditionalSingleValue,
    help: "Where in the steps, from 0 to 1, a control image begins to act. Repeat it for several.")
  var controlStart: [Double] = []

  @Option(
    parsing: .unconditionalSingleValue,
    help: "Where in the steps, from 0 to 1, a control image stops to act. Repeat it for several.")
  var controlEnd: [Double] = []

  @Option(parsing: .unconditional, help: "Layers to take the image apart into, 2 to 10.")
  var layers: Int?

  @Option(help: "What to do, where the model and the images leave it open: \(Self.pipelines).")
  var pipeline: String?

  private static let pipelines =
    "text-to-image, img2img, inpaint, edit, edit-plus, edit-inpaint, controlnet, controlnet-inpaint, layered"

  /// Reads the files.
  ///
  /// - Throws: `OutputError` naming the flag and the file.
  func inputs() throws -> PipelineInputs {
    var inputs = PipelineInputs()
    inputs.images = try image.map { try Self.read($0, "--image") }
    inputs.mask = try mask.map { try Self.mask(try Self.read($0, "--mask")) }
    inputs.strength = strength
    inputs.paddingMaskCrop = paddingMaskCrop
    inputs.maskBlur = maskBlur
    inputs.controls = try controlImage.enumerated().map { index, file in
      let start = Self.value(controlStart, index) ?? 0, end = Self.value(controlEnd, index) ?? 1
      guard start >= 0, end <= 1, start <= end else {
        throw OutputError(
          name: "--control-start \(start), --control-end \(end)", reason: "they must be from 0 to 1, in this order")
      }
      return PipelineInputs.Control(
        try Self.read(file, "--control-image"), scale: Float(Self.value(controlScale, index) ?? 1), range: start...end)
    }
    if let layers { inputs.layers = layers }
    return inputs
  }

  /// The value for control image `index`; one value is for all of them.
  private static func value(_ values: [Double], _ index: Int) -> Double? {
    values.count == 1 ? values[0] : values.indices.contains(index) ? values[index] : nil
  }

  /// Transparency says what to make anew, where there is any, as in OpenAI's API; else brightness.
  private static func mask(_ image: RasterImage) -> RasterImage { image.channels == 4 ? image.alpha.inverted : image }

  private static func read(_ path: String, _ option: String) throws -> RasterImage {
    let bytes: [UInt8]
    do {
      bytes = [UInt8](
        try path == "-" ? FileHandle.standardInput.readToEnd() ?? Data() : Data(contentsOf: URL(filePath: path)))
    } catch {
      throw OutputError(name: "\(option) \(path)", reason: error.localizedDescription)
    }
    do { return try ImageFile.decode(bytes) } catch { throw OutputError(name: "\(option) \(path)", reason: "\(error)") }
  }
}
