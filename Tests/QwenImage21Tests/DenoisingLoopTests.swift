import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import Kernels
import QwenImage21
import TensorCore
import Testing

/// The denoising loop from recorded inputs, against the reference.
@Suite struct DenoisingLoopTests {
  @Test(arguments: DenoisingCase.names) func everyIntermediateAgreesInFP32(_ name: String) throws {
    let recorded = try DenoisingCase(name), count = try recorded.imageCount()
    let longest = try (0..<count).map { try recorded.promptRows("cond", $0) }.max()
    var compared: Set<String> = []
    for image in 0..<count {
      // Padding would advance the positions of what follows the prompt.
      let isPadded = try recorded.promptRows("cond", image) != longest
      compared.formUnion(isPadded ? try compareText(recorded, image) : try compare(recorded, image))
    }
    let prefixes = ["dit.", "kv.", "latents.", "sigmas", "timesteps"]
    let missing = recorded.reference.names.subtracting(compared)
      .filter { name in prefixes.contains { name.hasPrefix($0) } }
    #expect(missing.isEmpty, "reference tensors that nothing was compared with: \(missing.sorted())")
  }

  /// Compares everything of one image; returns the names of the tensors.
  private func compare(_ recorded: DenoisingCase, _ image: Int) throws -> Set<String> {
    let denoise = try recorded.denoiser(.fp32, usesPrefixCache: recorded.usesPrefixCache)
    let recording = Recording(), input = try recorded.input(image)
    let latents = try denoise(input, probe: Self.renamed(recording.probe))
    // The loop leaves out what is inside of later steps.
    if input.steps > 1 {
      let schedule = try denoise.schedule(input), branches = try denoise.predictor.prepare(input, times: schedule.times)
      let before = try #require(recording.tensor("latents.step0"))
      for (branch, name) in zip(branches, ["cond", "uncond"]) {
        _ = denoise.predictor.velocity(
          VelocityCall(branch: branch, latents: before, step: 1), probe: recording.probe.scoped("dit.step1.\(name)"))
      }
    }
    let tensors = recording.all.filter { recorded.reference.names.contains($0.name) }
    for (name, tensor) in tensors {
      let (actual, expected) = try rows(of: tensor, name, recorded, image)
      let error = relativeError(actual, expected)
      try #require(error <= 1e-4, "first diverging tensor: \(name) \(tensor.shape), relative error \(error)")
    }
    // With and without recording and cache, the bytes are the same.
    for usesPrefixCache in [true, false] {
      let other = try recorded.denoiser(.fp32, threads: 1, usesPrefixCache: usesPrefixCache)(input)
      #expect(other.floats() == latents.floats(), "cache: \(usesPrefixCache)")
    }
    return Set(tensors.map(\.name))
  }

  /// Of a padded prompt only the text agrees, which precedes the padding.
  private func compareText(_ recorded: DenoisingCase, _ image: Int) throws -> Set<String> {
    let recording = Recording()
    _ = try recorded.denoiser(.fp32)(try recorded.input(image), probe: recording.probe)
    let name = "dit.step0.cond.out", output = try #require(recording.tensor(name))
    let slots = try recorded.slots("cond", image), rows = try recorded.promptRows("cond", image)
    // Four tokens stand for one row of an image.
    let tokens = slots[..<rows].reduce(0) { $0 + ($1 ? 4 : 1) }
    let expected = try DenoisingCase.slice(recorded.reference.floats(name), image, of: recorded.imageCount())
    let error = relativeError(output.rows(0..<tokens).floats(), Array(expected.prefix(tokens * 64)))
    #expect(error <= 1e-4, "\(name), \(tokens) tokens of the prompt of image \(image): relative error \(error)")
    return []
  }

