import ClusterCore
import TensorCore

/// What the denoising loop starts from.
public struct DenoisingInput: Sendable {
  /// The conditioning of every branch of guidance: the prompt's and, unless guidance is off, the negative prompt's.
  public var prompts: [PromptConditioning]
  /// Packed latents [N, channels · patch²] before step `firstStep`, fp32: noise, a noised image, or the checkpoint of
  /// an earlier attempt; the checkpoint of a sampler with history is [1 + h, N, channels · patch²].
  public var latents: Tensor
  /// The grid of image tokens.
  public var grid: TokenGrid
  /// Number of images of `grid`, one after the other in `latents`, that are made together: layers, the composite first.
  public var layers = 1
  /// Images that condition every step, in order.
  public var references: [ReferenceLatents] = []
  /// What is kept outside of a mask; nil: everything is made anew.
  public var inpainting: Inpainting?
  /// Control images, each with the network that reads it.
  public var controls: [ControlInput] = []
  /// Number of steps of the whole schedule.
  public var steps: Int
  /// Noise levels of the steps before the shift, `steps` of them; nil: the model's.
  public var sigmas: [Double]?
  /// Steps already done, or left out.
  public var firstStep: Int
  /// Those of them that are left out.
  public var startStep = 0
  /// How the steps are taken.
  public var sampling = SamplingChoice.standard
  /// Seed of the noise of samplers that add some in each step: the image's.
  public var seed: UInt64 = 0
  /// Which steps leave out parts of the network; nil: none.
  public var cache: StepCache?
  /// Guidance strength.
  public var trueCFGScale: Double
  /// How the velocities of the branches are combined; nil: as the model's authors do.
  public var guidance: Guidance?

  /// See the properties.
  public init(
    prompt: PromptConditioning, negativePrompt: PromptConditioning?, latents: Tensor, grid: TokenGrid, steps: Int,
    firstStep: Int = 0, trueCFGScale: Double
  ) {
    prompts = [prompt] + (negativePrompt.map { [$0] } ?? [])
    self.latents = latents
    self.grid = grid
    self.steps = steps
    self.firstStep = firstStep
    self.trueCFGScale = trueCFGScale
  }
}

/// An encoded image.
public struct ReferenceLatents: Sendable {
  /// Packed latents [grid.tokenCount, channels · patch²], fp32.
  public var latents: Tensor
  /// The grid of its tokens.
  public var grid: TokenGrid

  /// See the properties.
  public init(latents: Tensor, grid: TokenGrid) {
    self.latents = latents
    self.grid = grid
  }
}

/// Keeps an image outside of a mask: after every step, its noised latents replace the loop's where the mask is 0.
public struct Inpainting: Sendable {
  /// Packed latents of the image, fp32, like the loop's.
  public var image: Tensor
  /// Packed noise, fp32: the one that the loop started from.
  public var noise: Tensor
  /// Packed mask, fp32, like the latents: 1 where the image is made anew.
  public var mask: Tensor

  /// See the properties.
  public init(image: Tensor, noise: Tensor, mask: Tensor) {
    self.image = image
    self.noise = noise
    self.mask = mask
  }
}

extension Inpainting {
  /// Requires that all parts are like the loop's `latents`.
  func validate(_ latents: Tensor) throws(PipelineError) {
    for (field, tensor) in [("image", image), ("noise", noise), ("mask", mask)] {
      guard tensor.shape == latents.shape, tensor.dtype == .fp32 else {
        throw .invalidRequest(
          field: "inpainting.\(field)",
          reason: "is \(tensor.dtype.rawValue) \(tensor.shape); expected F32 \(latents.shape)")
      }
    }
  }

  /// The loop's latents after a step that ended at noise level `sigma`: where the mask is 1 they stay, where it is 0
  /// they are the image's, noised to that level.
  func blend(_ latents: Tensor, at sigma: Float) -> Tensor {
    var result = MutableTensor(uninitialized: latents.shape)
    latents.withElements(as: Float.self) { made in
      image.withElements(as: Float.self) { image in
        noise.withElements(as: Float.self) { noise in
          mask.withElements(as: Float.self) { mask in
            result.withElements(as: Float.self) { result in
              for i in result.indices {
                // After the last step the image itself, without 0 · noise.
                let kept = sigma == 0 ? image[i] : FlowMatchSchedule.noised(image[i], noise[i], to: sigma)
                result[i] = (1 - mask[i]) * kept + mask[i] * made[i]
              }
            }
          }
        }
      }
    }
    return result.finish()
  }

  /// Keeps the image in what a step that ended at noise level `sigma` has given.
  func keep(in step: inout SampledStep, at sigma: Float) {
    let denoised = step.denoised
    step.state.latents = blend(step.state.latents, at: sigma)
    step.denoised = { blend(denoised(), at: 0) }
  }
}

/// A control image for one of the networks that were loaded beside the denoising network.
public struct ControlInput: Sendable {
  /// Packed latents [N, channels · patch²], or with the channels of a mask behind them, fp32.
  public var latents: Tensor
  /// Which of the loaded control networks reads it.
  public var network: Int
  /// What its residuals are multiplied with.
  public var scale: Float
  /// The part of the steps in which it acts, from 0 to 1.
  public var range: ClosedRange<Double>

  /// See the properties.
  public init(latents: Tensor, network: Int = 0, scale: Float = 1, range: ClosedRange<Double> = 0...1) {
    self.latents = latents
    self.network = network
    self.scale = scale
    self.range = range
  }
}
