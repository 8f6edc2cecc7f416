import ClusterCore
import Diffusion
import GoldenSupport
import Kernels
import QwenImage21
import TensorCore
import Testing

/// Step caches in the loop around the second family's network.
@Suite struct StepCacheTests {
  private static let methods = [
    "first_block:threshold=0.3,warmup=2", "first_block:threshold=10,warmup=1,last=0,max_consecutive=9",
    "dual_block:front=1,back=1,threshold=10,warmup=1,last=0", "taylor:interval=3,order=1", "mask:skip=2+4+5,order=2",
  ]

  private func input(_ name: String, _ cache: String?, steps: Int = 9) throws -> DenoisingInput {
    var input = try DenoisingCase(name).input()
    input.steps = steps
    input.cache = try cache.flatMap { try StepCache.parse($0) }
    return input
  }

  /// With and without keys and values of the prefix, with other threads, and from every checkpoint.
  @Test(arguments: ["t2i_96x160_cfg", "edit2_cfg"], methods)
  func bytesDoNotDependOnTheWay(_ name: String, _ method: String) throws {
    let recorded = try DenoisingCase(name)
    for precision in [Precision.fp32, .bf16] {
      var input = try input(name, method), checkpoints: [LoopCheckpoint] = []
      let whole = try recorded.denoiser(precision, threads: 1)(input) { checkpoints.append($0.checkpoint) }
      if method.contains("threshold=10") || !method.contains("threshold") {
        let uncached = try recorded.denoiser(precision)(self.input(name, nil))
        #expect(whole.floats() != uncached.floats())
      }
      input.startStep = 0
      for usesPrefixCache in [true, false] {
        let denoise = try recorded.denoiser(precision, threads: 3, usesPrefixCache: usesPrefixCache)
        #expect(try denoise(self.input(name, method)).floats() == whole.floats(), "cache: \(usesPrefixCache)")
        for checkpoint in checkpoints where checkpoint.completedSteps < input.steps {
          input.resume(at: checkpoint.completedSteps, from: checkpoint.state)
          #expect(
            try denoise(input).floats() == whole.floats(),
            "\(precision), prefix cache \(usesPrefixCache), resumed after step \(checkpoint.completedSteps)")
        }
      }
    }
  }

  @Test(arguments: [true, false]) func sharedPassesChangeNothing(_ usesPrefixCache: Bool) throws {
    let inputs = try ["edit2_cfg", "t2i_96x160_cfg", "edit"].map { try DenoisingCase($0).input() }
    let settings = ["first_block:threshold=0.2", nil, "dual_block:front=1,back=1,threshold=10"]
    let network = try DenoisingCase("edit").transformer(.bf16, usesPrefixCache: usesPrefixCache)
    let times: [Float] = [1, 0.9, 0.4]
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
}
