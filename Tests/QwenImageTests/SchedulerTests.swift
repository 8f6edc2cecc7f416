import Diffusion
import Foundation
import GoldenSupport
import StrictJSON
import TensorCore
import Testing
import Weights

@Suite struct FlowMatchScheduleTests {
  /// Every recorded table, for the published, Lightning and Layered configurations.
  @Test func agreesWithTheReferenceToTheBit() throws {
    let document = try JSON(Array(try Data(contentsOf: golden.appending(path: "tiny/reference/scheduler.json"))))
    let cases = try #require(document["cases"]?.elements)
    #expect(cases.count == 108)
    let directory = try TemporaryDirectory()
    guard case .object(let recorded)? = document["configs"] else { throw CocoaError(.fileReadCorruptFile) }
    var configurations: [String: SchedulerConfiguration] = [:]
    for name in recorded.keys {
      let object = try JSONSerialization.jsonObject(
        with: Data(contentsOf: golden.appending(path: "tiny/reference/scheduler.json")))
      let config = try #require(((object as? [String: Any])?["configs"] as? [String: Any])?[name])
      let text = String(decoding: try JSONSerialization.data(withJSONObject: config), as: UTF8.self)
      configurations[name] = try SchedulerConfiguration(contentsOf: directory.write(text, as: "\(name).json"))
    }
    #expect(configurations["qwen-image"] == .published)
    #expect(configurations["lightning"] == SchedulerConfiguration.published.lightning)
    for vector in cases {
      let name = try #require(vector["config"]?.text)
      let configuration = try #require(configurations[name])
      let steps = try #require(vector["steps"]?.integer)
      let tokens = try #require(vector["image_seq_len"]?.integer)
      let mu = try #require(vector["mu"]?.double)
      let schedule = try FlowMatchSchedule(configuration: configuration, steps: steps, mu: mu)
      if name != "layered" {  // which takes its shift from another formula
        #expect(abs(FlowMatchSchedule.shift(configuration: configuration, imageTokens: tokens) - mu) < 1e-15)
        #expect(try FlowMatchSchedule(configuration: configuration, steps: steps, imageTokens: tokens) == schedule)
      }
      let sigmas = try #require(vector["sigmas"]?.elements).map { $0.double.map { Float($0) } }
      let timesteps = try #require(vector["timesteps"]?.elements).map { $0.double.map { Float($0) } }
      guard sigmas[0] != nil else {
        #expect(steps == 1 && configuration.shiftTerminal != nil)
        #expect(schedule.sigmas == [1, 0] && schedule.timesteps == [1000])
        continue
      }
      #expect(schedule.sigmas == sigmas, "\(name), \(steps) steps, \(tokens) tokens")
      #expect(schedule.timesteps == timesteps, "\(name), \(steps) steps, \(tokens) tokens")
    }
  }

  @Test func constantShift() throws {
    var configuration = SchedulerConfiguration.published
    configuration.useDynamicShifting = false
    configuration.shiftTerminal = nil
    configuration.shift = 3
    let schedule = try FlowMatchSchedule(configuration: configuration, steps: 4, imageTokens: 1)
    #expect(zip(schedule.sigmas, [1, 0.9, 0.75, 0.5, 0]).allSatisfy { abs($0 - $1) < 1e-6 })
  }

  @Test func refusesWhatHasNoSchedule() {
    for steps in [Int.min, -1, 0, 1001, Int.max] {
      #expect(throws: ScheduleError.stepsOutOfRange(steps: steps, limit: 1...1000)) {
        try FlowMatchSchedule(configuration: .published, steps: steps, imageTokens: 16)
      }
    }
    #expect(throws: ScheduleError.noImageTokens(imageTokens: 0)) {
      try FlowMatchSchedule(configuration: .published, steps: 4, imageTokens: 0)
    }
    var linear = SchedulerConfiguration.published
    linear.timeShiftType = .linear
    for mu in [0, -1, .infinity, .nan] as [Double] {
      #expect(throws: ScheduleError.self) { try FlowMatchSchedule(configuration: linear, steps: 4, mu: mu) }
    }
    #expect(throws: ScheduleError.self) { try FlowMatchSchedule(configuration: .published, steps: 4, mu: 1000) }
  }

  @Test func levelsFallForAllSizes() throws {
    for steps in [1, 2, 3, 28, 50, 1000] {
      for tokens in [1, 16, 4096, 6889, 100_000] {
        let sigmas = try FlowMatchSchedule(configuration: .published, steps: steps, imageTokens: tokens).sigmas
        #expect(sigmas.count == steps + 1 && sigmas[0] == 1 && sigmas[steps] == 0)
        #expect(zip(sigmas, sigmas.dropFirst()).allSatisfy { $0 > $1 }, "\(steps) steps, \(tokens) tokens")
        if steps > 1 { #expect(abs(sigmas[steps - 1] - 0.02) < 1e-6) }
      }
    }
  }

  /// The recorded predictions and latents of whole runs: guidance and Euler steps, without the model.
  @Test(arguments: ["t2i_64x64", "t2i_80x112"]) func guidanceAndStepsAgreeWithARecordedRun(name: String) throws {
    let file = try SafetensorsFile(golden.appending(path: "tiny/reference/\(name).safetensors"))
    let call = try JSON(Array(try Data(contentsOf: golden.appending(path: "tiny/reference/\(name).json"))))
    let scale = Float(try #require(call["call"]?["true_cfg_scale"]?.double))
    let sigmas = try file.tensor("sigmas").floats()
    var latents = try file.tensor("prepare_latents.0")
    for step in 0..<(sigmas.count - 1) {
      let velocity = trueCFG(
        conditional: try file.tensor("dit.step\(step).cond.out"),
        unconditional: try file.tensor("dit.step\(step).uncond.out"), scale: scale
      )
      latents = FlowMatchSchedule.step(
        latents: latents.reshaped(velocity.shape), velocity: velocity, from: sigmas[step], to: sigmas[step + 1])
      let expected = try file.tensor("latents.step\(step)")
      let error = relativeError(latents.floats(), expected.floats())
      #expect(error < 1e-6, "step \(step): \(error)")
      latents = expected
    }
  }

  @Test func guidanceKeepsZeroTokensZero() {
    let conditional = Tensor([0, 0, 3, 4], shape: [2, 2])
    let unconditional = Tensor([0, 0, 0, 0], shape: [2, 2])
    #expect(trueCFG(conditional: conditional, unconditional: unconditional, scale: 4).floats() == [0, 0, 3, 4])
    // 2·cond − uncond = 0 although cond is not.
    #expect(
      trueCFG(conditional: Tensor([1, 1], shape: [1, 2]), unconditional: Tensor([2, 2], shape: [1, 2]), scale: 2)
        .floats() == [0, 0])
  }
}

