import ClusterCore
import ImageCodec

extension PipelineRun {
  /// A prompt and an image → an image that begins with the image's noised latents (diffusers
  /// `QwenImageImg2ImgPipeline`).
  func imageToImage(_ afterStep: LocalModel.AfterStep) throws -> RasterImage {
    let first = try firstStep(), schedule = try schedule()
    let image = try image().prepared(by: ImagePreparation(size: request.size))
    let (prompt, negative) = try encodePrompts()
    let encoded = sampledLatents(of: [image])
    let latents = schedule.noised(encoded[0], with: noise(after: encoded.count), before: first)
    probe.record("prepare_latents.0", latents)
    let input = input(prompt, negative, from: latents, firstStep: first)
    return decode(try model.denoise(input, probe, afterStep), grid)
  }
}
