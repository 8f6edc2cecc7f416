import ClusterCore
import ImageCodec

extension PipelineRun {
  /// A prompt about one image → an image (diffusers `QwenImageEditPipeline`): text encoder and autoencoder see the same
  /// image.
  func edit(_ afterStep: LocalModel.AfterStep) throws -> RasterImage {
    let shown = referenceImage(of: try image())
    let (prompt, negative) = try encodePrompts(.edit, images: [shown])
    return try edit(prompt, negative, references: [reference(shown, number: 0)], afterStep)
  }

  /// A prompt about several images → an image (diffusers `QwenImageEditPlusPipeline`): the text encoder sees smaller
  /// ones.
  func editPlus(_ afterStep: LocalModel.AfterStep) throws -> RasterImage {
    let images = try images(), area = references.conditionPx
    guard images.count <= references.maxCount else {
      throw PipelineError.invalidRequest(
        field: "image", reason: "there are \(images.count), but this model takes \(references.maxCount) at most")
    }
    let shown = images.map { $0.prepared(by: ImagePreparation(size: $0.size.scaled(toArea: area))) }
    let (prompt, negative) = try encodePrompts(.editPlus, images: shown)
    let references = images.enumerated().map { reference(referenceImage(of: $1), number: $0) }
    return try edit(prompt, negative, references: references, afterStep)
  }

  private func edit(
    _ prompt: PromptConditioning, _ negative: PromptConditioning?, references: [ReferenceLatents],
    _ afterStep: LocalModel.AfterStep
  ) throws -> RasterImage {
    let noise = noise()
    probe.record("prepare_latents.0", noise)
    var input = input(prompt, negative, from: noise)
    input.references = references
    return decode(try model.denoise(input, probe, afterStep), grid)
  }

  /// An image as the autoencoder sees it.
  func referenceImage(of image: RasterImage) -> RasterImage {
    image.prepared(by: ImagePreparation(size: image.size.scaled(toArea: references.referencePx)))
  }

  /// A prompt about an image, and a mask → the image with its masked part made anew (diffusers
  /// `QwenImageEditInpaintPipeline`).
  func editInpaint(_ afterStep: LocalModel.AfterStep) throws -> RasterImage {
    let image = try image(), shown = referenceImage(of: image)
    let (prompt, negative) = try encodePrompts(.edit, images: [shown])
    let task = try inpaintingTask(of: inputs.paddingMaskCrop == nil ? shown : image, original: image)
    // One sample of the posterior serves as reference and as what is kept.
    let reference = ReferenceLatents(latents: task.inpainting.image, grid: grid)
    return try task.finish(run: self, prompt, negative, references: [reference], afterStep)
  }
}
