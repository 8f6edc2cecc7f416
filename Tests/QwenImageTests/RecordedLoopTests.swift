import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import Kernels
import QwenImage
import TensorCore
import Testing
import Weights

/// The denoising loops of the pipelines with images as input, against the reference, from recorded inputs.
@Suite struct RecordedLoopTests {
  @Test(arguments: RecordedLoop.all) func everyIntermediateAgreesInFP32(_ loop: RecordedLoop) throws {
    let recording = Recording(), sink = recording.probe
    // The reference records what leaves control networks outside of the transformer's names.
    let probe = Probe { name, tensor in
      sink.record(name.replacing("dit.step0.cond.controlnet.", with: "controlnet."), tensor)
    }
    let latents = try loop.denoiser(.fp32)(try loop.input(), probe: probe)
    let reference = try loop.tensors()
    try expectAgreement(
      recording, with: reference, tolerance: 1e-4,
      notRecorded: { name in
        !["dit.", "latents.", "sigmas", "timesteps", "controlnet.sample."].contains { name.hasPrefix($0) }
          || name.hasSuffix("encoder_hidden_states_mask")
      })
    // Without recording, branches share passes and condition images are left out at the end.
    #expect(try loop.denoiser(.fp32)(try loop.input()).floats() == latents.floats())
  }

