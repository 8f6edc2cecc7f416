import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import Kernels
import QwenImage
import Synchronization
import TensorCore
import Testing
import Weights

/// Step caches in the loop around the first family's network: the embedded model, which has five blocks.
@Suite struct StepCacheTests {
  static let methods = [
    "first_block:threshold=0.2,warmup=2,max_consecutive=2",
    "first_block:threshold=10,warmup=1,last=0,max_consecutive=9",
    "dual_block:front=2,back=1,threshold=0.3,warmup=2", "dual_block:front=1,back=3,threshold=10,warmup=3",
    "taylor:interval=3,order=0", "taylor:interval=3,order=1", "taylor:interval=2,order=2,warmup=1,last=0",
    "mask:skip=2+4+5+9", "mask:skip=3+4+8,order=2",
  ]

  private static let steps = 10
  private static let model = golden.deletingLastPathComponent().deletingLastPathComponent()
    .appending(path: "compose/models/nano-qwen-image")

  private static func denoiser(_ precision: Precision, threads: Int) throws -> Denoiser<MMDiT> {
    try ModelDirectory(model).denoiser(
      WeightLoading(precision: precision == .fp32 ? .fp32 : .bf16), pool: ThreadPool(threads: threads))
  }

  private static func input(
    _ cache: String?, isGuided: Bool = true, seed: String = "latents"
  ) throws -> DenoisingInput {
    let width = try ModelDirectory(model).qwenImage.transformer.jointAttentionDim
    func uniforms(_ name: String, _ rows: Int, _ columns: Int) -> Tensor {
      Tensor(SyntheticWeights.uniforms(name, count: rows * columns), shape: [rows, columns])
    }
    var input = denoisingInput(
      uniforms("prompt", 9, width), isGuided ? uniforms("negative", 4, width) : nil, uniforms(seed, 16, 64),
      TokenGrid(height: 4, width: 4), steps: steps, scale: 3)
    input.cache = try cache.flatMap { try StepCache.parse($0) }
    return input
  }

