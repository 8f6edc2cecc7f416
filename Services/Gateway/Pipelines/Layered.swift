import ClusterCore
import GatewayAPI
import StrictJSON

extension Pipeline {
  /// An image, and a prompt that describes it → its layers, from the bottom up, with transparency.
  public static let layered = Pipeline(
    name: .layered, stages: [.textEncoder, .vaeEncoder, .denoiser, .vaeDecoder], images: 1...1,
    readOptions: PipelineOptions.read([.layers, .sigmas])
  ) { spec in
    var tasks = PipelineTask.encodePrompts(spec)
    let prompts = Array(tasks.indices)
    tasks.append(.encode(spec.image(0), prepared: ImagePreparation(size: spec.size), .mean, spec))
    tasks.append(.denoise(spec, prompts: prompts, references: spec.referenceSizes))
    tasks.append(.decode(spec, latents: tasks.count - 1))
    return tasks
  }
}