  /// What torch's own bf16 does to text-to-image (`bf16.*` of `t2i_64x64`), with the same weights: a yardstick for the
  /// calls that have none of their own.
  @Test(arguments: RecordedLoop.all) func bf16StaysNearFP32(_ loop: RecordedLoop) throws {
    let yardstick = try ReferenceTensors(Golden.reference("t2i_64x64.safetensors"))
    let recording = Recording()
    _ = try loop.denoiser(.bf16)(try loop.input(), probe: recording.probe)
    let exact = try loop.tensors(), name = "dit.step0.cond.out"
    let theirs = relativeError(try yardstick.floats("bf16.\(name)"), try yardstick.floats(name))
    let ours = relativeError(try #require(recording.tensor(name)).floats(), try exact.floats(name))
    #expect(ours <= 1.5 * theirs, "\(name): error \(ours), torch bf16 \(theirs) for text-to-image")
  }

  /// The error of text-to-image at the same precision is the yardstick.
  @Test(arguments: RecordedLoop.all, [Precision.int8, .q4])
  func packedWeightsStayNearFP32(_ loop: RecordedLoop, _ precision: Precision) throws {
    func error(_ loop: RecordedLoop, _ input: DenoisingInput) throws -> Double {
      let outputs = try [precision, .fp32].map { precision in
        let recording = Recording()
        _ = try loop.denoiser(precision)(input, probe: recording.probe)
        return try #require(recording.tensor("dit.step0.cond.out")).floats()
      }
      return relativeError(outputs[0], outputs[1])
    }
    let textOnly = try RecordedLoop.named("img2img")
    var input = try textOnly.input()
    input.firstStep = 0
    let yardstick = try error(textOnly, input), ours = try error(loop, try loop.input())
    #expect(ours > 0 && ours <= 1.5 * yardstick, "error \(ours), of text-to-image \(yardstick)")
  }

  @Test(arguments: RecordedLoop.all, [Precision.fp32, .bf16, .int8, .q4])
  func aResumeEndsWithTheSameBytes(_ loop: RecordedLoop, _ precision: Precision) throws {
    var input = try loop.input()
    var checkpoints: [(steps: Int, latents: Tensor)] = []
    let whole = try loop.denoiser(precision, threads: 1)(input) {
      checkpoints.append(($0.completedSteps, $0.latents.copied()))
    }
    #expect(checkpoints.map(\.steps) == Array(input.firstStep + 1...input.steps))
    // In another process, with other threads.
    let denoise = try loop.denoiser(precision, threads: 3)
    for checkpoint in checkpoints {
      (input.firstStep, input.latents) = checkpoint
      #expect(try denoise(input).floats() == whole.floats(), "resumed after step \(checkpoint.steps)")
    }
  }

  /// Where the loop begins, and from which noise.
  @Test(arguments: RecordedLoop.all) func beginsAsTheReference(_ loop: RecordedLoop) throws {
    let tensors = try loop.tensors(), grids = try loop.grids(), input = try loop.input(), seed = try loop.seed()
    let geometry = LatentGeometry(channels: 16, downscale: 8, patch: 2)
    let isSampled = ["img2img", "inpaint", "inpaint_crop", "edit_inpaint", "controlnet"].contains(loop.name)
    // The inpainting control network's encoder draws from a generator of its own.
    let drawnBefore = loop.name == "controlnet_inpaint" || isSampled ? 1 : 0
    let noise = InitialNoise.torchCPU(
      seed: seed, grid: input.grid, geometry, layers: input.layers, after: isSampled ? [input.grid] : [])
    let drawn = try tensors.floats("draw.\(drawnBefore)"), planeCount = drawn.count / input.layers
    let packed = (0..<input.layers).flatMap { layer in
      LatentPacking.pack(
        Tensor(
          Array(drawn[layer * planeCount..<(layer + 1) * planeCount]),
          shape: [16, 2 * grids[0].height, 2 * grids[0].width]), patch: 2
      ).floats()
    }
    #expect(relativeError(noise.floats(), packed) < 1e-6)
    if isSampled {
      let posterior = InitialNoise.posteriors(seed: seed, grids: [input.grid], geometry)[0]
      #expect(relativeError(posterior.floats(), try tensors.floats("draw.0")) < 1e-6)
    }
    let schedule = try FlowMatchSchedule(
      configuration: loop.scheduler(), steps: input.steps, imageTokens: input.grid.tokenCount)
    let startsFromImage = isSampled && loop.controlNetwork == nil
    let start = try startsFromImage ? schedule.noised(loop.sampled(0), with: noise, before: input.firstStep) : noise
    #expect(relativeError(start.floats(), input.latents.floats()) < 1e-5)
    #expect(input.firstStep == (loop.name == "img2img" ? 2 : 0))
  }

  @Test func guidanceOfLayersMayKeepTheNorm() throws {
    let loop = try RecordedLoop.named("layered"), denoise = try loop.denoiser(.fp32)
    var input = try loop.input()
    let plain = try denoise(input).floats()
    input.guidance = .normPreserving
    let normed = try denoise(input).floats()
    #expect(plain != normed && plain.count == normed.count)
    input.trueCFGScale = 1
    let conditional = try denoise(input).floats()
    input.guidance = .plain
    #expect(relativeError(try denoise(input).floats(), conditional) < 1e-5)
  }
}

// MARK: - Sharing, condition images, control

/// What does not depend on what else is in a pass.
@Suite struct ImageInputPassTests {
  /// Calls of several images, with references, modulated at time 0, and layers, in one pass and one by one.
  @Test(arguments: ["edit_plus", "edit_plus_2511", "layered", "controlnet"], Precision.allCases)
  func callsDoNotDependOnOneAnother(_ name: String, _ precision: Precision) throws {
    let loop = try RecordedLoop.named(name), transformer = try loop.transformer(precision)
    let images = try variants(of: loop)
    let calls = try images.flatMap { image in
      try transformer.prepare(image, times: [1, 0.6, 0.2]).enumerated().map { branch, prepared in
        VelocityCall(branch: prepared, latents: image.latents, step: (image.prompts.count + branch) % 3)
      }
    }
    let alone = calls.map { transformer.velocity($0, probe: .none).floats() }
    #expect(zip(alone, calls).allSatisfy { $0.count == $1.latents.elementCount })
    #expect(transformer.velocities(calls).map { $0.floats() } == alone)
    #expect(transformer.velocities(calls.reversed()).map { $0.floats() } == alone.reversed())
    for (call, velocity) in zip(calls, alone) {
      #expect(transformer.velocity(call, probe: Recording().probe).floats() == velocity)
      #expect(transformer.velocities([call])[0].floats() == velocity)
    }
    #expect(Set(alone).count == alone.count)
  }

  /// The recorded image, one with less to be made from, and one without guidance.
  private func variants(of loop: RecordedLoop) throws -> [DenoisingInput] {
    let image = try loop.input()
    var less = image, single = image
    less.references = Array(image.references.dropLast())
    if image.layers > 1 {
      less.layers = image.layers - 1
      less.latents = image.latents.rows(0..<less.layers * image.grid.tokenCount)
      less.references = image.references
    }
    less.controls = []
    single.prompts = [image.prompts[1]]
    single.latents = Tensor(image.latents.floats().map { 0.5 * $0 }, shape: image.latents.shape)
    return [image, less, single]
  }

