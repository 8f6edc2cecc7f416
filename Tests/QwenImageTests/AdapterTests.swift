import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import Kernels
import ModelRegistry
import QwenImage
import TensorCore
import Testing
import Weights

/// Adapters beside the weights of the denoising network, against diffusers and PEFT.
@Suite struct AdapterTests {
  private static let model: ModelDirectory? = try? ModelDirectory(Golden.tinyCheckpoint)

  private func loop(_ precision: Precision, matrixLibrary: MatrixLibrary = .own) throws -> AdaptedLoop {
    let model = try #require(Self.model)
    let compute = Compute(precision: precision, pool: ThreadPool(threads: 2), matrixLibrary: matrixLibrary)
    return AdaptedLoop(
      try MMDiT(model.weights(of: .transformer), configuration: model.qwenImage.transformer, compute: compute),
      of: model)
  }

  /// A recorded case: adapters with scales.
  struct Case: CustomTestStringConvertible, Sendable {
    let name: String
    let adapters: [(file: String, scale: Double)]

    var testDescription: String { name }

    func set() throws -> AdapterSet {
      try AdapterSet(adapters.map { (adapter: try AdapterFiles.adapter($0.file), scale: $0.scale) })
    }
  }

  static let cases = [
    Case(name: "style", adapters: [("style.safetensors", 0.8)]),
    Case(name: "kohya", adapters: [("kohya.safetensors", 1)]),
    Case(
      name: "set",
      adapters: [("style.safetensors", 0.8), ("kohya.safetensors", 1.25), ("comfy.safetensors", -0.5)]),
    Case(name: "loha", adapters: [("loha", 0.7)]), Case(name: "lokr", adapters: [("lokr", -0.6)]),
  ]

