import ClusterCore
import Diffusion
import Foundation
import Synchronization
import TensorCore

/// The velocity of a model whose images are a mixture of two normal distributions, ±`centre` with the deviation `width`
/// in every number: `Tests/Golden/make_samplers.py` has the same.
struct AnalyticPredictor: VelocityPredictor {
  let centre: Double
  let width: Double
  private let counter = CallCounter()

  init(centre: Double = 1.2, width: Double = 0.3) {
    self.centre = centre
    self.width = width
  }

  /// Noise levels, and what the velocity is multiplied with.
  struct Prepared: Sendable {
    let times: [Float]
    let factor: Float
  }

  static let sharedTokensMax = 64
  var numericsClass: String { "analytic" }
  /// The steps of the calls so far, and how many came together.
  var calls: [(step: Int, count: Int)] { counter.calls }

  /// The second branch, of a negative prompt, has half the velocity.
  func prepare(_ image: DenoisingInput, times: [Float]) throws(PipelineError) -> [Prepared] {
    guard image.latents.shape.rank == 2 else {
      throw .invalidRequest(field: "latents", reason: "have the shape \(image.latents.shape)")
    }
    return image.prompts.indices.map { Prepared(times: times, factor: $0 == 0 ? 1 : 0.5) }
  }

  func tokenCount(_ call: VelocityCall<Prepared>) -> Int { call.latents.shape[0] }

  func velocities(_ calls: [VelocityCall<Prepared>]) -> [Tensor] {
    counter.add(calls[0].step, calls.count)
    return calls.map { velocity($0, probe: .none) }
  }

  func velocity(_ call: VelocityCall<Prepared>, probe: Probe) -> Tensor {
    let sigma = Double(call.branch.times[call.step]), alpha = 1 - sigma
    let variance = alpha * alpha * width * width + sigma * sigma
    let values = call.latents.floats().map { value in
      let x = Double(value), mean = centre * tanh(alpha * centre * x / variance)
      let denoised = mean + width * width * alpha / variance * (x - alpha * mean)
      return call.branch.factor * Float((x - denoised) / sigma)
    }
    return Tensor(values, shape: call.latents.shape)
  }
}

/// Counts calls of a predictor, which is a value.
private final class CallCounter: Sendable {
  private let stored = Mutex<[(step: Int, count: Int)]>([])
  var calls: [(step: Int, count: Int)] { stored.withLock { $0 } }
  func add(_ step: Int, _ count: Int) { stored.withLock { $0.append((step, count)) } }
}

extension SchedulerConfiguration {
  /// Levels stay as they are given.
  static var unshifted: SchedulerConfiguration {
    var configuration = published
    (configuration.useDynamicShifting, configuration.shift, configuration.shiftTerminal) = (false, 1, nil)
    return configuration
  }
}

extension DenoisingInput {
  /// Some tokens of eight numbers, of a model without prompts.
  static func analytic(
    _ sampling: SamplingChoice, latents: Tensor, steps: Int, sigmas: [Double]? = nil, isGuided: Bool = false
  ) -> DenoisingInput {
    let prompt = PromptConditioning(embeds: .zeros([1, 1]))
    var input = DenoisingInput(
      prompt: prompt, negativePrompt: isGuided ? prompt : nil, latents: latents,
      grid: TokenGrid(height: latents.shape[0] / 2, width: 2), steps: steps, trueCFGScale: 2)
    (input.sampling, input.sigmas, input.seed) = (sampling, sigmas, 0x1_2345_6789)
    return input
  }
}

/// Normal numbers.
func normal(_ seed: UInt64, tokens: Int = 4) -> Tensor {
  var generator = TorchCPUGenerator(seed: seed)
  return generator.normal([tokens, 8])
}

/// ‖a − b‖ / ‖b‖; 0 for equal tensors, also of zeros.
func relativeDistance(_ a: [Float], _ b: [Float]) -> Double {
  func norm(_ values: [Double]) -> Double { values.reduce(0) { $0 + $1 * $1 }.squareRoot() }
  let distance = norm(zip(a, b).map { Double($0) - Double($1) })
  return distance == 0 ? 0 : distance / norm(b.map { Double($0) })
}