  @Test func tokensOfConditionImagesCount() throws {
    let loop = try RecordedLoop.named("edit_plus"), transformer = try loop.transformer(.bf16)
    let image = try loop.input(), branches = try transformer.prepare(image, times: [1])
    let counts = branches.map { transformer.tokenCount(VelocityCall(branch: $0, latents: image.latents, step: 0)) }
    #expect(counts == [30 + 160 + 61, 30 + 160 + 50])
  }

  /// The order of references is theirs: each has a number, and with it positions of its own.
  @Test func referencesHaveAnOrder() throws {
    let loop = try RecordedLoop.named("edit_plus"), denoise = try loop.denoiser(.fp32)
    var image = try loop.input()
    let ordered = try denoise(image).floats()
    image.references.reverse()
    #expect(relativeError(try denoise(image).floats(), ordered) > 1e-3)
  }

  /// A model whose condition images are modulated at time 0 makes images without any like one that is not.
  @Test func timeZeroIsForConditionImages() throws {
    var inputs = try ["edit_plus", "edit_plus_2511"].map { try RecordedLoop.named($0).input() }
    inputs[0] = inputs[1]
    let latents = try zip(["edit_plus", "edit_plus_2511"], inputs).map { name, input in
      var input = input
      let denoise = try RecordedLoop.named(name).denoiser(.fp32), withReferences = try denoise(input).floats()
      input.references = []
      return (with: withReferences, without: try denoise(input).floats())
    }
    #expect(latents[0].without == latents[1].without)
    #expect(relativeError(latents[0].with, latents[1].with) > 1e-3)
  }
}

@Suite struct ControlNetworkTests {
  private static let loop = RecordedLoop(name: "controlnet", controlNetwork: "controlnet")

  private func velocities(_ image: DenoisingInput, _ transformer: MMDiT, step: Int = 0) throws -> [[Float]] {
    let branches = try transformer.prepare(image, times: [1, 0.6, 0.2])
    return transformer.velocities(branches.map { VelocityCall(branch: $0, latents: image.latents, step: step) })
      .map { $0.floats() }
  }

