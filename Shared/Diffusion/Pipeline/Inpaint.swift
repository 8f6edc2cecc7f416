import ClusterCore
import ImageCodec
import TensorCore

extension PipelineRun {
  /// A prompt, an image and a mask → the image with its masked part made anew (diffusers `QwenImageInpaintPipeline`).
  func inpaint(_ afterStep: LocalModel.AfterStep) throws -> RasterImage {
    let image = try image(), task = try inpaintingTask(of: image, original: image)
    let (prompt, negative) = try encodePrompts()
    return try task.finish(run: self, prompt, negative, references: [], afterStep)
  }

  /// What inpainting has in common with and without references.
  ///
  /// - Parameters:
  ///   - image: what is encoded.
  ///   - original: whose pixels come back.
  func inpaintingTask(of image: RasterImage, original: RasterImage) throws -> InpaintingTask {
    let mask = try mask(), first = try firstStep(), schedule = try schedule()
    var preparation = ImagePreparation(size: request.size)
    if let padding = inputs.paddingMaskCrop {
      guard (0...16_384).contains(padding) else {
        throw PipelineError.invalidRequest(
          field: "padding_mask_crop", reason: "is \(padding); it must be between 0 and 16384")
      }
      let (width, height) = (request.size.widthPx, request.size.heightPx)
      guard let region = mask.luma.maskRegion(forWidth: width, height: height, padding: padding) else {
        throw PipelineError.invalidRequest(field: "mask", reason: "is black: nothing is to be made anew")
      }
      preparation = ImagePreparation(size: request.size, region: PixelRegion(region), fit: .fill)
    }
    let encoded = sampledLatents(of: [image.prepared(by: preparation)])[0], noise = noise(after: 1)
    let latents = schedule.noised(encoded, with: noise, before: first)
    for (index, tensor) in [latents, noise, encoded].enumerated() { probe.record("prepare_latents.\(index)", tensor) }
    let packedMask = ImageEncoder.packedMask(mask.prepared(by: preparation).luma, geometry)
    probe.record("prepare_mask_latents.0", packedMask)
    return InpaintingTask(
      original: original, mask: mask, region: preparation.region, latents: latents, firstStep: first,
      inpainting: Inpainting(image: encoded, noise: noise, mask: packedMask))
  }
}

/// An image that is partly made anew.
struct InpaintingTask {
  let original: RasterImage
  let mask: RasterImage
  let region: PixelRegion?
  let latents: Tensor
  let firstStep: Int
  let inpainting: Inpainting

  /// Denoises, decodes and brings the original's pixels back.
  func finish(
    run: PipelineRun, _ prompt: PromptConditioning, _ negative: PromptConditioning?, references: [ReferenceLatents],
    _ afterStep: LocalModel.AfterStep
  ) throws -> RasterImage {
    var input = run.input(prompt, negative, from: latents, firstStep: firstStep)
    input.references = references
    input.inpainting = inpainting
    let image = run.decode(try run.model.denoise(input, run.probe, afterStep), run.grid)
    guard region != nil || run.inputs.pastesBack else { return image }
    return image.replacing(region, of: original, mask: mask)
  }
}

extension RasterImage {
  /// This image in place of `original` where the mask is white; elsewhere the original's pixels, byte for byte.
  ///
  /// - Parameter region: the part of the original that this image shows; nil: all of it.
  package func replacing(_ region: PixelRegion?, of original: RasterImage, mask: RasterImage) -> RasterImage {
    let mask = mask.luma.resized(width: original.width, height: original.height, filter: .lanczos)
    let whole = region == nil ? resized(width: original.width, height: original.height, filter: .lanczos) : self
    return whole.overlaid(on: original.rgb, mask: mask, region: region.map { Region($0) })
  }
}
