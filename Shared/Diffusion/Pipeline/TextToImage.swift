import ImageCodec
import TensorCore

extension PipelineRun {
  /// A prompt → an image (diffusers `QwenImagePipeline`).
  func textToImage(from latents: Tensor? = nil, _ afterStep: LocalModel.AfterStep) throws -> RasterImage {
    let (prompt, negative) = try encodePrompts()
    let noise = latents ?? noise()
    probe.record("prepare_latents.0", noise)
    return decode(try model.denoise(input(prompt, negative, from: noise), probe, afterStep), grid)
  }
}
