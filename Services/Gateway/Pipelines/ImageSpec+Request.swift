import ClusterCore
import GatewayAPI
import ImageCodec

extension ImageSpec {
  /// The images that `request` asks for: equal but for their seeds, which are consecutive.
  ///
  /// - Parameters:
  ///   - request: as it was sent.
  ///   - card: of the model that it is for.
  ///   - pending: pipelines that the model has, but not yet workers for every stage of.
  ///   - pipelines: those that this gateway knows.
  ///   - intake: what images may be. They are decoded here, which takes up to a second.
  ///   - randomSeed: used when the request has no seed; at most 2^53, so that JavaScript clients can read it back.
  /// - Returns: the images to make, and those that they begin with, once each.
  public static func images(
    of request: GenerationRequest, card: ModelCard, pending: [PipelineName] = [],
    pipelines: PipelineRegistry = .standard,
    intake: ImageIntake = ImageIntake(), randomSeed: UInt64
  ) throws(APIError) -> (images: [ImageSpec], inputs: [InputImage]) {
    var inputs = try RequestInputs(request, card, pipelines, intake)
    inputs.pending = pending
    var (first, kept) =
      request.instructions.isEmpty
      ? try image(of: request, inputs, card, pipelines, randomSeed: randomSeed)
      : try sequence(of: request, inputs, card, pipelines, randomSeed: randomSeed)
    first.files = ImageField.all.flatMap { field in
      request.uploads.filter { $0.field == field.name }.map {
        ImageSource.Input(role: field.role.rawValue, file: $0.bytes)
      }
    }
    let images = (0..<request.imageCount).map { index in
      var image = first
      image.seed += UInt64(index)
      return image
    }
    return (images, kept)
  }

  private static func image(
    of request: GenerationRequest, _ inputs: RequestInputs, _ card: ModelCard, _ pipelines: PipelineRegistry,
    randomSeed: UInt64
  ) throws(APIError) -> (spec: ImageSpec, inputs: [InputImage]) {
    var inputs = inputs
    let pipeline = try inputs.choosePipeline(request, card, pipelines)
    var (options, prompt) = try request.background.applied(
      to: inputs.options(of: request, pipeline), request.prompt, pipeline.name, card)
    options = ImageSpec.options(options, with: request.encoding)
    try checkPrompt(prompt, "prompt", card)
    let negativePrompt = card.defaults.negativePrompt(for: request.negativePrompt)
    if let negativePrompt { try checkPrompt(negativePrompt, "negative_prompt", card) }
    let trueCFGScale = request.trueCFGScale ?? card.defaults.trueCFGScale
    let sigmas = options[PipelineOptions.sigmas.rawValue]?.elements?.compactMap(\.double)
    let steps = card.steps(asked: request.steps, sigmas: sigmas, request.sampling.schedule)
    try request.sampling.check(card, steps: steps, hasSigmas: sigmas != nil)
    options.merge(request.sampling.options) { $1 }
    guard steps <= card.limits.maxSteps else {
      throw APIError(
        .invalidValue, "\(request.stepsField) is \(steps), but must be from 1 to \(card.limits.maxSteps)",
        param: request.stepsField)
    }
    let resolution = options[PipelineOptions.outputResolution.rawValue]?.integer
    let size = try size(for: request, pipeline.name, inputs.sizes, resolution, card)
    try inputs.finish(&options, pipeline.name, size, card)
    options[StepCache.field] = request.cache?.option
    options[Outpainting.key] = request.outpainting.map { .object($0.option) }
    options[ObjectEdit.key] = request.object.map { .object($0.option) }
    options[RequestedAdapter.field] = try request.lorasOption()
    let kept = inputs.all
    let spec = ImageSpec(
      card: card, pipeline: pipeline.name, prompt: prompt,
      // As in the reference: without guidance the negative prompt has no effect, and is not even encoded.
      negativePrompt: trueCFGScale > 1 && request.sampling.cfgSteps != 0 ? negativePrompt : nil, size: size,
      steps: steps, trueCFGScale: trueCFGScale,
      seed: request.seed.map { UInt64($0) } ?? randomSeed, options: options, inputs: kept.map(\.reference))
    do throws(Status) {
      _ = try PartialSchedule.firstStep(steps: steps, strength: spec.strength)
    } catch {
      throw APIError(.invalidValue, error.message, param: error.field)
    }
    try spec.checkEncoding()
    try spec.checkReferences()
    try spec.checkCache()
    return (spec, kept)
  }