@Suite struct TorchCPUGeneratorTests {
  @Test func agreesWithTorch() throws {
    let file = try SafetensorsFile(golden.appending(path: "noise.safetensors"))
    var worst: Float = 0
    var exact = 0
    var total = 0
    func compare(_ found: Tensor, _ name: String) throws {
      let expected = try file.tensor(name).floats()
      #expect(found.elementCount == expected.count)
      for (a, b) in zip(found.floats(), expected) {
        worst = max(worst, abs(a - b))
        exact += a == b ? 1 : 0
        total += 1
      }
    }
    for name in file.names where !name.contains("sequence") {
      let parts = name.split(separator: ".")
      var generator = TorchCPUGenerator(seed: try #require(UInt64(parts[0])))
      try compare(generator.normal([try #require(Int(parts[1]))]), name)
    }
    for seed in Set(file.names.map { $0.split(separator: ".")[0] }) where file.names.contains("\(seed).sequence.0") {
      var generator = TorchCPUGenerator(seed: try #require(UInt64(seed)))
      for k in 0..<10 {
        let name = "\(seed).sequence.\(k)"
        try compare(generator.normal(try file.tensor(name).shape), name)
      }
    }
    #expect(worst <= 4.8e-7, "2 units in the last place of the largest numbers, 4 to 8")
    #expect(Double(exact) / Double(total) > 0.8, "\(exact) of \(total) equal to the bit")
  }

  @Test(arguments: ["t2i_64x64", "t2i_80x112"]) func drawsTheNoiseOfARecordedRun(name: String) throws {
    let file = try SafetensorsFile(golden.appending(path: "tiny/reference/\(name).safetensors"))
    let call = try JSON(Array(try Data(contentsOf: golden.appending(path: "tiny/reference/\(name).json"))))
    let expected = try file.tensor("draw.0")
    let seed = try #require(call["seed"]?.integer)
    var generator = TorchCPUGenerator(seed: UInt64(seed))
    #expect(relativeError(generator.normal(expected.shape).floats(), expected.floats()) < 1e-6)
  }

  @Test func isReproducible() {
    var first = TorchCPUGenerator(seed: 9)
    var second = first
    #expect(first.normal([5, 33]).floats() == second.normal([165]).floats())
    var other = TorchCPUGenerator(seed: 10)
    #expect(first.normal([165]).floats() != other.normal([165]).floats())
    #expect(first.normal([0]).floats().isEmpty)
  }
}

@Suite struct PortableMathTests {
  /// The C library is the oracle: 4 units in the last place.
  @Test func agreesWithTheCLibrary() {
    var generator = SeededGenerator(state: 5)
    var worst = 0.0
    for index in 0..<200_000 {
      let u =
        index < 64
        ? Double(sign: .plus, exponent: -index, significand: 1) : Double.random(in: 0x1p-53...1, using: &generator)
      worst = max(worst, abs(PortableMath.log(u) - log(u)) / max(log(u).ulp.magnitude, 0x1p-1074))
      let angle = index <= 64 ? Double(index) * .pi / 32 : Double.random(in: 0...(2 * .pi), using: &generator)
      let (sin, cos) = PortableMath.sinCos(angle)
      // Near a zero the error is absolute: that of the angle's reduction.
      worst = max(worst, abs(sin - Foundation.sin(angle)) / 0x1p-53, abs(cos - Foundation.cos(angle)) / 0x1p-53)
    }
    #expect(worst <= 4, "\(worst)")
    #expect(PortableMath.log(1) == 0)
  }
}
