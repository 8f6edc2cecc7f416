import ClusterCore
import TensorCore

/// How a step follows from the velocities of it and of those before.
///
/// Everything that crosses from step to step is in ``SamplerState``; what else a sampler needs is a function of the
/// step's number. A resume from a checkpoint gives the bytes of the undisturbed run.
protocol Sampler: Sendable {
  /// Takes a step.
  ///
  /// - Parameters:
  ///   - step: its number in the schedule, from 0.
  ///   - state: after the step before.
  ///   - velocity: predicts the velocity of latents at the noise level before a step of that number.
  func step(_ step: Int, from state: SamplerState, _ velocity: (Tensor, Int) -> Tensor) -> SampledStep
}

/// What crosses from one step to the next.
struct SamplerState: Sendable {
  /// Packed latents [N, C], fp32.
  var latents: Tensor
  /// Further tensors like the latents, the newest first; which ones is the sampler's own.
  var history: [Tensor] = []

}

/// What a step has given.
struct SampledStep {
  /// The state after it.
  var state: SamplerState
  /// Latents without noise, as the step's velocity foretells them.
  var denoised: () -> Tensor
}

extension SamplerName {
  /// The sampler for the levels of a schedule.
  ///
  /// - Parameter seed: of the image, which the noise of samplers with new noise in each step depends on.
  func sampler(_ sigmas: [Float], seed: UInt64) -> any Sampler {
    let levels = sigmas.map { NoiseLevel(sigma: Double($0)) }
    return switch self {
    case .euler: EulerSampler(sigmas: sigmas)
    case .heun: HeunSampler(sigmas: sigmas)
    case .dpmpp2M: DPMSolverSampler(levels: levels, noise: nil)
    case .dpmpp2MSDE: DPMSolverSampler(levels: levels, noise: StepNoise(seed: seed))
    case .erSDE: ERSDESampler(levels: levels, noise: StepNoise(seed: seed))
    case .resMultistep: RESSampler(levels: levels)
    case .unipc: UniPCSampler(levels: levels)
    }
  }
}

/// A noise level of a flow model: latents are `alpha · image + sigma · noise`.
struct NoiseLevel: Sendable {
  let sigma: Double

  var alpha: Double { 1 - sigma }

  /// The logarithm of the signal-to-noise ratio's root, log(alpha / sigma): −∞ at pure noise, ∞ without any.
  var logSNR: Double {
    if sigma >= 1 { return -.infinity }
    return sigma > 0 ? PortableMath.log(alpha / sigma) : .infinity
  }
}

/// The noise that is added in a step: normal numbers of a torch CPU generator, which depend on the image's seed and the
/// step's number alone.
struct StepNoise: Sendable {
  let seed: UInt64

  /// Seed of the generator for a step. As of the initial noise, the lower 32 bits of the image's seed count. They and
  /// the step's number are mixed by the bijection of SplitMix64 (Steele, Lea and Flood 2014), so that images of
  /// consecutive seeds, and consecutive steps, have streams apart from one another's and from the initial noise.
  func seed(ofStep step: Int) -> UInt64 {
    var mixed = (seed & 0xffff_ffff) << 32 | UInt64(step + 1)
    mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
    return (mixed ^ mixed >> 31) >> 32
  }

  func callAsFunction(_ step: Int, like latents: Tensor) -> Tensor {
    var generator = TorchCPUGenerator(seed: seed(ofStep: step))
    return generator.normal(latents.shape)
  }
}

extension Tensor {
  /// Σ weight · tensor, fp32, added in the order of the terms. Weights are rounded to fp32 first; terms of weight 0 are
  /// left out.
  static func weighted(_ terms: [(weight: Double, tensor: Tensor)]) -> Tensor {
    let terms = terms.filter { Float($0.weight) != 0 }
    guard let shape = terms.first?.tensor.shape else { preconditionFailure("a sum without terms") }
    var result = MutableTensor(zeros: shape)
    for term in terms {
      precondition(term.tensor.shape == shape && term.tensor.dtype == .fp32, "\(term.tensor.shape) and \(shape)")
      let weight = Float(term.weight)
      term.tensor.withElements(as: Float.self) { x in
        result.withElements(as: Float.self) { sum in for i in x.indices { sum[i] += weight * x[i] } }
      }
    }
    return result.finish()
  }
}
