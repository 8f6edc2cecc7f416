import ClusterCore
import ImageCodec
import Scheduling
import Wire

/// The tasks that several pipelines are made of.
extension PipelineTask {
  /// The prompt's and, with true CFG, the negative prompt's embeddings: the first tasks of every plan.
  ///
  /// - Parameter shown: how the encoder sees the request's images, in order.
  static func encodePrompts(
    _ spec: ImageSpec, _ template: PromptTemplate = .textToImage, shown: [ImagePreparation] = []
  ) -> [PipelineTask] {
    var tasks = [encode(spec.prompt, field: "prompt", template, shown: shown, spec)]
    if let negativePrompt = spec.negativePrompt {
      tasks.append(encode(negativePrompt, field: "negative_prompt", template, shown: shown, spec))
    }
    return tasks
  }

  /// Prompt → embeddings [tokens, width]. Equal prompts about equal images of one model are encoded once.
  ///
  /// - Parameter field: the request field that holds the prompt: failures that blame the prompt name it.
  static func encode(
    _ prompt: String, field: String, _ template: PromptTemplate = .textToImage, shown: [ImagePreparation] = [],
    _ spec: ImageSpec
  ) -> PipelineTask {
    let rule = TensorRule(TensorName.promptEmbeds) { tensor in
      tensor.shape.count == 2 && tensor.shape[0] > 0 ? nil : "has the shape \(tensor.shape), not [tokens, width]"
    } problemOfBody: { body in
      if case .encodeResponse = body { nil } else { "encode_response was expected" }
    }
    let images = zip(spec.images, shown).enumerated().map { index, image in
      (reference: image.0, prepared: PreparedImage(tensor: TensorName.input(index), image.1))
    }
    let seen = images.map { "\($0.reference.digest) \($0.prepared.preparation.size)" }
    let content = ([prompt] + (seen.isEmpty ? [] : ["\(template)"] + seen)).joined(separator: "\u{1}")
    let plan = TaskPlan(
      stage: .textEncoder, content: content, pipeline: images.isEmpty ? nil : spec.pipeline, field: field)
    var task = PipelineTask(plan: plan, output: rule) { _ in
      TaskMessage(
        .encodeRequest(
          EncodeRequest(
            modelID: spec.card.model.id, prompt: prompt, template: template, images: images.map(\.prepared))))
    }
    task.images = images.map { TaskImage($0.reference, name: $0.prepared.tensor) }
    task.promptTokens = { $0.shape[0] }
    return task
  }

  /// An image → packed latents [tokens, channels · patch²]. Equal ones of one model are encoded once.
  ///
  /// - Parameters:
  ///   - precedingDraws: draws that the generator of the sample has made before.
  ///   - mask: white pixels are blanked out before encoding, and the mask becomes a channel.
  static func encode(
    _ image: InputReference, prepared preparation: ImagePreparation, _ posterior: PosteriorUse, _ spec: ImageSpec,
    precedingDraws: Int = 0, blanking mask: InputReference? = nil
  ) -> PipelineTask {
    var shape = spec.card.latents.packedShape(of: preparation.size)
    if mask != nil { shape[1] += spec.card.latents.patch * spec.card.latents.patch }
    let rule = latentsRule(shape) {
      if case .encodeImageResponse = $0 { nil } else { "encode_image_response was expected" }
    }
    let seed = posterior == .sample ? spec.seed : 0
    let content = "\(image.digest) \(preparation) \(posterior) \(seed) \(precedingDraws) \(mask?.digest ?? "")"
    let plan = TaskPlan(
      stage: .vaeEncoder, content: content, cost: Double(shape[0]), pipeline: spec.pipeline,
      field: image.role == .control ? "control_image" : "image")
    var task = PipelineTask(plan: plan, output: rule) { _ in
      TaskMessage(
        .encodeImageRequest(
          EncodeImageRequest(
            modelID: spec.card.model.id, image: PreparedImage(tensor: TensorName.input(0), preparation),
            posterior: posterior, seed: seed, precedingDraws: precedingDraws,
            mask: mask.map { _ in PreparedImage(tensor: TensorName.mask, preparation) })))
    }
    task.images = [TaskImage(image, name: TensorName.input(0))]
    if let mask { task.images.append(TaskImage(mask, name: TensorName.mask)) }
    return task
  }