  @Test(arguments: cases, [MatrixLibrary.own, .openBLAS])
  func agreesWithTheReferenceInFP32(_ testCase: Case, _ library: MatrixLibrary) throws {
    let reference = try ReferenceTensors(AdapterFiles.folder.appending(path: "reference.safetensors"))
    let plain = try loop(.fp32, matrixLibrary: library), adapted = try plain.adapted(by: testCase.set())
    let found = try adapted()
    for (name, values) in [("step0", found.step0), ("latents", found.latents)] {
      let error = relativeError(values, try reference.floats("\(testCase.name).\(name)"))
      #expect(error <= 1e-4, "\(testCase) \(name): \(error)")
    }
    #expect(relativeError(try plain().step0, found.step0) > 0.05, "the adapters hardly act")
    if library == .own { #expect(try adapted.latents() == found.latents) }
  }

  /// The error that a mode makes with adapters is about the one that it makes without.
  @Test(arguments: cases, [Precision.bf16, .int8, .q4])
  func otherPrecisionsStayNearFP32(_ testCase: Case, _ precision: Precision) throws {
    let (exact, coarse) = (try loop(.fp32), try loop(precision))
    let usual = relativeError(try coarse().step0, try exact().step0)
    let set = try testCase.set()
    let error = relativeError(try coarse.adapted(by: set)().step0, try exact.adapted(by: set)().step0)
    #expect(error <= 2.5 * usual, "\(testCase) at \(precision): \(error), without adapters \(usual)")
  }

  @Test func withoutAdaptersTheNetworkIsAsItWas() throws {
    let plain = try loop(.bf16), before = try plain.latents()
    let adapted = try plain.adapted(by: Self.cases[2].set())
    #expect(try adapted.latents() != before)
    #expect(try adapted.adapted(by: .none).latents() == before)
    #expect(try adapted.adapted(by: Self.cases[0].set()).latents() == plain.adapted(by: Self.cases[0].set()).latents())
  }

  /// Every layer that the inventory lists is adapted: a change of it alone changes something that is computed.
  @Test func everyLayerIsReached() throws {
    let model = try #require(Self.model), directory = try TemporaryDirectory(), plain = try loop(.fp32)
    let layers = ParameterInventory(transformer: model.qwenImage.transformer).parameters.filter(\.isLinear)
    #expect(layers.count == 6 + 2 * 14)
    let before = try plain().recording.all.map { $0.tensor.floats() }
    for (index, layer) in layers.enumerated() {
      let name = layer.name.dropLast(".weight".count)
      let adapter = try AdapterFiles.adapter(
        [
          "\(name).lora_A.weight": AdapterFiles.random([1, layer.shape[1]], seed: UInt64(index)),
          "\(name).lora_B.weight": AdapterFiles.random([layer.shape[0], 1], seed: UInt64(index + 100)),
        ], in: directory.url)
      let after = try plain.adapted(by: AdapterFiles.set(adapter))().recording.all.map { $0.tensor.floats() }
      #expect(before.count == after.count && before != after, "\(name)")
    }
  }

  // MARK: - Names

  /// How programs name a part of what is added to a layer.
  struct Convention: CustomTestStringConvertible, Sendable {
    let testDescription: String
    let name: @Sendable (_ layer: String) -> String
    var down = "lora_A.weight", up = "lora_B.weight"
  }

  static let conventions = [
    Convention(testDescription: "diffusers", name: { "transformer.\($0)" }),
    Convention(testDescription: "diffusers of old", name: { $0 }, down: "lora.down.weight", up: "lora.up.weight"),
    Convention(testDescription: "PEFT", name: { "base_model.model.\($0)" }),
    Convention(
      testDescription: "DiffSynth", name: { $0 }, down: "lora_A.default.weight", up: "lora_B.default.weight"),
    Convention(
      testDescription: "ComfyUI", name: { "diffusion_model.\($0)" }, down: "lora_down.weight", up: "lora_up.weight"),
    Convention(testDescription: "ComfyUI with PEFT's parts", name: { "diffusion_model.\($0)" }),
    Convention(testDescription: "a whole model's", name: { "model.diffusion_model.\($0)" }),
    Convention(
      testDescription: "kohya", name: { "lora_unet_\($0.replacing(".", with: "_"))" }, down: "lora_down.weight",
      up: "lora_up.weight"),
    Convention(
      testDescription: "LyCORIS", name: { "lycoris_\($0.replacing(".", with: "_"))" }, down: "lora_down.weight",
      up: "lora_up.weight"),
  ]

  /// The α that the recorded adapter's configuration gives a layer.
  private static func alpha(of layer: String) -> Float { layer == "transformer_blocks.1.attn.to_v" ? 1 : 6 }

  @Test(arguments: conventions) func namesDoNotMatter(_ convention: Convention) throws {
    let directory = try TemporaryDirectory(), plain = try loop(.fp32)
    let stored = try AdapterFiles.tensors("style.safetensors")
    var tensors: [String: Tensor] = [:]
    for (name, tensor) in stored {
      let isDown = name.hasSuffix(".lora_A.weight"), layer = String(name.dropLast(".lora_A.weight".count))
      tensors["\(convention.name(layer)).\(isDown ? convention.down : convention.up)"] = tensor
      tensors["\(convention.name(layer)).alpha"] = Tensor([Self.alpha(of: layer)], shape: [])
    }
    #expect(tensors.count == stored.count / 2 * 3)
    let adapter = try AdapterFiles.adapter(tensors, in: directory.url)
    let expected = try plain.adapted(by: AdapterFiles.set(AdapterFiles.adapter("style.safetensors"), scale: 0.8))
    #expect(try plain.adapted(by: AdapterFiles.set(adapter, scale: 0.8)).latents() == expected.latents())
  }

  /// LoHa and LoKr as LyCORIS writes them, with α beside the tensors instead of PEFT's configuration.
  @Test(arguments: ["loha", "lokr"]) func lycorisNames(_ kind: String) throws {
    let directory = try TemporaryDirectory(), plain = try loop(.fp32)
    var tensors: [String: Tensor] = [:]
    for (name, tensor) in try AdapterFiles.tensors("\(kind)/adapter_model.safetensors") {
      let parts = name.dropFirst("base_model.model.".count).split(separator: "."), layer = parts.dropLast()
      // Whole factors have no rank that α could be divided by: LyCORIS ignores it, PEFT does not.
      if kind == "lokr", layer.last == "to_k" { continue }
      let flat = "lycoris_\(layer.joined(separator: "_"))"
      tensors["\(flat).\(parts.last ?? "")"] = tensor
      tensors["\(flat).alpha"] = Tensor([kind == "loha" ? 4 : 3], shape: [1])
    }
    let found = try plain.adapted(by: AdapterFiles.set(AdapterFiles.adapter(tensors, in: directory.url)))
    var recorded = try AdapterFiles.tensors("\(kind)/adapter_model.safetensors")
    if kind == "lokr" { recorded = recorded.filter { !$0.key.contains(".to_k.") } }
    let configuration = AdapterFiles.folder.appending(path: "\(kind)/adapter_config.json")
    try FileManager.default.copyItem(at: configuration, to: directory.url.appending(path: "adapter_config.json"))
    let expected = try plain.adapted(
      by: AdapterFiles.set(AdapterFiles.adapter(recorded, in: directory.url, as: "adapter_model.safetensors")))
    #expect(try found.latents() == expected.latents())
  }

  // MARK: - Fingerprints

  @Test func fingerprintsTellContentsApart() throws {
    let directory = try TemporaryDirectory(), style = try AdapterFiles.adapter("style.safetensors")
    let copy = directory.url.appending(path: "b.safetensors")
    try FileManager.default.copyItem(at: AdapterFiles.folder.appending(path: "style.safetensors"), to: copy)
    let same = try Adapter(copy), other = try AdapterFiles.adapter("kohya.safetensors")
    #expect(same.digest == style.digest && same == style && same.name == "b" && style.digest.count == 64)
    #expect(other.digest != style.digest)
    var tensors = try AdapterFiles.tensors("style.safetensors")
    #expect(try AdapterFiles.adapter(tensors, in: directory.url).digest != style.digest, "without the configuration")
    let name = try #require(tensors.keys.min()), changed = try #require(tensors[name])
    let before = try AdapterFiles.adapter(tensors, in: directory.url).digest
    tensors[name] = Tensor(changed.floats().map { $0 + 0.5 }, shape: changed.shape)
    #expect(try AdapterFiles.adapter(tensors, in: directory.url).digest != before)
    func fingerprint(_ members: [(adapter: Adapter, scale: Double)]) throws -> String {
      try AdapterSet(members).fingerprint
    }
    let sets = try [
      fingerprint([(style, 1)]), fingerprint([(style, 0.5)]), fingerprint([(style, 1), (other, 1)]),
      fingerprint([(other, 1), (style, 1)]), fingerprint([]),
    ]
    #expect(Set(sets).count == sets.count && AdapterSet.none.fingerprint.isEmpty)
    #expect(try fingerprint([(same, 1)]) == sets[0])
    #expect(try AdapterFiles.adapter("loha").name == "loha")
  }

  @Test func setsAreBounded() throws {
    let style = try AdapterFiles.adapter("style.safetensors")
    for scale in [Double.nan, .infinity, -100.5] {
      #expect(throws: PipelineError.self) { try AdapterSet([(adapter: style, scale: scale)]) }
    }
    #expect(throws: PipelineError.self) { try AdapterSet(Array(repeating: (adapter: style, scale: 1), count: 17)) }
    #expect(try AdapterSet(Array(repeating: (adapter: style, scale: -100), count: 16)).members.count == 16)
  }
}
