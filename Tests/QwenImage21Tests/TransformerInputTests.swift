import Diffusion
import Foundation
import GoldenSupport
import Kernels
import QwenImage21
import StrictJSON
import TensorCore
import Testing
import Weights

/// What the network refuses, and what it says then.
@Suite struct TransformerInputTests {
  @Test func whatDoesNotFitIsRefused() throws {
    let recorded = try DenoisingCase("edit2_cfg"), transformer = try recorded.transformer(.bf16)
    func refusal(_ change: (inout DenoisingInput) -> Void) throws -> String {
      var input = try recorded.input()
      change(&input)
      let error = #expect(throws: PipelineError.self) { try transformer.prepare(input, times: [1]) }
      return error.map { "\($0)" } ?? ""
    }
    #expect(try refusal { $0.layers = 2 }.hasPrefix("layers is 2"))
    #expect(try refusal { $0.controls = [ControlInput(latents: $0.latents)] }.hasPrefix("controls are 1"))
    #expect(try refusal { $0.grid = TokenGrid(height: 3, width: 8) }.contains("grid of 3×8 tokens; both must be even"))
    #expect(try refusal { $0.latents = $0.latents.rows(0..<23) }.hasPrefix("latents is F32"))
    #expect(
      try refusal { $0.references[1].grid = TokenGrid(height: 8, width: 0) }.hasPrefix("references[1] has a grid"))
    #expect(try refusal { $0.references[0].latents = $0.latents }.hasPrefix("references[0] is F32"))
    #expect(try refusal { $0.references.removeLast() }.contains("places for 2 images, but there are 1 references"))
    #expect(
      try refusal { $0.references = Array(repeating: $0.references[0], count: 17) }.contains("at most 16 are possible"))
    #expect(try refusal { $0.prompts[1].imagePlaces.reverse() }.hasPrefix("negative_prompt_embeds has images behind"))
    #expect(try refusal { $0.prompts[0].imagePlaces[1] = 1000 }.hasPrefix("prompt_embeds has images behind"))
    #expect(
      try refusal { $0.prompts[0].embeds = Tensor.zeros([5, 47]) }.hasPrefix("prompt_embeds is F32"))
  }

  @Test func levelsThatAreGiven() throws {
    let recorded = try DenoisingCase("t2i_turbo"), denoise = try recorded.denoiser(.fp32)
    var input = try recorded.input()
    let own = try denoise.schedule(input)
    #expect(own.sigmas == [1, 0.978453, 0.95418, 0.926626, 0.89508, 0.845148, 0.704534, 0.414568, 0])
    input.steps = 4
    let error = #expect(throws: PipelineError.self) { try denoise.schedule(input) }
    #expect("\(try #require(error))" == "steps cannot be scheduled: 4 steps, but there are 8 noise levels")
    input.steps = 2
    input.sigmas = [1, 0.25]
    #expect(try denoise.schedule(input).sigmas == [1, 0.25, 0])
    for sigmas in [[1, 0], [0.5, 0.75], [1.5, 1], [.nan, 0.5]] {
      input.sigmas = sigmas
      let error = #expect(throws: PipelineError.self) { try denoise.schedule(input) }
      #expect("\(try #require(error))".hasPrefix("sigmas cannot be scheduled: noise level"))
    }
    // The published schedule bends and stretches levels that are given.
    let published = try FlowMatchSchedule(
      configuration: .published, steps: 4, imageTokens: 4096, levels: [1, 0.75, 0.5, 0.25])
    #expect(try published == FlowMatchSchedule(configuration: .published, steps: 4, imageTokens: 4096))
  }

  /// Every recorded table.
  @Test func schedulesAgreeToTheBit() throws {
    let file = golden.appending(path: "tiny-2.1/reference/scheduler.json")
    let document = try JSON(Array(try Data(contentsOf: file)))
    let cases = try #require(document["cases"]?.elements)
    #expect(cases.count == 35)
    for vector in cases {
      let isTurbo = vector["config"]?.text == "qwen-image-2.1-turbo"
      let configuration = try DenoisingCase(isTurbo ? "t2i_turbo" : "t2i_64x64").scheduler()
      let steps = try #require(vector["steps"]?.integer), tokens = try #require(vector["image_seq_len"]?.integer)
      let schedule = try FlowMatchSchedule(configuration: configuration, steps: steps, imageTokens: tokens)
      let mu = FlowMatchSchedule.shift(configuration: configuration, imageTokens: tokens)
      #expect(try abs(mu - #require(vector["mu"]?.double)) < 1e-15)
      let sigmas = try #require(vector["sigmas"]?.elements).map { $0.double.map { Float($0) } }
      // One step with a terminal level has no reference: 0 is divided by 0.
      guard sigmas[0] != nil else {
        #expect(steps == 1 && schedule.sigmas == [1, 0])
        continue
      }
      #expect(schedule.sigmas == sigmas, "\(steps) steps, \(tokens) tokens, turbo: \(isTurbo)")
      let timesteps = try #require(vector["timesteps"]?.elements).map { $0.double.map { Float($0) } }
      #expect(schedule.timesteps == timesteps)
    }
  }
}

