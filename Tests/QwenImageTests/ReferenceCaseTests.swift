import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import ImageCodec
import Kernels
import ModelRegistry
import TensorCore
import Testing
import Weights

/// One case of the reference recordings: the pipeline call and its results.
private struct ReferenceCase: CustomTestStringConvertible {
  let name: String
  var isLightning = false

  var testDescription: String { name }

  func requests() throws -> [ImageRequest] {
    struct Recorded: Decodable {
      struct Call: Decodable {
        let prompt: OneOrMany
        let negativePrompt: OneOrMany?
        let trueCfgScale: Double
        let height: Int
        let width: Int
        let numInferenceSteps: Int
      }
      let call: Call
      let seed: UInt64
    }
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    let recorded = try decoder.decode(Recorded.self, from: Data(contentsOf: Golden.reference("\(name).json")))
    let call = recorded.call
    return call.prompt.values.enumerated().map { index, prompt in
      ImageRequest(
        prompt: prompt, negativePrompt: call.negativePrompt?.values[index], trueCFGScale: call.trueCfgScale,
        steps: call.numInferenceSteps, size: ImageSize(widthPx: call.width, heightPx: call.height), seed: recorded.seed)
    }
  }
}

/// A JSON string or array of strings.
private struct OneOrMany: Decodable {
  let values: [String]

  init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    values = try (try? container.decode([String].self)) ?? [container.decode(String.self)]
  }
}

private let cases = [
  ReferenceCase(name: "t2i_64x64"), ReferenceCase(name: "t2i_80x112"), ReferenceCase(name: "t2i_nocfg"),
  ReferenceCase(name: "t2i_lightning", isLightning: true),
]

private func loadPipeline(_ precision: PrecisionChoice, lightning: Bool = false) throws -> LocalModel {
  let model = try ModelDirectory(Golden.tinyCheckpoint)
  return try LocalModel(
    model, loading: WeightLoading(precision: precision), pool: ThreadPool(threads: 2),
    scheduler: lightning ? model.scheduler.lightning : nil)
}

/// Tensors of the reference that say nothing about arithmetic here: masks of unpadded text, and the yard-stick run.
private func isNotRecorded(_ name: String) -> Bool {
  name.hasPrefix("bf16.") || name.hasSuffix("attention_mask") || name.hasSuffix("encoder_hidden_states_mask")
    || name.hasPrefix("prompt_embeds_mask")
}

@Suite struct ReferenceCaseTests {
  @Test(arguments: cases) private func everyIntermediateAgreesInFP32(_ reference: ReferenceCase) throws {
    let recording = Recording()
    let request = try #require(try reference.requests().first)
    let image = try loadPipeline(.fp32, lightning: reference.isLightning)(request, probe: recording.probe)
    try expectAgreement(
      recording, with: ReferenceTensors(Golden.reference("\(reference.name).safetensors")), tolerance: 1e-4,
      notRecorded: isNotRecorded)
    try expectSameImage(image, Golden.reference("\(reference.name).png"))
  }

  /// The reference pads the shorter prompt and masks the padding; here each image of a batch is computed by itself.
  @Test func batchWithUnequalPromptsAgreesInFP32() throws {
    let reference = try ReferenceTensors(Golden.reference("t2i_batch2.safetensors"))
    let requests = try ReferenceCase(name: "t2i_batch2").requests()
    let pipeline = try loadPipeline(.fp32)
    var compared: Set<String> = []
    for (index, request) in requests.enumerated() {
      let recording = Recording()
      let noise = try slice(reference, "prepare_latents.0", index, of: requests.count, count: nil)
      let image = try pipeline(
        request, latents: Tensor(noise, shape: [noise.count / 64, 64]), probe: recording.probe)
      for (name, tensor) in recording.all where reference.names.contains(name) && !name.hasSuffix("position_ids") {
        let perSample = !(name == "sigmas" || name == "timesteps" || name.contains(".rope."))
        let expected = try slice(reference, name, index, of: perSample ? requests.count : 1, count: tensor.elementCount)
        let error = relativeError(tensor.floats(), expected)
        try #require(error <= 1e-4, "first diverging tensor: \(name) of image \(index), relative error \(error)")
        compared.insert(name)
      }
      try expectSameImage(image, Golden.reference("t2i_batch2.\(index).png"))
    }
    let elsewhere: Set = ["draw.0", "prepare_latents.0", "te.cond.position_ids", "te.uncond.position_ids"]
    let missing = reference.names.subtracting(compared).filter { !isNotRecorded($0) && !elsewhere.contains($0) }
      .sorted()
    #expect(missing.isEmpty, "reference tensors that nothing was compared with: \(missing)")
  }

  /// Padding is at the end of each sample, so a sample's valid part is the front of its slice.
  private func slice(_ reference: ReferenceTensors, _ name: String, _ index: Int, of samples: Int, count: Int?) throws
    -> [Float]
  {
    let all = try reference.floats(name)
    let stride = all.count / samples
    let start = samples == 1 ? 0 : index * stride
    return Array(all[start..<start + min(count ?? stride, stride)])
  }

  /// bf16 must not be further from fp32 than 1.5 times what torch's own bf16 run is.
  @Test(arguments: ["t2i_64x64", "t2i_80x112"]) func bf16StaysWithinTheYardstick(name: String) throws {
    let reference = try ReferenceTensors(Golden.reference("\(name).safetensors"))
    let recording = Recording()
    let request = try #require(try ReferenceCase(name: name).requests().first)
    _ = try loadPipeline(.bf16)(request, probe: recording.probe)
    let yardsticks = reference.names.filter { $0.hasPrefix("bf16.") }.sorted()
    #expect(yardsticks.count == 4)
    for yardstick in yardsticks {
      let tensor = String(yardstick.dropFirst("bf16.".count))
      let exact = try reference.floats(tensor)
      let theirs = relativeError(try reference.floats(yardstick), exact)
      let ours = relativeError(try #require(recording.tensor(tensor)).floats(), exact)
      #expect(ours <= 1.5 * theirs, "\(tensor): error \(ours), torch bf16 \(theirs)")
    }
  }
}