  /// Embeddings, noise and encoded images → packed latents, step by step; each step can be a checkpoint.
  ///
  /// - Parameters:
  ///   - prompts: places of the tasks that encode the prompt and, for true CFG, the negative prompt.
  ///   - image: place of the task that gives the latents that the denoiser's begin with.
  ///   - imageIsReference: whether these condition every step as well.
  ///   - references: sizes of the images that condition every step. The tasks that encode them come after those of
  ///     the prompts.
  ///   - mask: how the mask is prepared; with it the image is kept where it is black.
  ///   - controls: places of the tasks that encode the control images.
  ///   - precedingDraws: draws that the generator of the noise has made before.
  static func denoise(
    _ spec: ImageSpec, prompts: [Int], image: Int? = nil, imageIsReference: Bool = false,
    references: [ImageSize] = [], mask: ImagePreparation? = nil, controls: [Int] = [], precedingDraws: Int? = nil
  ) -> PipelineTask {
    let answers: @Sendable (Body) -> String? = { body in
      switch body {
      case .denoiseResponse, .progress: nil
      default: "denoise_response was expected"
      }
    }
    let rule = latentsRule(spec.latentsShape, problemOfBody: answers)
    let encoded = image.map { [$0] } ?? references.indices.map { prompts.count + $0 }
    let sizes = imageIsReference ? [spec.size] : references
    let tokens = sizes.reduce(spec.tokenCount) { $0 + spec.card.latents.packedShape(of: $1)[0] }
    var plan = TaskPlan(
      stage: .denoiser, inputs: prompts + encoded + controls, stepCount: spec.stepCount,
      cost: Double(spec.evaluations(branches: prompts.count)) * Double(tokens),
      guidedStepCount: spec.guidedStepCount(branches: prompts.count),
      pipeline: spec.pipeline == .textToImage ? nil : spec.pipeline)
    plan.adapters = spec.adapters.map(\.digest)
    plan.hasUnevenSteps = spec.cache != nil
    let encodedNames = image == nil ? references.indices.map { TensorName.reference($0) } : [TensorName.imageLatents]
    let names =
      [TensorName.promptEmbeds, TensorName.negativePromptEmbeds].prefix(prompts.count) + encodedNames
      + controls.indices.map { TensorName.control($0) }
    let checkpoint = latentsRule(anyOf: spec.checkpointShapes, problemOfBody: answers)
    var task = PipelineTask(plan: plan, output: rule, checkpoint: checkpoint) { input in
      var request = DenoiseRequest(
        modelID: spec.card.model.id, size: spec.size, steps: spec.steps, trueCFGScale: spec.trueCFGScale,
        seed: spec.seed, firstStep: input.resume?.completedSteps ?? 0,
        checkpointIntervalSeconds: input.checkpointInterval / .seconds(1))
      request.references = sizes
      (request.sigmas, request.sampling, request.cache) = (spec.sigmas, spec.sampling, spec.cache)
      request.adapters = spec.adapters
      request.layers = spec.layers == 0 ? 0 : spec.latentCount
      request.startStep = spec.startStep
      // An image that is sampled comes first out of the generator.
      request.precedingDraws = precedingDraws ?? (image == nil ? 0 : 1)
      request.mask = mask.map { PreparedImage(tensor: TensorName.mask, $0) }
      request.controls = controls.indices.map { index in
        let start = spec.controlNumber("control_start", index) ?? 0
        return ControlReference(
          tensor: TensorName.control(index), network: index, scale: spec.controlNumber("control_scale", index) ?? 1,
          range: start...max(start, spec.controlNumber("control_end", index) ?? 1))
      }
      request.noise = request.requiredNoise
      var tensors = zip(input.inputs, names).map { $0.renamed($1) }
      if imageIsReference, let image = input.inputs.last { tensors.append(image.renamed(TensorName.reference(0))) }
      if let resume = input.resume { tensors.append(resume.state.renamed(TensorName.latents)) }
      if let previewMap = input.previewMap { tensors.append(previewMap) }
      return TaskMessage(.denoiseRequest(request), tensors)
    }
    task.preview = previewRule(spec.size)
    if mask != nil, let reference = spec.mask { task.images = [TaskImage(reference, name: TensorName.mask)] }
    return task
  }