/// Configuration and weights of the network.
@Suite struct TransformerCheckpointTests {
  @Test func publishedParameters() {
    let inventory = ParameterInventory(singleStream: .published)
    #expect(inventory.valueCount == 7_115_124_736 && inventory.parameters.count == 297)
  }

  /// Which layers the quantised modes quantise.
  @Test func layersOfTheQuantisedModes() {
    let layers = SingleStreamTransformer.layers
    let names = ParameterInventory(singleStream: .published).parameters.filter(\.isLinear).map(\.name)
    let expected: [Precision: Int] = [.fp32: 0, .bf16: 232, .int8: 7 * 31, .q4: 7 * 31]
    for (mode, count) in expected {
      let precisions = names.map { layers.precision(of: $0, in: mode) }
      #expect(precisions.count { $0 == (mode == .fp32 ? .bf16 : mode) } == count, "\(mode)")
      #expect(Set(precisions).isSubset(of: [mode, .bf16]))
    }
    for name in ["modulation.1", "img_in", "norm_out.linear", "transformer_blocks.0.attn.to_q"] {
      #expect(layers.precision(of: "\(name).weight", in: .q4) == .bf16)
    }
    #expect(layers.rotatesInputs && Qwen3LanguageModel.layers.rotatesInputs && QwenImage21Family.layers.rotatesInputs)
  }

  @Test func everyTensorOfTheCheckpointIsListed() throws {
    let folder = Golden.checkpoint.appending(path: "transformer")
    let weights = try ComponentWeights(directory: folder, baseName: "diffusion_pytorch_model")
    let inventory = ParameterInventory(
      singleStream: try SingleStreamConfiguration(contentsOf: folder.appending(path: "config.json")))
    #expect(weights.names == inventory.parameters.map(\.name).sorted())
    for parameter in inventory.parameters { _ = try weights.tensor(parameter.name, parameter.shape) }
  }

  @Test func configurationsAreChecked() throws {
    let copy = try TransformerCopy()
    #expect(try copy.configuration([:]).innerDim == 80)
    let refused: [(field: String, value: Any, message: String)] = [
      ("_class_name", "QwenImageTransformer2DModel", "is not supported"), ("patch_size", 2, "is 2, must be in 1...1"),
      ("in_channels", 0, "must be in"), ("out_channels", 16, "must be 64 as in_channels is"),
      ("num_layers", "many", "expected an integer"), ("attention_head_dim", 4096, "must be in"),
      ("causal_condition", false, "is false, must be true"), ("axes_dims_rope", [4, 6, 8], "16 in sum"),
      ("axes_dims_rope", [5, 5, 6], "must be even"), ("eps", 0, "must be in"), ("mlp_ratio", 0, "must be in"),
      ("context_in_dim", NSNull(), "is missing"), ("causal_condition", NSNull(), "is missing"),
    ]
    for (field, value, message) in refused {
      let error = #expect(throws: ConfigurationError.self) { try copy.configuration([field: value]) }
      let text = error.map { "\($0)" } ?? ""
      #expect(text.contains("config.json") && text.contains(field) && text.contains(message), "\(text)")
    }
    let published: [String: Any] = [
      "attention_head_dim": 128, "axes_dims_rope": [16, 56, 56], "context_in_dim": 4096, "num_attention_heads": 32,
      "num_layers": 32,
    ]
    #expect(try copy.configuration(published) == .published)
  }

  /// Each tensor in turn is missing, of another shape, and of a type that weights do not have.
  @Test func damagedTensorsAreRefusedByName() throws {
    let copy = try TransformerCopy()
    try copy.load()
    var count = 0
    for shard in try copy.shards() {
      for name in try copy.tensors(of: shard) {
        for damage in TransformerCopy.Damage.allCases {
          try copy.damage(damage, name, in: shard)
          let error = #expect(throws: WeightsError.self, "\(name) \(damage)") { try copy.load() }
          let text = error.map { "\($0)" } ?? ""
          #expect(text.contains("\"\(name)\"") && text.contains("diffusion_pytorch_model"), "\(damage): \(text)")
          count += 1
        }
        try copy.restore(shard)
      }
    }
    #expect(count == 36 * 3)
    try copy.load()
  }
}

