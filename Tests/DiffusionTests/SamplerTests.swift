import ClusterCore
import Diffusion
import Foundation
import TensorCore
import Testing

/// What holds of every sampler, on a model whose velocity is known.
@Suite struct SamplerTests {
  private func denoiser(_ predictor: AnalyticPredictor = AnalyticPredictor()) -> Denoiser<AnalyticPredictor> {
    Denoiser(predictor, scheduler: .unshifted, guidance: .plain)
  }

  private func inpainting(_ latents: Tensor) -> Inpainting {
    let mask = Tensor((0..<latents.elementCount).map { $0 % 3 == 0 ? 0 : 1 }, shape: latents.shape)
    let image = Tensor(Array(repeating: 0.7, count: latents.elementCount), shape: latents.shape)
    return Inpainting(image: image, noise: latents, mask: mask)
  }

  /// Also behind steps that a strength leaves out, with a mask, and with guidance in some steps.
  @Test(arguments: SamplerName.allCases, [0, 2]) func aResumeEndsWithTheSameBytes(
    _ name: SamplerName, _ start: Int
  ) throws {
    for isMasked in [false, true] {
      let noise = normal(5)
      var input = DenoisingInput.analytic(
        SamplingChoice(sampler: name, schedule: .beta, cfgSteps: 3), latents: noise, steps: 8, isGuided: true)
      (input.startStep, input.firstStep) = (start, start)
      if isMasked { input.inpainting = inpainting(noise) }
      var checkpoints: [(steps: Int, tensor: Tensor)] = [], previews: [[Float]] = []
      let whole = try denoiser()(input) {
        checkpoints.append(($0.completedSteps, $0.checkpoint.state.copied()))
        previews.append($0.expectedLatents.floats())
      }
      #expect(checkpoints.map(\.steps) == Array(start + 1...8))
      #expect(previews.last == whole.floats() && whole.shape == noise.shape)
      if isMasked { #expect(previews.allSatisfy { $0[0] == 0.7 && $0[3] == 0.7 } && whole.floats()[0] == 0.7) }
      for checkpoint in checkpoints {
        let made = checkpoint.steps - start, history = name.history(after: made)
        #expect(checkpoint.tensor.shape == (history == 0 ? noise.shape : [history + 1, 4, 8]))
        (input.firstStep, input.latents) = (checkpoint.steps, checkpoint.tensor)
        let resumed = try denoiser()(input)
        if checkpoint.steps < 8 {
          #expect(resumed.floats() == whole.floats(), "resumed after step \(checkpoint.steps)")
        }
      }
    }
  }

  @Test(arguments: SamplerName.allCases) func aCheckpointOfAnotherStepIsRefused(_ name: SamplerName) throws {
    var input = DenoisingInput.analytic(SamplingChoice(sampler: name), latents: normal(5), steps: 6)
    let right = name.history(after: 1)
    for history in 0...4 where history != right {
      input.firstStep = 1
      input.latents = .zeros(history == 0 ? [4, 8] : [history + 1, 4, 8])
      let error = #expect(throws: PipelineError.self) { try denoiser()(input) }
      #expect(error?.description.contains("latents") == true && error?.description.contains(name.rawValue) == true)
    }
    (input.firstStep, input.startStep, input.latents) = (1, 2, normal(5))
    #expect(throws: PipelineError.self) { try denoiser()(input) }
    (input.firstStep, input.startStep, input.latents) = (0, 0, .zeros([1, 4, 8]))
    #expect(throws: PipelineError.self) { try denoiser()(input) }
  }

  private func end(_ name: SamplerName, steps: Int, from first: Double = 1, _ latents: Tensor) throws -> [Float] {
    let levels = (0..<steps).map { first * (1 - Double($0) / Double(steps)) }
    return try denoiser()(
      .analytic(SamplingChoice(sampler: name), latents: latents, steps: steps, sigmas: levels)
    ).floats()
  }

  /// With many steps those without new noise agree, and those of second order are nearer to that with few.
  @Test func samplersConverge() throws {
    let noise = normal(21, tokens: 64), exact = try end(.heun, steps: 1000, noise)
    let euler = relativeDistance(try end(.euler, steps: 24, noise), exact)
    for name in SamplerName.allCases where name != .dpmpp2MSDE && name != .erSDE {
      let many = relativeDistance(try end(name, steps: 1000, noise), exact)
      #expect(many < (name == .euler ? 1e-2 : 1e-3), "\(name): \(many)")
      let few = relativeDistance(try end(name, steps: 24, noise), exact)
      #expect(name == .euler || few < 0.6 * euler, "\(name): \(few), Euler \(euler)")
    }
  }

  /// Samplers with new noise end with the distribution of the images.
  @Test(arguments: [SamplerName.dpmpp2MSDE, .erSDE]) func newNoiseKeepsTheDistribution(_ name: SamplerName) throws {
    let values = try end(name, steps: 100, normal(3, tokens: 2048)).map { Double($0) }, count = Double(values.count)
    let mean = values.reduce(0, +) / count, square = values.reduce(0) { $0 + $1 * $1 } / count
    let absolute = values.reduce(0) { $0 + abs($1) } / count
    #expect(abs(mean) < 0.05 && abs(square - (1.2 * 1.2 + 0.3 * 0.3)) < 0.05 && abs(absolute - 1.2) < 0.03)
  }

  @Test(arguments: SamplerName.allCases) func newNoiseFollowsTheSeed(_ name: SamplerName) throws {
    var input = DenoisingInput.analytic(SamplingChoice(sampler: name), latents: normal(5), steps: 4)
    func latents(_ seed: UInt64) throws -> [Float] {
      input.seed = seed
      return try denoiser()(input).floats()
    }
    let isNoisy = name == .dpmpp2MSDE || name == .erSDE
    let first = try latents(1), again = try latents(1), other = try latents(2)
    #expect(first == again && (first != other) == isNoisy)
    // As of the initial noise, the lower 32 bits count.
    let folded = try latents(1 << 32 | 1)
    #expect(first == folded)
  }

  /// Logarithms of the first level are infinite; what follows is the limit.
  @Test(arguments: SamplerName.allCases) func pureNoiseIsALimit(_ name: SamplerName) throws {
    let noise = normal(8)
    for steps in [2, 3, 6] {
      let (limit, near) = (try end(name, steps: steps, noise), try end(name, steps: steps, from: 0.99999, noise))
      #expect(limit.allSatisfy { $0.isFinite })
      // The weight of the first step falls with the logarithm of 1 − σ alone.
      #expect(relativeDistance(near, limit) < 0.1, "\(steps) steps")
    }
  }

  /// Noise levels that a request repeats are steps that change nothing.
  @Test(arguments: SamplerName.allCases) func levelsMayRepeat(_ name: SamplerName) throws {
    for levels in [[1, 1, 0.5], [1, 0.6, 0.6, 0.6, 0.3], [0.8, 0.8]] as [[Double]] {
      let made = try denoiser()(
        .analytic(SamplingChoice(sampler: name), latents: normal(2), steps: levels.count, sigmas: levels))
      #expect(made.floats().allSatisfy { $0.isFinite }, "\(levels)")
    }
  }

  @Test(arguments: SamplerName.allCases) func guidanceActsInTheFirstSteps(_ name: SamplerName) throws {
    func run(_ cfgSteps: Int?, start: Int = 0, isGuided: Bool = true) throws -> (latents: [Float], calls: [Int]) {
      let predictor = AnalyticPredictor()
      var input = DenoisingInput.analytic(
        SamplingChoice(sampler: name, cfgSteps: cfgSteps), latents: normal(4), steps: 5, isGuided: isGuided)
      (input.startStep, input.firstStep) = (start, start)
      let latents = try denoiser(predictor)(input).floats()
      let evaluations = SamplingChoice(sampler: name, cfgSteps: cfgSteps)
        .evaluations(steps: 5, startStep: start, branches: isGuided ? 2 : 1)
      #expect(predictor.calls.reduce(0) { $0 + $1.count } == evaluations)
      return (latents, predictor.calls.map(\.count))
    }
    let (all, none) = (try run(nil), try run(nil, isGuided: false))
    let (whole, zero, some) = (try run(5), try run(0), try run(2))
    #expect(whole == all && zero == none && all != none)
    #expect(some.latents != all.latents && some.latents != none.latents)
    #expect(some.calls == (name == .heun ? [2, 2, 2, 2, 1, 1, 1, 1, 1] : [2, 2, 1, 1, 1]))
    // Of the steps that are made.
    #expect(try run(1, start: 3).calls == (name == .heun ? [2, 2, 1] : [2, 1]))
  }

  @Test func whatDoesNotFitIsRefused() throws {
    func refusal(_ sampling: SamplingChoice, _ sigmas: [Double]? = nil) throws -> String {
      let input = DenoisingInput.analytic(sampling, latents: normal(1), steps: 2, sigmas: sigmas)
      let error = #expect(throws: PipelineError.self) { try denoiser()(input) }
      return error?.description ?? ""
    }
    #expect(try refusal(SamplingChoice(schedule: .beta), [1, 0.5]).contains("schedule is beta, beside sigmas"))
    #expect(try refusal(SamplingChoice(cfgSteps: 3)).contains("cfg_steps is 3"))
    #expect(try refusal(SamplingChoice(cfgSteps: -1)).contains("cfg_steps is -1"))
    var input = DenoisingInput.analytic(SamplingChoice(schedule: .beta), latents: normal(1), steps: 1001)
    let error = #expect(throws: PipelineError.self) { try denoiser()(input) }
    #expect(error?.description.contains("1001 steps") == true)
    input.sampling = .standard
    #expect(throws: PipelineError.self) { try denoiser()(input) }
  }

  /// A schedule is bent and stretched as the model's own levels are.
  @Test func schedulesAreShifted() throws {
    let denoise = Denoiser(AnalyticPredictor(), scheduler: .published, guidance: .plain)
    var input = DenoisingInput.analytic(SamplingChoice(schedule: .linear), latents: normal(1), steps: 4)
    let named = try denoise.schedule(input).sigmas
    input.sampling = .standard
    #expect(try named == denoise.schedule(input).sigmas)
    (input.sampling.schedule, input.steps) = (.beta, 20)
    let beta = try denoise.schedule(input).sigmas
    #expect(beta.count == 21 && beta[0] == 1 && abs(beta[19] - 0.02) < 1e-6 && beta[20] == 0)
  }

  @Test func evaluationsOfSteps() {
    func count(_ name: SamplerName, _ cfgSteps: Int?, start: Int = 0, branches: Int = 2) -> Int {
      SamplingChoice(sampler: name, cfgSteps: cfgSteps).evaluations(steps: 10, startStep: start, branches: branches)
    }
    #expect(count(.euler, nil) == 20 && count(.euler, 4) == 14 && count(.euler, 0) == 10)
    #expect(count(.heun, nil) == 38 && count(.heun, 4) == 27 && count(.heun, nil, branches: 1) == 19)
    #expect(count(.unipc, 4, start: 8) == 4 && count(.euler, nil, start: 10) == 0 && count(.heun, nil, start: 10) == 0)
  }
}

@Suite struct PortableExponentialTests {
  @Test func agreesWithTheLibrary() {
    for index in -7000...7000 {
      let x = Double(index) / 10 + 0.0123, expected = exp(x), found = PortableMath.exp(x)
      #expect(abs(found - expected) <= 4 * expected.ulp, "\(x)")
    }
    #expect(PortableMath.exp(0) == 1 && PortableMath.exp(-800) == 0 && PortableMath.exp(800) == .infinity)
    for x in [1e-9, 0.1, 0.5, 1, 3, 12_345.6] {
      #expect(abs(PortableMath.pow(x, 0.3) / pow(x, 0.3) - 1) < 1e-14, "\(x)")
    }
  }
}
