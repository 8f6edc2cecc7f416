import ClusterCore

extension Pipeline {
  /// A prompt, and with true CFG a negative prompt → an image: encode both, denoise, decode.
  public static let textToImage = Pipeline(
    name: .textToImage, stages: [.textEncoder, .denoiser, .vaeDecoder],
    readOptions: PipelineOptions.read([.sigmas, .outputResolution])
  ) { spec in
    var tasks = PipelineTask.encodePrompts(spec)
    tasks.append(.denoise(spec, prompts: Array(tasks.indices)))
    tasks.append(.decode(spec, latents: tasks.count - 1))
    return tasks
  }
}
