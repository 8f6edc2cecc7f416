import ArgumentParser
import ClusterCore
import Diffusion
import Foundation
import ImageCodec

/// Flags for what a request has beside its prompt. Each group gives the same to a pipeline in this process and to a
/// gateway.
protocol ImageFlags {
  /// Reads the files, and adds what the flags say to `inputs`.
  ///
  /// - Throws: `OutputError` naming the flag and what is wrong with its value.
  func add(to inputs: inout PipelineInputs, _ reader: inout InputFileReader) throws

  /// Reads the files, and adds what the flags say to a request's form. Errors as above.
  func add(to form: inout UploadForm, _ reader: inout InputFileReader) throws
}

/// Images to begin with, to edit, or to take apart.
struct SourceOptions: ParsableArguments, ImageFlags {
  @Option(
    name: [.short, .long],
    help: "An image to begin with or to edit: PNG, JPEG or WebP; - is standard input. Repeat it for several, in order.",
    completion: .imageFile)
  var image: [String] = []

  func add(to inputs: inout PipelineInputs, _ reader: inout InputFileReader) throws {
    for path in image { inputs.images.append(try reader.read(path, "--image").decoded(as: "image", of: &inputs)) }
  }

  func add(to form: inout UploadForm, _ reader: inout InputFileReader) throws {
    for path in image { form.add("image", try reader.read(path, "--image")) }
  }
}

/// A mask.
struct MaskOptions: ParsableArguments, ImageFlags {
  @Option(
    help: "A mask: what is white, or transparent in a file with transparency, is made anew.", completion: .imageFile)
  var mask: String?

  func add(to inputs: inout PipelineInputs, _ reader: inout InputFileReader) throws {
    if let mask { inputs.mask = try reader.read(mask, "--mask").decoded(as: "mask", of: &inputs).asMask }
  }

  func add(to form: inout UploadForm, _ reader: inout InputFileReader) throws {
    if let mask { form.add("mask", try reader.read(mask, "--mask")) }
  }
}

/// The edge of a mask.
struct MaskBlurOptions: ParsableArguments, ImageFlags {
  @Option(parsing: .unconditional, help: "Blur the mask's edge: standard deviation in pixels.")
  var maskBlur: Double?

  func validate() throws { try requireFinite(maskBlur, "--mask-blur") }

  func add(to inputs: inout PipelineInputs, _ reader: inout InputFileReader) {
    if let maskBlur { inputs.maskBlur = maskBlur }
  }

  func add(to form: inout UploadForm, _ reader: inout InputFileReader) { form.add("mask_blur", maskBlur) }
}

/// What stays of an image outside of a mask.
struct PasteOptions: ParsableArguments, ImageFlags {
  @Flag(
    inversion: .prefixedNo,
    help: "With a mask, put the image's own pixels back where it is black, byte for byte. Default: --paste-back.")
  var pasteBack: Bool?

  func add(to inputs: inout PipelineInputs, _ reader: inout InputFileReader) { inputs.pastesBack = pasteBack ?? true }

  func add(to form: inout UploadForm, _ reader: inout InputFileReader) { form.add("paste_back", pasteBack) }
}

/// The part of an image that is made anew at full size.
struct CropOptions: ParsableArguments, ImageFlags {
  @Option(parsing: .unconditional, help: "Make only the masked part anew, with so many pixels around it, at full size.")
  var paddingMaskCrop: Int?

  func add(to inputs: inout PipelineInputs, _ reader: inout InputFileReader) {
    inputs.paddingMaskCrop = paddingMaskCrop
  }

  func add(to form: inout UploadForm, _ reader: inout InputFileReader) {
    form.add("padding_mask_crop", paddingMaskCrop)
  }
}

/// How much of an image is made anew.
struct StrengthOptions: ParsableArguments, ImageFlags {
  @Option(
    parsing: .unconditional,
    help: "How much of the image is made anew, above 0 and up to 1. Default: \(PartialSchedule.defaultStrength).")
  var strength: Double?

  func validate() throws { try requireFinite(strength, "--strength") }

  func add(to inputs: inout PipelineInputs, _ reader: inout InputFileReader) { inputs.strength = strength }

  func add(to form: inout UploadForm, _ reader: inout InputFileReader) { form.add("strength", strength) }
}

/// Pixels to make around an image.
struct OutpaintOptions: ParsableArguments, ImageFlags {
  @Option(parsing: .unconditional, help: "Pixels to make at the image's left side.")
  var left: Int?

  @Option(parsing: .unconditional, help: "Pixels to make at the image's right side.")
  var right: Int?

  @Option(parsing: .unconditional, help: "Pixels to make above the image.")
  var top: Int?

  @Option(parsing: .unconditional, help: "Pixels to make below the image.")
  var bottom: Int?

  @Option(
    parsing: .unconditional,
    help: """
      Pixels of the image, from the sides at which pixels are made, over which old and new ones are mixed. \
      Default: \(Outpainting.defaultFeather).
      """)
  var feather: Int?

  func validate() throws {
    for (name, side) in [("--left", left), ("--right", right), ("--top", top), ("--bottom", bottom)] {
      try requireRange(side, Outpainting.sideLimit, name)
    }
    try requireRange(feather, Outpainting.featherLimit, "--feather")
    guard feather == nil || outpainting != nil else {
      throw ValidationError("--feather is for --left, --right, --top and --bottom, of which there is none")
    }
  }

  /// What the flags ask for; nil: nothing.
  var outpainting: Outpainting? {
    let outpainting = Outpainting(
      left: left ?? 0, top: top ?? 0, right: right ?? 0, bottom: bottom ?? 0,
      feather: feather ?? Outpainting.defaultFeather)
    return outpainting.isEmpty ? nil : outpainting
  }

