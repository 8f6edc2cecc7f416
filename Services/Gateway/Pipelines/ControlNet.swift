import ClusterCore
import GatewayAPI
import StrictJSON

extension Pipeline {
  /// A prompt and control images → an image.
  public static let controlNet = Pipeline(
    name: .controlNet, stages: [.textEncoder, .vaeEncoder, .denoiser, .vaeDecoder], images: 0...0,
    controls: 1...ImageSpec.maxControlCount, readOptions: PipelineOptions.read([.control, .sigmas])
  ) { spec in
    var tasks = PipelineTask.encodePrompts(spec)
    let prompts = Array(tasks.indices), prepared = ImagePreparation(size: spec.size)
    for (index, control) in spec.controls.enumerated() {
      tasks.append(.encode(control, prepared: prepared, .sample, spec, precedingDraws: index))
    }
    tasks.append(
      .denoise(
        spec, prompts: prompts, controls: Array(prompts.count..<tasks.count), precedingDraws: spec.controls.count))
    tasks.append(.decode(spec, latents: tasks.count - 1))
    return tasks
  }

  /// A prompt, a control image and a mask → an image that is made anew where the mask is white.
  public static let controlNetInpaint = Pipeline(
    name: .controlNetInpaint, stages: [.textEncoder, .vaeEncoder, .denoiser, .vaeDecoder], images: 0...0,
    takesMask: true, controls: 1...1, readOptions: PipelineOptions.read([.control, .maskBlur, .sigmas])
  ) { spec in
    var tasks = PipelineTask.encodePrompts(spec)
    let prompts = Array(tasks.indices), prepared = ImagePreparation(size: spec.size)
    tasks.append(.encode(spec.controls[0], prepared: prepared, .sample, spec, blanking: spec.mask))
    tasks.append(.denoise(spec, prompts: prompts, controls: [prompts.count]))
    tasks.append(.decode(spec, latents: tasks.count - 1))
    return tasks
  }
}
