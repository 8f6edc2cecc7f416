import ClusterCore
import Diffusion
import Foundation
import TensorCore
import Testing

/// Samplers and schedules against public implementations, as `Tests/Golden/make_samplers.py` has recorded them.
@Suite struct SamplerReferenceTests {
  private struct Recording: Decodable {
    struct Case: Decodable {
      let sampler: SamplerName
      let start: String
      let sigmas: [Double]
      let latents: [Float]
      let states: [[Float]]
    }
    struct Model: Decodable {
      let centre: Double
      let width: Double
    }
    struct Schedule: Decodable {
      let steps: Int
      let linear: [Double]
      let simple: [Double]
      let sgm_uniform: [Double]
      let beta: [Double]
    }
    let model: Model
    let seed: UInt64
    let shape: [Int]
    let cases: [Case]
    let quantiles: [[Double]]
    let cumulative: [[Double]]
    let schedules: [Schedule]
  }

  private static func recording() throws -> Recording {
    let url = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../Golden/samplers.json")
    return try JSONDecoder().decode(Recording.self, from: Data(contentsOf: url))
  }

  /// The latents after every step, from pure noise and from an image with noise.
  @Test(arguments: SamplerName.allCases) func everyStepAgrees(_ name: SamplerName) throws {
    let recording = try Self.recording(), cases = recording.cases.filter { $0.sampler == name }
    #expect(cases.count >= 8)
    for recorded in cases {
      let predictor = AnalyticPredictor(centre: recording.model.centre, width: recording.model.width)
      var input = DenoisingInput.analytic(
        SamplingChoice(sampler: name), latents: Tensor(recorded.latents, shape: Shape(recording.shape)),
        steps: recorded.sigmas.count, sigmas: recorded.sigmas)
      input.seed = recording.seed
      let denoise = Denoiser(predictor, scheduler: .unshifted, guidance: .plain)
      var states: [[Float]] = []
      _ = try denoise(input) { states.append($0.latents.floats()) }
      #expect(states.count == recorded.states.count)
      for (step, (found, expected)) in zip(states, recorded.states).enumerated() {
        let error = relativeDistance(found, expected)
        #expect(error < 1e-5, "\(recorded.start), \(recorded.sigmas.count) steps: \(error) after step \(step + 1)")
      }
    }
  }

  @Test func quantilesOfTheBetaDistribution() throws {
    let recording = try Self.recording()
    for pair in recording.quantiles {
      let (p, expected) = (pair[0], pair[1]), found = BetaDistribution.quantile(p)
      #expect(abs(found - expected) <= 1e-12 * max(min(expected, 1), 1e-3 * p), "\(p): \(found), not \(expected)")
    }
    for pair in recording.cumulative {
      let (x, expected) = (pair[0], pair[1]), found = BetaDistribution.cumulative(x)
      #expect(abs(found - expected) <= 1e-13 * max(expected, 1e-3), "\(x): \(found), not \(expected)")
    }
    for index in 1..<1000 {
      let p = Double(index) / 1000
      #expect(abs(BetaDistribution.cumulative(BetaDistribution.quantile(p)) - p) < 1e-13)
    }
  }

  @Test func levelsOfSchedules() throws {
    for recorded in try Self.recording().schedules {
      for (name, expected) in [
        (.linear, recorded.linear), (.simple, recorded.simple), (.sgmUniform, recorded.sgm_uniform),
        (.beta, recorded.beta),
      ] as [(ScheduleName, [Double])] {
        let found = name.levels(steps: recorded.steps)
        #expect(found.count == expected.count)
        for (a, b) in zip(found, expected) { #expect(abs(a - b) < 1e-12, "\(name), \(recorded.steps) steps") }
      }
    }
  }

  /// The shift of 3 and no terminal level, whatever the image's size: as the scheduler that the Lightning distillations
  /// are published with, whose levels for 4 steps are 3s / (1 + 2s).
  @Test func levelsOfLightning() throws {
    let choice = SamplingChoice(schedule: .lightning)
    #expect(choice.levels(steps: 4) == nil)
    for tokens in [16, 4096, 20_000] {
      let schedule = try FlowMatchSchedule(
        configuration: choice.configuration(.published), steps: 4, imageTokens: tokens)
      for (found, expected) in zip(schedule.sigmas, [1, 0.9, 0.75, 0.5, 0] as [Float]) {
        #expect(abs(found - expected) < 1e-6)
      }
    }
    var own = SchedulerConfiguration.published
    (own.lightningShift, own.sampleSigmas) = (nil, [1, 0.5])
    let schedule = try FlowMatchSchedule(configuration: choice.configuration(own), steps: 4, imageTokens: 4096)
    var unstretched = SchedulerConfiguration.published
    unstretched.shiftTerminal = nil
    #expect(try schedule == FlowMatchSchedule(configuration: unstretched, steps: 4, imageTokens: 4096))
    #expect(SamplingChoice(schedule: .linear).configuration(own) == own)
  }

  /// Any number of steps gives as many levels, which fall.
  @Test(arguments: ScheduleName.allCases) func levelsFall(_ name: ScheduleName) throws {
    for steps in [1, 2, 9, 137, 150, 200, 999, 1000] {
      let levels = name.levels(steps: steps)
      #expect(levels.count == steps && levels[0] == 1 && levels[steps - 1] > 0, "\(steps) steps")
      #expect(zip(levels, levels.dropFirst()).allSatisfy { $0 > $1 }, "\(steps) steps")
      _ = try FlowMatchSchedule(configuration: .published, steps: steps, imageTokens: 4096, levels: levels)
    }
  }
}
