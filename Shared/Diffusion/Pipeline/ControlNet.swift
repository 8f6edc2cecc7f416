import ClusterCore
import ImageCodec
import TensorCore

extension PipelineRun {
  /// A prompt and control images → an image (diffusers `QwenImageControlNetPipeline`).
  func controlNet(_ afterStep: LocalModel.AfterStep) throws -> RasterImage {
    guard !inputs.controls.isEmpty else {
      throw PipelineError.invalidRequest(field: "control_image", reason: "is missing")
    }
    var generator = TorchCPUGenerator(seed: request.seed)
    let controls = inputs.controls.enumerated().map { number, control in
      let image = control.image.prepared(by: ImagePreparation(size: request.size)).rgb
      let latents = encode(image, number: number, sampling: &generator)
      return ControlInput(latents: latents, network: number, scale: control.scale, range: control.range)
    }
    return try control(controls, &generator, draw: controls.count, afterStep)
  }

  /// A prompt, a control image and its mask → an image that is made anew where the mask is white (diffusers
  /// `QwenImageControlNetInpaintPipeline`).
  func controlNetInpaint(_ afterStep: LocalModel.AfterStep) throws -> RasterImage {
    guard let control = inputs.controls.first else {
      throw PipelineError.invalidRequest(field: "control_image", reason: "is missing")
    }
    let preparation = ImagePreparation(size: request.size)
    let mask = try mask().prepared(by: preparation).luma
    // The reference draws this sample from another generator; here it has the same seed.
    let noise = encoder.noise(of: request.size, seed: request.seed, precedingDraws: 0)
    probe.record("draw.0", noise)
    let condition = encoder.encode(
      control.image.prepared(by: preparation).rgb, blanking: mask, noise: noise, probe: probe)
    probe.record("controlnet.cond", condition)
    var own = TorchCPUGenerator(seed: request.seed)
    let input = ControlInput(latents: condition, scale: control.scale, range: control.range)
    return try self.control([input], &own, draw: 1, afterStep)
  }

  private func control(
    _ controls: [ControlInput], _ generator: inout TorchCPUGenerator, draw: Int, _ afterStep: LocalModel.AfterStep
  ) throws -> RasterImage {
    let (prompt, negative) = try encodePrompts()
    let noise = InitialNoise.draw(&generator, grid, geometry, probe: probe, draw: draw)
    probe.record("prepare_latents.0", noise)
    var input = DenoisingInput(
      prompt: prompt, negativePrompt: negative, latents: noise, grid: grid, steps: request.steps,
      trueCFGScale: request.trueCFGScale)
    input.controls = controls
    return decode(try model.denoise(input, probe, afterStep), grid)
  }
}
