import ClusterCore
import GatewayAPI
import StrictJSON

extension Pipeline {
  /// A prompt, an image and a mask → the image with its masked part made anew.
  public static let inpaint = Pipeline(
    name: .inpaint, stages: [.textEncoder, .vaeEncoder, .denoiser, .vaeDecoder], images: 1...1, takesMask: true,
    readOptions: PipelineOptions.read([.strength, .paddingMaskCrop, .maskBlur, .pasteBack, .sigmas])
  ) { spec in
    let preparation = spec.inpaintingPreparation
    var tasks = PipelineTask.encodePrompts(spec)
    let image = tasks.count
    tasks.append(.encode(spec.image(0), prepared: preparation, .sample, spec))
    tasks.append(.denoise(spec, prompts: Array(0..<image), image: image, mask: preparation))
    tasks.append(.decode(spec, latents: tasks.count - 1, overlay: spec.overlay))
    return tasks
  }
}
