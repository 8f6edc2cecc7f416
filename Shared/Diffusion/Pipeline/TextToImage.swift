import ImageCodec
import TensorCore

extension PipelineRun {
  /// A prompt → an image (diffusers `QwenImagePipeline`).
  func textToImage(from latents: Tensor? = nil, _ afterStep: LocalModel.AfterStep) throws -> RasterImage {
    let (prompt, negative) = try encodePrompts()
    let noise = latents ?? noise()
    probe.record("prepare_latents.0", noise)
    let input = DenoisingInput(
      prompt: prompt, negativePrompt: negative, latents: noise, grid: grid, steps: request.steps,
      trueCFGScale: request.trueCFGScale)
    return decode(try model.denoise(input, probe, afterStep), grid)
  }
}
