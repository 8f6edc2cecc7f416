/// How the steps of an image are taken, where a request chooses it.
public struct SamplingChoice: Hashable, Sendable {
  /// How one step leads to the next.
  public var sampler: SamplerName
  /// Noise levels of the steps before the shift; nil: the model's own, or those that the request gives.
  public var schedule: ScheduleName?
  /// Steps with guidance, from the first that is made; later ones evaluate the prompt alone. nil: all of them.
  public var cfgSteps: Int?

  /// What every request gets that chooses nothing.
  public static let standard = SamplingChoice()

  /// See the properties.
  public init(sampler: SamplerName = .euler, schedule: ScheduleName? = nil, cfgSteps: Int? = nil) {
    self.sampler = sampler
    self.schedule = schedule
    self.cfgSteps = cfgSteps
  }

  /// Evaluations of the denoising network for the steps from `startStep` to `steps`: what an image costs.
  ///
  /// - Parameter branches: evaluations of a step with guidance: 2 with a negative prompt, else 1.
  public func evaluations(steps: Int, startStep: Int, branches: Int) -> Int {
    let made = max(steps - startStep, 0), guided = min(max(cfgSteps ?? made, 0), made)
    guard sampler == .heun else { return guided * branches + (made - guided) }
    // The last step has no second evaluation.
    let all = 2 * (guided * branches + (made - guided))
    return made == 0 ? 0 : all - (guided == made ? branches : 1)
  }
}

/// How a step follows from the velocities of it and of those before.
public enum SamplerName: String, Sendable, Hashable, Codable, CaseIterable {
  /// Euler's method: what the models' authors use.
  case euler
  /// Heun's method of second order: two evaluations a step, of the last one.
  case heun
  /// DPM-Solver++ of second order, multistep.
  case dpmpp2M = "dpmpp_2m"
  /// The same for the stochastic equation: new noise in each step.
  case dpmpp2MSDE = "dpmpp_2m_sde"
  /// Extended reverse-time SDE solver of third order: new noise in each step.
  case erSDE = "er_sde"
  /// Exponential integrator of second order, multistep (RES).
  case resMultistep = "res_multistep"
  /// Predictor and corrector of second order (UniPC, B2).
  case unipc

  /// Whether a step evaluates the network once.
  public var evaluatesOnce: Bool { self != .heun }

  /// The most tensors of the latents' shape that the next step needs beside the latents.
  public var historyLimit: Int { history(after: .max) }

  /// Tensors of the latents' shape that the next step needs beside the latents, after `steps` steps were made: a
  /// checkpoint has as many more.
  public func history(after steps: Int) -> Int {
    switch self {
    case .euler, .heun: 0
    case .dpmpp2M, .dpmpp2MSDE, .resMultistep: min(steps, 1)
    case .erSDE: min(steps, 2)
    case .unipc: steps == 0 ? 0 : min(steps, 2) + 1
    }
  }
}

/// Noise levels before the shift, by the names that users of ComfyUI know.
public enum ScheduleName: String, Sendable, Hashable, Codable, CaseIterable {
  /// Evenly spaced, on the grid of a thousand training levels.
  case simple
  /// At the quantiles of a beta distribution: closer together at both ends.
  case beta
  /// Evenly spaced down to the lowest training level instead of to 0.
  case sgmUniform = "sgm_uniform"
  /// Evenly spaced.
  case linear
  /// Evenly spaced, by the shift that the Lightning distillations of the model were trained with, and not stretched to
  /// a terminal level.
  case lightning
}