  func add(to inputs: inout PipelineInputs, _ reader: inout InputFileReader) throws {
    guard let outpainting else { return }
    guard inputs.images.count == 1, inputs.mask == nil, inputs.controls.isEmpty else {
      throw OutputError(
        name: "--left, --right, --top, --bottom", reason: "they are for requests with one image, and without a mask")
    }
    let (image, mask) = outpainting.canvas(of: inputs.images[0])
    (inputs.images, inputs.mask, inputs.outpainting) = ([image], mask, outpainting)
  }

  func add(to form: inout UploadForm, _ reader: inout InputFileReader) {
    guard let outpainting else { return }
    let sides = [
      ("left", outpainting.left), ("top", outpainting.top), ("right", outpainting.right),
      ("bottom", outpainting.bottom), ("feather", outpainting.feather),
    ]
    form.add("outpaint", "{\(sides.map { "\"\($0)\":\($1)" }.joined(separator: ","))}")
  }
}

/// Images for control networks.
struct ControlOptions: ParsableArguments, ImageFlags {
  @Option(
    help: """
      A control image; - is standard input. Repeat it for several: of several control networks each reads one, in \
      order, one alone reads them all.
      """,
    completion: .imageFile)
  var controlImage: [String] = []

  @Option(
    parsing: .unconditionalSingleValue,
    help: "Strength of a control image, from -10 to 10. Repeat it for several. Default: 1.")
  var controlScale: [Double] = []

  @Option(
    parsing: .unconditionalSingleValue,
    help: "Where in the steps, from 0 to 1, a control image begins to act. Repeat it for several.")
  var controlStart: [Double] = []

  @Option(
    parsing: .unconditionalSingleValue,
    help: "Where in the steps, from 0 to 1, a control image stops to act. Repeat it for several.")
  var controlEnd: [Double] = []

  func validate() throws {
    for (name, values, limit) in [
      ("--control-scale", controlScale, -10...10), ("--control-start", controlStart, 0...1),
      ("--control-end", controlEnd, 0...1),
    ] as [(String, [Double], ClosedRange<Double>)] {
      for value in values { try requireRange(value, limit, name) }
      guard [0, 1, controlImage.count].contains(values.count), values.isEmpty || !controlImage.isEmpty else {
        throw ValidationError(
          "\(name) is given \(values.count) times; give it once, or once for each of the \(controlImage.count) control "
            + "images")
      }
    }
    for index in controlImage.indices where start(index) > end(index) {
      throw ValidationError("--control-start is \(start(index)), after --control-end, which is \(end(index))")
    }
  }

  func add(to inputs: inout PipelineInputs, _ reader: inout InputFileReader) throws {
    for (index, path) in controlImage.enumerated() {
      inputs.controls.append(
        PipelineInputs.Control(
          try reader.read(path, "--control-image").decoded(as: "control", of: &inputs),
          scale: Self.value(controlScale, index) ?? 1, range: start(index)...end(index)))
    }
  }

  func add(to form: inout UploadForm, _ reader: inout InputFileReader) throws {
    for path in controlImage { form.add("control_image", try reader.read(path, "--control-image")) }
    for (field, values) in [
      ("control_scale", controlScale), ("control_start", controlStart), ("control_end", controlEnd),
    ] where !values.isEmpty {
      form.add(field, "[\(values.map { "\($0)" }.joined(separator: ","))]")
    }
  }

  private func start(_ index: Int) -> Double { Self.value(controlStart, index) ?? 0 }
  private func end(_ index: Int) -> Double { Self.value(controlEnd, index) ?? 1 }

  /// The value for control image `index`; one value is for all of them.
  private static func value(_ values: [Double], _ index: Int) -> Double? {
    values.count == 1 ? values[0] : values.indices.contains(index) ? values[index] : nil
  }
}

/// Layers to take an image apart into.
struct LayerOptions: ParsableArguments, ImageFlags {
  @Option(
    name: [.customShort("n"), .long], parsing: .unconditional,
    help: """
      Layers to take the image apart into, \(LayerCount.limit.lowerBound) to \(LayerCount.limit.upperBound), written \
      with their number, from 0 at the bottom, before the extension of --output. Default: \(LayerCount.default).
      """)
  var layers: Int?

  func validate() throws { try requireRange(layers, LayerCount.limit, "--layers") }

  func add(to inputs: inout PipelineInputs, _ reader: inout InputFileReader) {
    if let layers { inputs.layers = layers }
  }

  func add(to form: inout UploadForm, _ reader: inout InputFileReader) { form.add("layers", layers) }
}

/// What to do, where the model and the images leave it open.
struct PipelineChoiceOptions: ParsableArguments {
  @Option(help: "What to do, where the model and the images leave it open: \(Self.names).")
  var pipeline: String?

  private static let names =
    "text-to-image, img2img, inpaint, edit, edit-plus, edit-inpaint, controlnet, controlnet-inpaint, layered"
}

extension CompletionKind {
  /// Image files.
  fileprivate static var imageFile: CompletionKind { .file(extensions: ["png", "jpg", "jpeg", "webp"]) }
}

private func requireFinite(_ value: Double?, _ option: String) throws {
  guard let value, !value.isFinite else { return }
  throw ValidationError("\(option) is \(value); it must be a finite number")
}

private func requireRange<Value>(_ value: Value?, _ range: ClosedRange<Value>, _ option: String) throws {
  guard let value, !range.contains(value) else { return }
  throw ValidationError("\(option) is \(value); it must be from \(range.lowerBound) to \(range.upperBound)")
}