/// Checkpoints as other programs write them.
@Suite struct OtherLayoutTests {
  /// One file, with names behind a prefix, and the two layers at the entrance of each MLP as one.
  @Test func prefixedNamesAndFusedLayersAreRead() throws {
    let source = Golden.checkpoint.appending(path: "transformer")
    let published = try SingleStreamTransformer.weights(in: source)
    let folder = FileManager.default.temporaryDirectory.appending(path: "fused-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    func write(halves: [String]) throws {
      var tensors: [(name: String, tensor: Tensor)] = []
      for name in published.names where !name.hasSuffix(".img_mlp.proj.weight") {
        var tensor = try published.tensor(name, try #require(published.entry(name)).shape), stored = name
        if name.hasSuffix(".img_mlp.gate_layer.weight") {
          stored = name.replacing("gate_layer", with: "gate_up")
          tensor = Tensor.stacking(
            try halves.map { try published.tensor(name.replacing("gate_layer", with: $0), tensor.shape) })
        }
        tensors.append(("model.diffusion_model.\(stored)", tensor))
      }
      try SafetensorsWriter.write(tensors, to: folder.appending(path: "diffusion_pytorch_model.safetensors"))
    }
    try write(halves: ["gate_layer", "proj"])
    let fused = try SingleStreamTransformer.weights(in: folder)
    #expect(fused.names == published.names)
    for name in published.names {
      let shape = try #require(published.entry(name)).shape, bytes = 0..<shape.elementCount * 2
      #expect(fused.entry(name)?.shape == shape)
      #expect(try fused.tensor(name, shape).floats() == published.tensor(name, shape).floats())
      #expect(try fused.readBytes(of: name, in: bytes) == published.readBytes(of: name, in: bytes))
    }
    // Three parts are not two.
    try write(halves: ["gate_layer", "proj", "proj"])
    let error = #expect(throws: WeightsError.self) {
      _ = try SingleStreamTransformer(
        SingleStreamTransformer.weights(in: folder),
        configuration: SingleStreamConfiguration(contentsOf: source.appending(path: "config.json")),
        compute: Compute(precision: .bf16, pool: ThreadPool(threads: 1)))
    }
    #expect("\(try #require(error))".contains("model.diffusion_model.transformer_blocks.0.img_mlp.gate_up.weight"))
  }
}

/// A copy of the tiny transformer that may be changed.
private final class TransformerCopy {
  enum Damage: CaseIterable { case missing, misshapen, integers }

  private let folder: URL
  private let original = Golden.checkpoint.appending(path: "transformer")

  init() throws {
    folder = FileManager.default.temporaryDirectory.appending(path: "transformer-\(UUID().uuidString)")
    try FileManager.default.copyItem(at: original, to: folder)
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  func configuration(_ changes: [String: Any]) throws -> SingleStreamConfiguration {
    let data = try Data(contentsOf: original.appending(path: "config.json"))
    var document = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
    document.merge(changes) { $1 }
    let file = folder.appending(path: "config.json")
    try JSONSerialization.data(withJSONObject: document).write(to: file)
    return try SingleStreamConfiguration(contentsOf: file)
  }

  func load() throws {
    _ = try SingleStreamTransformer(
      SingleStreamTransformer.weights(in: folder), configuration: configuration([:]),
      compute: Compute(precision: .bf16, pool: ThreadPool(threads: 1)))
  }

  func shards() throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: original.path).filter { $0.hasSuffix(".safetensors") }.sorted()
  }

  func restore(_ shard: String) throws {
    try Data(contentsOf: original.appending(path: shard)).write(to: folder.appending(path: shard))
  }

  func tensors(of shard: String) throws -> [String] {
    try header(of: shard).members.keys.filter { $0 != "__metadata__" }.sorted()
  }

  /// The members of a file's header, and the bytes behind it.
  private func header(of shard: String) throws -> (members: [String: Any], data: Data) {
    let file = try Data(contentsOf: original.appending(path: shard))
    let length = file.prefix(8).enumerated().reduce(0) { $0 | Int($1.element) << (8 * $1.offset) }
    let members = try JSONSerialization.jsonObject(with: file[8..<8 + length])
    return (try #require(members as? [String: Any]), Data(file[(8 + length)...]))
  }

  func damage(_ damage: Damage, _ name: String, in shard: String) throws {
    var (members, data) = try header(of: shard)
    var entry = try #require(members[name] as? [String: Any]), shape = try #require(entry["shape"] as? [Int])
    switch damage {
    case .missing: members["\(name).other"] = members.removeValue(forKey: name)
    case .misshapen:
      shape = [1] + shape
      entry["shape"] = shape
      members[name] = entry
    case .integers:
      entry["dtype"] = "I16"
      members[name] = entry
    }
    let header = try JSONSerialization.data(withJSONObject: members)
    let length = Data((0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) })
    data = length + header + data
    try data.write(to: folder.appending(path: shard))
  }
}