  @Test(arguments: methods) func aResumeEndsWithTheSameBytes(_ method: String) throws {
    for (precision, isGuided) in [(Precision.fp32, true), (.bf16, true), (.fp32, false)] {
      var input = try Self.input(method, isGuided: isGuided), checkpoints: [LoopCheckpoint] = []
      let whole = try Self.denoiser(precision, threads: 1)(input) { step in
        #expect(step.checkpoint.completedSteps <= step.completedSteps)
        checkpoints.append(step.checkpoint)
      }
      let isFinite = whole.floats().allSatisfy { $0.isFinite }
      #expect(isFinite)
      #expect(checkpoints.map(\.completedSteps) == checkpoints.map(\.completedSteps).sorted())
      let denoise = try Self.denoiser(precision, threads: 3)
      #expect(try denoise(input).floats() == whole.floats(), "with three threads")
      input.startStep = 0
      for checkpoint in checkpoints {
        input.resume(at: checkpoint.completedSteps, from: checkpoint.state)
        #expect(
          try denoise(input).floats() == whole.floats(), "\(precision), resumed after step \(checkpoint.completedSteps)"
        )
      }
    }
  }

  /// The state of samplers with history is taken before the same step as the latents.
  @Test(arguments: SamplerName.allCases.filter(\.evaluatesOnce))
  func samplersResumeAlike(_ sampler: SamplerName) throws {
    let denoise = try Self.denoiser(.fp32, threads: 2)
    for method in ["first_block:threshold=10,warmup=2", "dual_block:front=2,back=1,threshold=0.3", "taylor:interval=3"]
    {
      var input = try Self.input(method), checkpoints: [LoopCheckpoint] = []
      (input.sampling, input.seed) = (SamplingChoice(sampler: sampler, cfgSteps: 6), 3)
      let whole = try denoise(input) { checkpoints.append($0.checkpoint) }
      for checkpoint in checkpoints {
        input.resume(at: checkpoint.completedSteps, from: checkpoint.state)
        #expect(try denoise(input).floats() == whole.floats(), "\(method) after step \(checkpoint.completedSteps)")
      }
    }
  }

  @Test func samplersThatEvaluateTwiceAreRefused() throws {
    var input = try Self.input("taylor:interval=3")
    input.sampling = SamplingChoice(sampler: .heun)
    let error = #expect(throws: PipelineError.self) { try Self.denoiser(.fp32, threads: 1)(input) }
    #expect("\(try #require(error))".contains("heun evaluates the network twice a step"))
  }

  /// A job that begins late counts its own steps.
  @Test(arguments: ["first_block:threshold=10,warmup=2,max_consecutive=2", "taylor:interval=3,order=1,warmup=2"])
  func leftOutStepsDoNotCount(_ method: String) throws {
    var input = try Self.input(method)
    let denoise = try Self.denoiser(.fp32, threads: 2), calls = Counter()
    (input.startStep, input.firstStep) = (3, 3)
    var checkpoints: [LoopCheckpoint] = []
    let whole = try calls.counting(denoise)(input) { checkpoints.append($0.checkpoint) }
    // Steps 3, 4, then every third one, and the last.
    #expect(calls.count == (method.hasPrefix("taylor") ? 4 : 7))
    for checkpoint in checkpoints {
      input.resume(at: checkpoint.completedSteps, from: checkpoint.state)
      #expect(try denoise(input).floats() == whole.floats(), "resumed after step \(checkpoint.completedSteps)")
    }
  }

  /// The higher the threshold, the fewer whole steps; those that are left out change the image.
  @Test func thresholdsDecide() throws {
    let denoise = try Self.denoiser(.fp32, threads: 2), uncached = try denoise(Self.input(nil)).floats()
    var counts: [Int] = []
    for exponent in -8...6 {
      var computed = 0
      let method = "first_block:threshold=\(exp2(Double(exponent) / 2)),warmup=1,last=0,max_consecutive=9"
      let latents = try denoise(Self.input(method)) { computed += $0.isComputed ? 1 : 0 }
      #expect((latents.floats() == uncached) == (computed == Self.steps), "\(method)")
      counts.append(computed)
    }
    #expect(counts[0] > counts[counts.count - 1] && counts[counts.count - 1] == 1, "\(counts)")
    #expect(Set(counts).count >= 3, "\(counts)")
  }

  /// A threshold that nothing stays below changes nothing.
  @Test(arguments: ["first_block:threshold=0", "dual_block:front=2,back=2,threshold=0"])
  func withoutReuseTheBytesAreThoseWithoutACache(_ method: String) throws {
    let denoise = try Self.denoiser(.bf16, threads: 2)
    #expect(try denoise(Self.input(method)).floats() == denoise(Self.input(nil)).floats())
  }

  /// Calls of several images share a pass: each with the bytes that it has alone, whatever the others leave out.
  @Test(arguments: Precision.allCases) func sharedPassesChangeNothing(_ precision: Precision) throws {
    let compute = Compute(precision: precision, pool: ThreadPool(threads: 2))
    let directory = try ModelDirectory(Self.model)
    let network = try MMDiT(
      directory.weights(of: .transformer), configuration: directory.qwenImage.transformer, compute: compute)
    let settings = [
      "first_block:threshold=0.15", "dual_block:front=2,back=1,threshold=0.2", nil,
      "first_block:threshold=10", "dual_block:front=1,back=1,threshold=0",
    ]
    let inputs = try settings.enumerated().map { index, _ in try Self.input(nil, isGuided: index != 1) }
    let times: [Float] = [1, 0.9, 0.8, 0.5]
    func velocities(shared: Bool) throws -> [[Float]] {
      let caches = try settings.map { try $0.flatMap { try StepCache.parse($0) }.map { BlockCache($0) } }
      let branches = try inputs.map { try network.prepare($0, times: times) }
      var found: [[Float]] = []
      for step in times.indices {
        for cache in caches { cache?.begin(mustCompute: step == 0) }
        let calls = inputs.indices.map { job in
          branches[job].enumerated().map {
            VelocityCall(branch: $1, latents: inputs[job].latents, step: step, cache: caches[job]?.branch($0))
          }
        }
        found += (shared ? network.velocities(calls.flatMap { $0 }) : calls.flatMap { network.velocities($0) })
          .map { $0.floats() }
      }
      return found
    }
    #expect(try velocities(shared: true) == velocities(shared: false))
  }

  /// References, layers, masks and control images, each resumed after every step.
  @Test(arguments: ["edit_plus_2511", "layered", "inpaint", "controlnet", "edit_inpaint"])
  func otherInputsResumeAlike(_ name: String) throws {
    let recorded = try RecordedLoop.named(name)
    for method in ["first_block:threshold=10,warmup=1,last=0", "taylor:interval=2,order=1,warmup=1,last=0"] {
      var input = try recorded.input(), checkpoints: [LoopCheckpoint] = []
      (input.cache, input.startStep) = (try StepCache.parse(method), input.firstStep)
      let denoise = try recorded.denoiser(.fp32)
      let whole = try denoise(input) { checkpoints.append($0.checkpoint) }
      for checkpoint in checkpoints where checkpoint.completedSteps < input.steps {
        input.resume(at: checkpoint.completedSteps, from: checkpoint.state)
        #expect(try denoise(input).floats() == whole.floats(), "\(method) after step \(checkpoint.completedSteps)")
      }
    }
  }

  @Test func whatDoesNotFitIsRefused() throws {
    let denoise = try Self.denoiser(.fp32, threads: 1)
    func field(_ change: (inout DenoisingInput) throws -> Void) throws -> String {
      var input = try Self.input("taylor:interval=3")
      try change(&input)
      let error = #expect(throws: PipelineError.self) { try denoise(input) }
      guard case .invalidRequest(let field, _)? = error else { return "" }
      return field
    }
    #expect(try field { $0.cache = try StepCache.parse("dual_block:front=4,back=1") } == "cache.front")
    #expect(try field { $0.cache = try StepCache.parse("mask:skip=11") } == "cache.skip")
    #expect(try field { $0.startStep = 1 } == "first_step")
    // Its velocities are missing, too many, or of another shape.
    #expect(try field { ($0.firstStep, $0.startStep) = (5, 0) } == "latents")
    #expect(
      try field {
        $0.startStep = 0
        $0.resume(at: 5, from: Tensor.zeros([2, 16, 64]))
      } == "latents")
    #expect(
      try field {
        $0.startStep = 0
        $0.resume(at: 5, from: Tensor.zeros([4, 16, 64]))
      } == "latents")
  }

  /// Recordings have the bytes that the image has.
  @Test(arguments: ["first_block:threshold=10", "taylor:interval=3"]) func recordingChangesNothing(
    _ method: String
  ) throws {
    let denoise = try Self.denoiser(.bf16, threads: 2), recording = Recording()
    let recorded = try denoise(Self.input(method), probe: recording.probe)
    #expect(try recorded.floats() == denoise(Self.input(method)).floats())
    #expect(recording.tensor("latents.step9")?.floats() == recorded.floats())
  }
}

/// Counts the passes of a loop.
private final class Counter: Sendable {
  private let passes = Mutex(0)
  var count: Int { passes.withLock { $0 } }

  func counting(_ denoiser: Denoiser<MMDiT>) -> Denoiser<MMDiT> {
    denoiser.predicting { calls in
      self.passes.withLock { $0 += 1 }
      return denoiser.predictor.velocities(calls)
    }
  }
}
