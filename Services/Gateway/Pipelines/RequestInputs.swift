import ClusterCore
import GatewayAPI
import ImageCodec
import StrictJSON

/// The decoded images of a request on their way into its specification.
struct RequestInputs {
  private var images: [RasterImage]
  private var controls: [RasterImage]
  private var mask: RasterImage?
  private let hasStrength: Bool
  /// Pipelines that the model has, but not yet workers for every stage of.
  var pending: [PipelineName] = []

  /// Decodes the images of `request`.
  init(
    _ request: GenerationRequest, _ card: ModelCard, _ pipelines: PipelineRegistry, _ intake: ImageIntake
  ) throws(APIError) {
    var decoded = try intake.decode(request.uploads)
    images = decoded.removeValue(forKey: .image) ?? []
    controls = decoded.removeValue(forKey: .control) ?? []
    mask = decoded.removeValue(forKey: .mask)?.first
    hasStrength = request.optionFields.contains("strength")
    if let outpainting = request.outpainting { try outpaint(outpainting, intake) }
    if let object = request.object { try edit(object) }
    if mask == nil, Self.takesMaskFromImage(request, card, pipelines) { takeMaskFromImage() }
  }

  /// The inputs of one edit of several: what the edit before has made, or an image of its size.
  init(_ image: RasterImage, for request: GenerationRequest, pending: [PipelineName]) throws(APIError) {
    self.pending = pending
    (images, controls, mask) = ([image], [], nil)
    hasStrength = request.optionFields.contains("strength")
    if let object = request.object { try edit(object) }
  }

  /// The image that several edits begin with.
  func onlyImage(of request: GenerationRequest, _ card: ModelCard) throws(APIError) -> RasterImage {
    let others = [
      ("mask", mask != nil), ("control_image", !controls.isEmpty), ("outpaint", request.outpainting != nil),
      ("region", request.object != nil), ("pipeline", request.pipeline != nil), ("size", request.size != nil),
    ]
    if let other = others.first(where: { $0.1 })?.0 ?? request.optionFields.sorted().first {
      throw APIError(
        .invalidValue, "\(other) is not taken beside edit_instructions, whose elements have fields of their own",
        param: other)
    }
    guard images.count == 1 else {
      throw APIError(
        images.isEmpty ? .missingField : .invalidValue,
        "edit_instructions are for one image, and there are \(images.count)", param: "image")
    }
    return card.hasTransparency ? images[0] : images[0].overWhite
  }

  private mutating func edit(_ object: ObjectEdit) throws(APIError) {
    let field = object.boxes.isEmpty ? "move" : "region"
    guard images.count == 1, controls.isEmpty else {
      throw APIError(.invalidValue, "\(field) is for requests with one image", param: field)
    }
    if let boxes = try object.mask(for: sizes[0]) {
      guard mask == nil else {
        throw APIError(.invalidValue, "\(field) and mask: give one of them", param: field)
      }
      mask = boxes
    }
    guard let move = object.move else { return }
    guard let shown = mask else {
      throw APIError(.missingField, "region is missing: it says what is moved; boxes or mask can too", param: "region")
    }
    guard shown.width == images[0].width, shown.height == images[0].height else { return }
    (images[0], mask) = try move.applied(to: images[0].overWhite, object: shown)
  }

  /// Whether what is transparent in the request's image may be its mask. A request that names a pipeline has chosen;
  /// for editing models transparency is a part of the image, and a variation is one of the whole image.
  private static func takesMaskFromImage(
    _ request: GenerationRequest, _ card: ModelCard, _ pipelines: PipelineRegistry
  ) -> Bool {
    if request.isVariation || !request.instructions.isEmpty { return false }
    if let name = request.pipeline { return pipelines.pipelines.first { $0.name.text == name }?.takesMask ?? false }
    return card.takesMaskFromTransparency
  }

  private mutating func outpaint(_ outpainting: Outpainting, _ intake: ImageIntake) throws(APIError) {
    guard images.count == 1, mask == nil, controls.isEmpty else {
      throw APIError(.invalidValue, "outpaint is for requests with one image, and without a mask", param: "outpaint")
    }
    try outpainting.check(images[0], intake)
    let (image, mask) = outpainting.canvas(of: images[0])
    images = [image]
    self.mask = mask
  }

  /// As in OpenAI's API: an image with transparency is its own mask.
  private mutating func takeMaskFromImage() {
    guard images.count == 1, controls.isEmpty, images[0].hasTransparency else { return }
    mask = images[0].asMask
    images[0] = images[0].rgb
  }

  /// Sizes of the images, in order.
  var sizes: [ImageSize] { images.map { ImageSize(widthPx: $0.width, heightPx: $0.height) } }