  /// Several edits. Sizes and masks are known before any of them is made.
  private static func sequence(
    of request: GenerationRequest, _ inputs: RequestInputs, _ card: ModelCard, _ pipelines: PipelineRegistry,
    randomSeed: UInt64
  ) throws(APIError) -> (spec: ImageSpec, inputs: [InputImage]) {
    let pending = inputs.pending
    var image = try inputs.onlyImage(of: request, card)
    var edits: [ImageSpec] = [], kept: [InputImage] = []
    for (index, instruction) in request.instructions.enumerated() {
      let own = request.following(instruction)
      var edit: ImageSpec, inputs: [InputImage]
      do throws(APIError) {
        (edit, inputs) = try Self.image(
          of: own, RequestInputs(image, for: own, pending: pending), card, pipelines, randomSeed: randomSeed)
        guard edit.sigmas.isEmpty else {
          throw APIError(.invalidValue, "sigmas: all edits have the steps of the request", param: "sigmas")
        }
        guard Pipeline.edits[edit.pipeline] != nil else {
          throw APIError(
            .invalidValue, "\(edit.pipeline) is no pipeline for one edit of several", param: "pipeline")
        }
      } catch { throw error.inside("edit_instructions[\(index)]") }
      if index > 0 {
        edit.inputs[0].digest = madeImage(index)
        inputs.removeFirst()
      }
      edits.append(edit)
      for input in inputs where !kept.contains(where: { $0.reference == input.reference }) { kept.append(input) }
      let size = edit.resultSize
      if size.widthPx != image.width || size.heightPx != image.height {
        image = RasterImage(width: size.widthPx, height: size.heightPx, filledWith: [0, 0, 0])
      }
    }
    let last = edits.count - 1
    (edits[last].options, edits[last].prompt) = try request.background.applied(
      to: edits[last].options, edits[last].prompt, edits[last].pipeline, card)
    edits[last].options = options(edits[last].options, with: request.encoding)
    try edits[last].checkEncoding()
    var spec = edits[last]
    spec.pipeline = .editSequence
    spec.prompt = prompt(ofEdits: edits.map(\.prompt))
    (spec.edits, spec.inputs) = (edits, kept.map(\.reference))
    spec.options = spec.options.filter { resultKeys.contains($0.key) || SamplingChoice.Field(rawValue: $0.key) != nil }
    return (spec, kept)
  }

  private static func checkPrompt(_ prompt: String, _ name: String, _ card: ModelCard) throws(APIError) {
    guard prompt.utf8.count <= card.limits.maxPromptBytes else {
      throw APIError(
        .promptTooLong,
        "\(name) has \(prompt.utf8.count) bytes, the limit of \(card.model.id) is \(card.limits.maxPromptBytes)",
        param: name)
    }
  }

  private static func size(
    for request: GenerationRequest, _ pipeline: PipelineName, _ images: [ImageSize], _ resolutionPx: Int?,
    _ card: ModelCard
  ) throws(APIError) -> ImageSize {
    let asked = request.size.map { ImageSize(widthPx: $0.width, heightPx: $0.height) }
    let size = card.size(for: pipeline, asked, images, outputResolutionPx: resolutionPx), limits = card.limits
    // What no request says is a default, or follows from an image.
    let isAsked = asked == size
    guard isAsked || !images.isEmpty || resolutionPx != nil else { return size }
    let origin = resolutionPx == nil ? "image" : PipelineOptions.outputResolution.rawValue
    for (name, side) in [("width", size.widthPx), ("height", size.heightPx)] {
      let field = !isAsked ? origin : request.hasSizeField ? "size" : name
      guard side.isMultiple(of: limits.sizeMultiplePx) else {
        throw APIError(
          .invalidValue, "\(name) is \(side), but must be a multiple of \(limits.sizeMultiplePx)", param: field)
      }
      guard (limits.minSidePx...limits.maxSidePx).contains(side) else {
        throw APIError(
          .invalidValue, "\(name) is \(side), but must be from \(limits.minSidePx) to \(limits.maxSidePx)", param: field
        )
      }
    }
    guard size.pixelCount <= limits.maxPixels else {
      throw APIError(
        .invalidValue,
        "size is \(size), which is \(size.pixelCount) pixels; the limit of \(card.model.id) is \(limits.maxPixels)",
        param: isAsked ? "size" : origin)
    }
    return size
  }
}