  /// Packed latents → a file that carries the image's parameters.
  ///
  /// - Parameters:
  ///   - latents: place of the task that gives the latents.
  ///   - overlay: the image that the decoded one becomes a part of, and where; the result has its size.
  static func decode(
    _ spec: ImageSpec, latents: Int,
    overlay: (image: InputReference, mask: InputReference, region: PixelRegion?)? = nil
  ) -> PipelineTask {
    let size = overlay?.image.size ?? spec.size, encoding = spec.encoding
    let rule = TensorRule(TensorName.image) { tensor in
      guard tensor.dtype == .uint8, tensor.bytes.count > 0 else {
        return "is \(tensor.dtype.rawValue) \(tensor.shape), not the bytes of a file"
      }
      let files = spec.layers == 0 ? 1 : tensor.bytes.withUnsafeBytes { PNG.files(in: $0).count }
      return files == spec.fileCount ? nil : "has \(files) files, not \(spec.fileCount)"
    } problemOfBody: { body in
      guard case .decodeResponse(let response) = body else { return "decode_response was expected" }
      return response.mediaType == encoding.format.mediaType && response.size == size
        ? nil : "it is \(response.mediaType) of \(response.size), not a \(encoding.format) file of \(size)"
    }
    let plan = TaskPlan(
      stage: .vaeDecoder, inputs: [latents], cost: Double(spec.tokenCount),
      pipeline: overlay == nil && spec.layers == 0 ? nil : spec.pipeline)
    var task = PipelineTask(plan: plan, output: rule) { input in
      var request = DecodeRequest(
        modelID: spec.card.model.id, size: spec.size, format: encoding.wireFormat, textEntries: spec.textEntries)
      request.layers = spec.layers
      request.background = spec.isOpaque && spec.layers == 0 ? .opaque : .asMade
      request.quality = encoding.format == .png ? 0 : encoding.quality
      request.overlay = overlay.map {
        Overlay(imageTensor: TensorName.input(0), maskTensor: TensorName.mask, region: $0.region)
      }
      return TaskMessage(.decodeRequest(request), input.inputs.prefix(1).map { $0.renamed(TensorName.latents) })
    }
    if let overlay {
      task.images = [
        TaskImage(overlay.image, name: TensorName.input(0)), TaskImage(overlay.mask, name: TensorName.mask),
      ]
    }
    return task
  }

  private static func previewRule(_ size: ImageSize) -> TensorRule {
    TensorRule(TensorName.preview) { tensor in
      let shape = tensor.shape
      let fits =
        tensor.dtype == .uint8 && shape.count == 3 && shape[2] == 3 && (1...size.heightPx).contains(shape[0])
        && shape[1] * size.heightPx == shape[0] * size.widthPx
      return fits ? nil : "is \(tensor.dtype.rawValue) \(shape), not an RGB image of the shape of \(size)"
    }
  }

  private static func latentsRule(
    _ shape: [Int], problemOfBody: @escaping @Sendable (Body) -> String?
  ) -> TensorRule { latentsRule(anyOf: [shape], problemOfBody: problemOfBody) }

  private static func latentsRule(
    anyOf shapes: [[Int]], problemOfBody: @escaping @Sendable (Body) -> String?
  ) -> TensorRule {
    TensorRule(TensorName.latents) { tensor in
      shapes.contains(tensor.shape)
        ? nil
        : "has the shape \(tensor.shape), not \(shapes.map { "\($0)" }.joined(separator: " or "))"
    } problemOfBody: {
      problemOfBody($0)
    }
  }
}
