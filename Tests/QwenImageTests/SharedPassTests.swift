import Diffusion
import GoldenSupport
import Kernels
import ModelRegistry
import QwenImage
import TensorCore
import Testing
import Weights

@Suite struct SharedPassTests {
  private static func compute(_ precision: Precision) -> Compute {
    Compute(precision: precision, pool: ThreadPool(threads: 2))
  }

  private static func uniforms(_ name: String, _ rows: Int, _ columns: Int) -> Tensor {
    Tensor(SyntheticWeights.uniforms(name, count: rows * columns), shape: [rows, columns])
  }

  /// Branches of different sizes, prompts, schedules and steps in one pass, as each by itself.
  @Test(arguments: Precision.allCases) func branchesDoNotDependOnOneAnother(_ precision: Precision) throws {
    let model = try ModelDirectory(Golden.tinyCheckpoint), compute = Self.compute(precision)
    let transformer = try MMDiT(
      model.weights(of: .transformer), configuration: model.qwenImage.transformer, compute: compute)
    let channels = model.qwenImage.transformer.inChannels, width = model.qwenImage.transformer.jointAttentionDim
    let tables = [transformer.modulation(times: [1, 0.6, 0.1]), transformer.modulation(times: [0.9, 0.3])]
    let branches = [(4, 4, 7, 0, 0), (5, 7, 1, 1, 1), (4, 4, 30, 0, 2), (20, 15, 12, 1, 0)].enumerated().map {
      index, shape in
      let (rows, columns, text, table, step) = shape, grid = TokenGrid(height: rows, width: columns)
      return MMDiT.Branch(
        latents: Self.uniforms("latents.\(index)", grid.tokenCount, channels),
        conditioning: transformer.condition(promptEmbeds: Self.uniforms("prompt.\(index)", text, width), grid: grid),
        modulation: tables[table], step: step)
    }
    let alone = branches.map { transformer($0).floats() }
    for count in 1...branches.count {
      #expect(
        transformer(Array(branches.prefix(count))).map { $0.floats() } == Array(alone.prefix(count)),
        "\(count) at \(precision)")
    }
    #expect(transformer(branches.reversed()).map { $0.floats() } == alone.reversed())
    #expect(transformer([]).isEmpty)
    let image = denoisingInput(
      Self.uniforms("prompt", 7, width), Self.uniforms("negative", 300, width), Self.uniforms("latents", 16, channels),
      TokenGrid(height: 4, width: 4), steps: 2, scale: 2)
    let calls = try transformer.prepare(image, times: [1, 0.5]).flatMap { branch in
      (0..<3).map { VelocityCall(branch: branch, latents: image.latents, step: $0 % 2) }
    }
    #expect(
      transformer.velocities(calls).map { $0.floats() }
        == calls.map { transformer.velocity($0, probe: .none).floats() })
  }

  /// Recording makes the denoiser run the branches of guidance one by one.
  @Test(arguments: [PrecisionChoice.fp32, .bf16, .int8, .q4]) func guidanceInOnePass(_ precision: PrecisionChoice)
    throws
  {
    let model = try ModelDirectory(Golden.tinyCheckpoint)
    let denoiser = try model.denoiser(WeightLoading(precision: precision), pool: ThreadPool(threads: 2))
    let grid = TokenGrid(height: 6, width: 5), width = model.qwenImage.transformer.jointAttentionDim
    let input = denoisingInput(
      Self.uniforms("prompt", 11, width), Self.uniforms("negative", 6, width),
      Self.uniforms("latents", grid.tokenCount, model.qwenImage.transformer.inChannels), grid, steps: 3, scale: 4)
    #expect(try denoiser(input).floats() == denoiser(input, probe: Recording().probe).floats())
  }
}