  /// Residuals add up, also those of one network.
  @Test func controlImagesAddUp() throws {
    let transformer = try Self.loop.transformer(.fp32)
    var image = try Self.loop.input(), whole = image.controls[0]
    whole.scale = 0.8
    image.controls = [whole]
    let once = try velocities(image, transformer)
    image.controls = [whole, whole]
    (image.controls[0].scale, image.controls[1].scale) = (0.3, 0.5)
    for (twice, once) in zip(try velocities(image, transformer), once) { #expect(relativeError(twice, once) < 1e-5) }
    // A network that is alone reads all images.
    image.controls[1].network = 1
    for (twice, once) in zip(try velocities(image, transformer), once) { #expect(relativeError(twice, once) < 1e-5) }
    image.controls = []
    for (none, once) in zip(try velocities(image, transformer), once) { #expect(relativeError(none, once) > 1e-3) }
    image.controls = [whole]
    image.controls[0].scale = 0
    let none = try velocities(image, transformer)
    image.controls = []
    #expect(try velocities(image, transformer) == none)
  }

  /// Steps that lie in the range as a whole are controlled.
  @Test func actsInItsPartOfTheSteps() throws {
    let transformer = try Self.loop.transformer(.bf16)
    var image = try Self.loop.input()
    let everywhere = try (0..<3).map { try velocities(image, transformer, step: $0) }
    let control = image.controls[0]
    image.controls = []
    let nowhere = try (0..<3).map { try velocities(image, transformer, step: $0) }
    let cases: [(range: ClosedRange<Double>, acts: [Bool])] = [
      (0...1, [true, true, true]), (0...0.5, [true, false, false]), (0.3...1, [false, true, true]),
      (0.34...0.67, [false, false, false]), (0.5...0.5, [false, false, false]), (0...0.67, [true, true, false]),
    ]
    for (range, acts) in cases {
      image.controls = [control]
      image.controls[0].range = range
      for step in 0..<3 {
        let expected = acts[step] ? everywhere[step] : nowhere[step]
        #expect(try velocities(image, transformer, step: step) == expected, "\(range), step \(step)")
      }
    }
  }

  /// The residuals are those of the prompt, whatever the negative prompt is, and whether or not both come together.
  @Test func branchesShareResiduals() throws {
    let transformer = try Self.loop.transformer(.bf16), recording = Recording()
    let image = try Self.loop.input(), branches = try transformer.prepare(image, times: [1])
    let calls = branches.map { VelocityCall(branch: $0, latents: image.latents, step: 0) }
    let together = transformer.velocities(calls).map { $0.floats() }
    for (index, call) in calls.enumerated() {
      let velocity = transformer.velocity(call, probe: recording.probe.scoped("\(index)"))
      #expect(velocity.floats() == together[index])
    }
    let samples = (0..<2).map { recording.tensor("\($0).controlnet.sample.0")?.floats() }
    #expect(samples[0] != nil && samples[0] == samples[1])
    // The same image with other latents is another step.
    let other = Tensor(image.latents.floats().map { -$0 }, shape: image.latents.shape)
    let mixed = [calls[0], VelocityCall(branch: branches[1], latents: other, step: 0)]
    #expect(transformer.velocities(mixed).map { $0.floats() } == mixed.map { transformer.velocities([$0])[0].floats() })
  }

  @Test func blocksShareSamplesInRuns() {
    func indices(_ blocks: Int, _ samples: Int) -> [Int] {
      (0..<blocks).map { ControlResiduals.sample(after: $0, of: blocks, count: samples) }
    }
    #expect(indices(2, 1) == [0, 0] && indices(5, 2) == [0, 0, 0, 1, 1] && indices(3, 5) == [0, 1, 2])
    #expect(indices(60, 5) == (0..<60).map { $0 / 12 } && indices(60, 7) == (0..<60).map { $0 / 9 })
  }

  /// A network of another number of blocks than the transformer has, beside one of one block.
  @Test(arguments: Precision.allCases) func severalNetworks(_ precision: Precision) throws {
    let compute = Compute(precision: precision, pool: ThreadPool(threads: 2)), directory = try TemporaryDirectory()
    let config = golden.appending(path: "tiny/controlnet/config.json")
    let text = try String(contentsOf: config, encoding: .utf8)
      .replacingOccurrences(of: "\"num_layers\": 1", with: "\"num_layers\": 2")
      .replacingOccurrences(of: "\"extra_condition_channels\": 0", with: "\"extra_condition_channels\": 4")
    let transformer = try Self.loop.transformer(precision)
    let second = try ControlNetwork(
      .synthetic("controlnet"),
      configuration: ControlNetworkConfiguration(contentsOf: directory.write(text, as: "config.json")),
      compute: compute)
    let both = try MMDiT(
      ComponentWeights(
        directory: Golden.tinyCheckpoint.appending(path: "transformer"), baseName: "diffusion_pytorch_model"),
      configuration: transformer.configuration, compute: compute,
      controlNetworks: transformer.controlNetworks + [second])
    var image = try Self.loop.input()
    let first = image.controls[0]
    #expect(try velocities(image, both) == velocities(image, transformer))
    let mask = Tensor(
      SyntheticWeights.uniforms("control", count: image.grid.tokenCount * 68), shape: [image.grid.tokenCount, 68])
    let other = ControlInput(latents: mask, network: 1, scale: 1)
    image.controls = [first, other]
    let summed = try velocities(image, both)
    image.controls = [other, first]
    for (a, b) in zip(try velocities(image, both), summed) { #expect(relativeError(a, b) < 0.02) }
    image.controls = [other]
    for (a, b) in zip(try velocities(image, both), summed) { #expect(relativeError(a, b) > 1e-3) }
    image.controls = [first, other, ControlInput(latents: first.latents, network: 2)]
    let error = #expect(throws: PipelineError.self) { try velocities(image, both) }
    #expect(error?.description.contains("control_image number 3 is for control network 3, but 2 are loaded") == true)
  }
}