  /// A recorded tensor and what it must be, without the rows that the network leaves out.
  private func rows(
    of tensor: Tensor, _ name: String, _ recorded: DenoisingCase, _ image: Int
  ) throws -> (actual: [Float], expected: [Float]) {
    let actual = tensor.floats(), all = try recorded.reference.floats(name), count = try recorded.imageCount()
    let isForAll = all.count < actual.count * count
    let expected = isForAll ? all : DenoisingCase.slice(all, image, of: count)
    // The reference projects the text encoder's rows for images, too, and does not use them.
    guard name.hasSuffix(".txt_norm") || name.hasSuffix(".txt_in") else { return (actual, expected) }
    let isSlot = try recorded.slots("cond", image), width = expected.count / isSlot.count
    return (actual, expected.enumerated().filter { !isSlot[$0.offset / width] }.map(\.element))
  }

  private static func renamed(_ probe: Probe) -> Probe {
    Probe { name, tensor in probe.record(name.replacing("dit.step0.cond.kv.", with: "kv.cond."), tensor) }
  }

  /// bf16 must not be further from fp32 than 1.5 times what torch's own bf16 run is.
  @Test func bf16StaysWithinTheYardstick() throws {
    let recorded = try DenoisingCase("t2i_64x64"), recording = Recording()
    _ = try recorded.denoiser(.bf16)(try recorded.input(), probe: recording.probe)
    for name in ["dit.step0.cond.out", "latents.step3"] {
      let exact = try recorded.reference.floats(name)
      let theirs = relativeError(try recorded.reference.floats("bf16.\(name)"), exact)
      let ours = relativeError(try #require(recording.tensor(name)).floats(), exact)
      #expect(ours <= 1.5 * theirs, "\(name): error \(ours), torch bf16 \(theirs)")
    }
  }

  /// The same yardstick for calls that have none of their own.
  @Test(arguments: ["edit", "edit2_cfg", "edit_rgba", "edit_ten", "t2i_96x160_cfg"])
  func bf16StaysNearFP32(_ name: String) throws {
    let yardstick = try DenoisingCase("t2i_64x64").reference, recorded = try DenoisingCase(name)
    let output = "dit.step0.cond.out", recording = Recording()
    _ = try recorded.denoiser(.bf16)(try recorded.input(), probe: recording.probe)
    let theirs = relativeError(try yardstick.floats("bf16.\(output)"), try yardstick.floats(output))
    let ours = relativeError(try #require(recording.tensor(output)).floats(), try recorded.reference.floats(output))
    #expect(ours <= 1.5 * theirs, "error \(ours), torch bf16 \(theirs) for text-to-image")
  }

  @Test(arguments: ["t2i_96x160_cfg", "t2i_turbo", "edit2_cfg"], Precision.allCases)
  func aResumeEndsWithTheSameBytes(_ name: String, _ precision: Precision) throws {
    let recorded = try DenoisingCase(name)
    var input = try recorded.input(), checkpoints: [(steps: Int, latents: Tensor)] = []
    let whole = try recorded.denoiser(precision, threads: 1)(input) {
      checkpoints.append(($0.completedSteps, $0.latents.copied()))
    }
    #expect(checkpoints.map(\.steps) == Array(1...input.steps))
    // In another process, with other threads, with and without the cache.
    for usesPrefixCache in [true, false] {
      let denoise = try recorded.denoiser(precision, threads: 3, usesPrefixCache: usesPrefixCache)
      for checkpoint in checkpoints {
        (input.firstStep, input.latents) = checkpoint
        #expect(try denoise(input).floats() == whole.floats(), "resumed after step \(checkpoint.steps)")
      }
    }
  }

  /// The noise that a seed gives.
  @Test(arguments: ["t2i_64x64", "t2i_96x160_cfg", "t2i_turbo", "edit2_cfg"]) func beginsAsTheReference(
    _ name: String
  ) throws {
    let recorded = try DenoisingCase(name)
    let noise = InitialNoise.torchCPU(
      seed: recorded.seed, grid: try recorded.target(), LatentGeometry(channels: 64, downscale: 16, patch: 1))
    #expect(relativeError(noise.floats(), try recorded.reference.floats("prepare_latents.0")) < 1e-6)
  }

  /// Guidance is off unless there is a negative prompt, and does not keep the norm.
  @Test func guidanceIsPlain() throws {
    let recorded = try DenoisingCase("t2i_96x160_cfg"), denoise = try recorded.denoiser(.fp32)
    var input = try recorded.input()
    input.trueCFGScale = 1
    let unguided = try denoise(input).floats()
    input.prompts.removeLast()
    #expect(relativeError(try denoise(input).floats(), unguided) < 1e-5)
    #expect(relativeError(unguided, try recorded.reference.floats("latents.step2")) > 1e-2)
  }
}

/// What does not depend on what else is in a pass, and what is kept between the steps.
@Suite struct PrefixCacheTests {
  @Test(arguments: Precision.allCases, [true, false])
  func callsDoNotDependOnOneAnother(_ precision: Precision, _ usesPrefixCache: Bool) throws {
    let inputs = try ["edit2_cfg", "t2i_96x160_cfg", "edit"].map { try DenoisingCase($0).input() }
    let transformer = try DenoisingCase("edit").transformer(precision, usesPrefixCache: usesPrefixCache)
    let calls = try inputs.flatMap { input in
      try transformer.prepare(input, times: [1, 0.6, 0.2]).enumerated().map { branch, prepared in
        VelocityCall(branch: prepared, latents: input.latents, step: (input.prompts.count + branch) % 3)
      }
    }
    let alone = calls.map { transformer.velocity($0, probe: .none).floats() }
    #expect(zip(alone, calls).allSatisfy { $0.count == $1.latents.elementCount })
    #expect(transformer.velocities(calls).map { $0.floats() } == alone)
    #expect(transformer.velocities(calls.reversed()).map { $0.floats() } == alone.reversed())
    for (call, velocity) in zip(calls, alone) {
      #expect(transformer.velocity(call, probe: Recording().probe).floats() == velocity)
    }
    #expect(Set(alone).count == alone.count)
  }

  /// The cache of a branch does not depend on the other branches, the step or the size of the image that is made.
  @Test(arguments: Precision.allCases) func aCacheIsOfItsPrefix(_ precision: Precision) throws {
    let transformer = try DenoisingCase("edit2_cfg").transformer(precision, threads: 3)
    let input = try DenoisingCase("edit2_cfg").input()
    var single = input
    single.prompts.removeFirst()
    single.grid = TokenGrid(height: 2, width: 4)
    single.latents = input.latents.rows(0..<8)
    let caches = try transformer.prepare(input, times: [1, 0.5]).compactMap(\.cache)
    let other = try #require(try transformer.prepare(single, times: [0.25])[0].cache)
    #expect(caches.count == 2)
    for block in 0..<transformer.configuration.layerCount {
      #expect(other.keys(block: block).floats() == caches[1].keys(block: block).floats())
      #expect(other.values(block: block).floats() == caches[1].values(block: block).floats())
      #expect(other.keys(block: block).dtype == (precision == .fp32 ? .fp32 : .bf16))
    }
  }

  private static func address(_ cache: PrefixCache) -> UnsafeRawPointer? {
    cache.keys(block: 1).withBytes { bytes in bytes.withUnsafeBytes { $0.baseAddress } }
  }

  /// Keys and values are kept for later images of the same prompt and references, and of no others.
  @Test func cachesAreUsedAgain() throws {
    let recorded = try DenoisingCase("edit2_cfg"), input = try recorded.input()
    let fresh = try recorded.transformer(.bf16), byteCount = fresh.prefixCacheBytes(input)
    let keeping = try recorded.transformer(.bf16, prefixCacheKeptBytesMax: byteCount)
    #expect(keeping.keptBytes == 0)
    let first = try keeping.prepare(input, times: [1, 0.5]).compactMap(\.cache)
    #expect(keeping.keptBytes == byteCount)
    // Of another size and schedule.
    var other = input
    other.grid = TokenGrid(height: 2, width: 4)
    other.latents = input.latents.rows(0..<8)
    for (branch, kept) in zip(try keeping.prepare(other, times: [0.25]), first) {
      let expected = try fresh.prepare(other, times: [0.25])
      #expect(branch.cache.map { Self.address($0) } == Self.address(kept))
      let call = VelocityCall(branch: branch, latents: other.latents, step: 0)
      let alone = expected.map {
        fresh.velocity(VelocityCall(branch: $0, latents: other.latents, step: 0), probe: .none).floats()
      }
      #expect(alone.contains(keeping.velocity(call, probe: .none).floats()))
    }
    // One changed element, another order of the references, another place: nothing is shared.
    var changed = input
    var values = changed.references[0].latents.floats()
    values[0] += 1
    changed.references[0].latents = Tensor(values, shape: changed.references[0].latents.shape)
    let caches = try keeping.prepare(changed, times: [1]).compactMap(\.cache)
    #expect(caches[0].keys(block: 1).floats() != first[0].keys(block: 1).floats())
    let expected = try fresh.prepare(changed, times: [1])[0].cache?.keys(block: 1).floats()
    #expect(caches[0].keys(block: 1).floats() == expected)
    #expect(keeping.keptBytes <= byteCount)
  }

  @Test func bytesAreKnownBefore() throws {
    let recorded = try DenoisingCase("edit2_cfg"), input = try recorded.input()
    for precision in [Precision.fp32, .bf16, .q4] {
      let transformer = try recorded.transformer(precision)
      let found = try transformer.prepare(input, times: [1]).compactMap(\.cache).reduce(0) { $0 + $1.byteCount }
      // 116 and 101 tokens, 3 layers of keys and values of 80.
      #expect(found == (116 + 101) * 2 * 3 * 80 * (precision == .fp32 ? 4 : 2))
      #expect(transformer.prefixCacheBytes(input) == found)
      let limited = try recorded.transformer(precision, prefixCacheBytesMax: found)
      #expect(try limited.prepare(input, times: [1]).count == 2)
      let tooLow = try recorded.transformer(precision, prefixCacheBytesMax: found - 1)
      let error = #expect(throws: PipelineError.self) { try tooLow.prepare(input, times: [1]) }
      #expect("\(try #require(error))".contains("references and prompt need 0 MiB for keys and values of 116 tokens"))
    }
    let without = try recorded.transformer(.bf16, usesPrefixCache: false, prefixCacheBytesMax: 0)
    #expect(without.prefixCacheBytes(input) == 0)
    #expect(without.referenceTokensMax == 1 << 20)
    #expect(try recorded.transformer(.bf16, prefixCacheBytesMax: 100 * 960 + 959).referenceTokensMax == 100)
    #expect(try without.prepare(input, times: [1]).allSatisfy { $0.cache == nil })
    // A reference of 1024² pixels.
    #expect(SingleStreamConfiguration.published.prefixCacheBytes(tokens: 4096, .bf16) == 2 << 30)
  }

  @Test func tokensOfAPass() throws {
    let recorded = try DenoisingCase("edit2_cfg"), input = try recorded.input()
    for (usesPrefixCache, expected) in [(true, [24, 24]), (false, [140, 125])] {
      let transformer = try recorded.transformer(.bf16, usesPrefixCache: usesPrefixCache)
      let counts = try transformer.prepare(input, times: [1]).map {
        transformer.tokenCount(VelocityCall(branch: $0, latents: input.latents, step: 0))
      }
      #expect(counts == expected)
    }
  }

  /// Which reference is which is known from its place.
  @Test func referencesHaveAnOrder() throws {
    let recorded = try DenoisingCase("edit2_cfg"), denoise = try recorded.denoiser(.fp32)
    var input = try recorded.input()
    let ordered = try denoise(input).floats()
    input.references.reverse()
    #expect(relativeError(try denoise(input).floats(), ordered) > 1e-3)
  }
}