  /// The pipeline that the request is for; the images must be those that it takes.
  func choosePipeline(
    _ request: GenerationRequest, _ card: ModelCard, _ pipelines: PipelineRegistry
  ) throws(APIError) -> Pipeline {
    let summary = RequestImages(
      sizes: sizes, hasMask: mask != nil, controlCount: controls.count, hasStrength: hasStrength)
    let name: PipelineName
    do throws(Status) { name = try card.pipeline(named: request.pipeline, for: summary) } catch {
      var coming = card
      coming.pipelines += pending
      if let name = try? coming.pipeline(named: request.pipeline, for: summary) {
        throw APIError(
          .notReady, "a stage of the pipeline \(name) of \(card.model.id) has no ready worker yet",
          retryAfterSeconds: 5)
      }
      throw APIError(.invalidValue, error.message, param: error.field)
    }
    guard let pipeline = pipelines[name] else {
      throw APIError(.unsupportedValue, "this gateway does not know the pipeline \(name)", param: "pipeline")
    }
    try check("image", images.count, pipeline.images, name)
    if images.count > card.references.maxCount {
      throw APIError(
        .invalidValue,
        "there are \(images.count) of image, but \(card.model.id) takes \(card.references.maxCount) at most",
        param: "image")
    }
    try check("control_image", controls.count, pipeline.controls, name)
    try check("mask", mask == nil ? 0 : 1, pipeline.takesMask ? 1...1 : 0...0, name)
    return pipeline
  }

  private func check(
    _ field: String, _ count: Int, _ allowed: ClosedRange<Int>, _ pipeline: PipelineName
  ) throws(APIError) {
    guard !allowed.contains(count) else { return }
    if count == 0 { throw APIError(.missingField, "\(field) is missing: \(pipeline) needs it", param: field) }
    let limit = allowed.upperBound == 0 ? "takes none" : "takes \(allowed.upperBound) at most"
    throw APIError(.invalidValue, "there are \(count) of \(field), but \(pipeline) \(limit)", param: field)
  }

  /// What the request says in the pipeline's own fields; fields of other pipelines are refused.
  func options(of request: GenerationRequest, _ pipeline: Pipeline) throws(APIError) -> [String: JSON] {
    let options = request.options[pipeline.name] ?? [:]
    if let other = request.optionFields.sorted().first(where: { options[$0] == nil }) {
      throw APIError(.unsupportedValue, "\(other): the pipeline \(pipeline.name) does not take it", param: other)
    }
    // What has moved away must not be begun with.
    if request.object?.move != nil, options["strength"] == nil, request.options[pipeline.name] != nil,
      [.inpaint, .editInpaint].contains(pipeline.name)
    {
      return options.merging(["strength": .number(JSONNumber(text: "1"))]) { $1 }
    }
    return options
  }

  /// Brings images and mask into the form in which they are kept, and finds the part of the image to work on.
  mutating func finish(
    _ options: inout [String: JSON], _ pipeline: PipelineName, _ size: ImageSize, _ card: ModelCard
  ) throws(APIError) {
    try checkControlNumbers(options)
    // Layers have the image's transparency, and so have models for it; all others see what is transparent over white.
    if pipeline != .layered, !card.hasTransparency { images = images.map(\.overWhite) }
    guard let mask else { return }
    let target = images.first ?? controls.first
    guard let target, target.width == mask.width, target.height == mask.height else {
      let found = target.map { "the image is \($0.width)x\($0.height)" } ?? "there is no image"
      throw APIError(.invalidValue, "mask is \(mask.width)x\(mask.height), but \(found)", param: "mask")
    }
    let radius = options["mask_blur"]?.double ?? 0
    let blurred = radius > 0 ? mask.gaussianBlurred(radius: radius) : mask
    self.mask = blurred
    guard let padding = options["padding_mask_crop"]?.integer else { return }
    guard let region = blurred.maskRegion(forWidth: size.widthPx, height: size.heightPx, padding: padding) else {
      throw APIError(.invalidValue, "mask is black: nothing is to be made anew", param: "mask")
    }
    options["mask_region"] = .array(
      [region.left, region.top, region.right, region.bottom].map { .number(JSONNumber(text: "\($0)")) })
  }

  /// Lists of numbers for control images have one for each image, or one for all.
  private func checkControlNumbers(_ options: [String: JSON]) throws(APIError) {
    func numbers(_ name: String, _ standard: Double) throws(APIError) -> [Double] {
      guard let numbers = options[name]?.elements?.compactMap(\.double) else {
        return Array(repeating: standard, count: controls.count)
      }
      guard numbers.count != 1 else { return Array(repeating: numbers[0], count: controls.count) }
      guard numbers.count == controls.count else {
        throw APIError(
          .invalidValue, "\(name) has \(numbers.count) numbers, but there are \(controls.count) of control_image",
          param: name)
      }
      return numbers
    }
    _ = try numbers("control_scale", 1)
    for (start, end) in zip(try numbers("control_start", 0), try numbers("control_end", 1)) where start > end {
      throw APIError(
        .invalidValue, "control_end is \(end), but must not be below control_start, which is \(start)",
        param: "control_end")
    }
  }

  /// All images, in the order of ``ImageSpec/inputs``.
  var all: [InputImage] {
    images.map { InputImage($0, role: .image) } + controls.map { InputImage($0.overWhite, role: .control) }
      + (mask.map { [InputImage($0, role: .mask)] } ?? [])
  }
}
