import ClusterCore
import GatewayAPI
import StrictJSON

extension Pipeline {
  /// A prompt and an image → an image that begins with it: encode all, denoise from the noise level that `strength`
  /// says, decode.
  public static let imageToImage = Pipeline(
    name: .imageToImage, stages: [.textEncoder, .vaeEncoder, .denoiser, .vaeDecoder], images: 1...1,
    readOptions: PipelineOptions.read([.strength, .sigmas])
  ) { spec in
    var tasks = PipelineTask.encodePrompts(spec)
    let image = tasks.count
    tasks.append(.encode(spec.image(0), prepared: ImagePreparation(size: spec.size), .sample, spec))
    tasks.append(.denoise(spec, prompts: Array(0..<image), image: image))
    tasks.append(.decode(spec, latents: tasks.count - 1))
    return tasks
  }
}
