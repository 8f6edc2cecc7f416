import ClusterCore
import ImageCodec
import TensorCore

extension PipelineRun {
  /// A prompt and control images → an image (diffusers `QwenImageControlNetPipeline`).
  func controlNet(_ afterStep: LocalModel.AfterStep) throws -> RasterImage {
    guard !inputs.controls.isEmpty else {
      throw PipelineError.invalidRequest(field: "control_image", reason: "is missing")
    }
    let encoded = sampledLatents(
      of: inputs.controls.map { $0.image.overWhite.prepared(by: ImagePreparation(size: request.size)) })
    let controls = zip(inputs.controls, encoded).enumerated().map { number, control in
      ControlInput(latents: control.1, network: number, scale: Float(control.0.scale), range: control.0.range)
    }
    return try control(controls, from: noise(after: controls.count), afterStep)
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
    let sample = InitialNoise.posteriors(seed: request.seed, grids: [grid], geometry)[0]
    probe.record("draw.0", sample)
    let condition = encoder.encode(
      control.image.overWhite.prepared(by: preparation), blanking: mask, noise: sample, probe: probe)
    probe.record("controlnet.cond", condition)
    let input = ControlInput(latents: condition, scale: Float(control.scale), range: control.range)
    let noise = InitialNoise.torchCPU(
      seed: request.seed, grid: grid, geometry, probe: probe.renamed("draw.0", "draw.1"))
    return try self.control([input], from: noise, afterStep)
  }

  private func control(
    _ controls: [ControlInput], from noise: Tensor, _ afterStep: LocalModel.AfterStep
  ) throws -> RasterImage {
    let (prompt, negative) = try encodePrompts()
    probe.record("prepare_latents.0", noise)
    var input = input(prompt, negative, from: noise)
    input.controls = controls
    return decode(try model.denoise(input, probe, afterStep), grid)
  }
}
