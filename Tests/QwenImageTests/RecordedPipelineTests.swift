import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import ImageCodec
import Kernels
import StrictJSON
import TensorCore
import Testing
import Weights

/// A recorded call of a pipeline with images as input, from the images to the decoded result.
private struct RecordedPipeline: CustomTestStringConvertible {
  let pipeline: PipelineName
  let loop: RecordedLoop
  /// Names of files in `Tests/Golden/tiny/inputs`.
  var images: [String] = []
  var control: String?
  var hasMask = false

  var testDescription: String { loop.name }

  init(_ name: String, _ pipeline: PipelineName, images: [String] = [], control: String? = nil, hasMask: Bool = false) {
    guard let loop = RecordedLoop.all.first(where: { $0.name == name }) else { preconditionFailure(name) }
    (self.loop, self.pipeline, self.images, self.control, self.hasMask) = (loop, pipeline, images, control, hasMask)
  }

  static let all = [
    RecordedPipeline("img2img", .imageToImage, images: ["odd"]),
    RecordedPipeline("inpaint", .inpaint, images: ["exact"], hasMask: true),
    RecordedPipeline("inpaint_crop", .inpaint, images: ["exact"], hasMask: true),
    RecordedPipeline("edit", .edit, images: ["odd"]), RecordedPipeline("edit_outsize", .edit, images: ["tall"]),
    RecordedPipeline("edit_plus", .editPlus, images: ["odd", "tall"]),
    RecordedPipeline("edit_plus_2511", .editPlus, images: ["odd", "exact"]),
    RecordedPipeline("edit_inpaint", .editInpaint, images: ["exact"], hasMask: true),
    RecordedPipeline("controlnet", .controlNet, control: "exact"),
    RecordedPipeline("controlnet_inpaint", .controlNetInpaint, control: "exact", hasMask: true),
    RecordedPipeline("layered", .layered, images: ["rgba"]),
  ]

  private static func image(_ name: String) throws -> RasterImage {
    try ImageFile.decode([UInt8](Data(contentsOf: golden.appending(path: "tiny/inputs/\(name).png"))))
  }

  /// The checkpoint, with the areas of the recording instead of the published ones.
  func model(in directory: URL, _ precision: PrecisionChoice) throws -> LocalModel {
    let source = golden.appending(path: "tiny/\(loop.checkpoint)")
    for name in try FileManager.default.contentsOfDirectory(atPath: source.path) {
      try FileManager.default.createSymbolicLink(
        at: directory.appending(path: name), withDestinationURL: source.appending(path: name))
    }
    let areas = try loop.call()["areas"]
    let reference = areas?["vae"]?.integer ?? areas?["resolution_area"]?.integer ?? 1 << 20
    let defaults = #"{"reference_area": \#(reference), "condition_area": \#(areas?["condition"]?.integer ?? 1 << 17)}"#
    try Data(defaults.utf8).write(to: directory.appending(path: "generation_defaults.json"))
    return try LocalModel(
      ModelDirectory(directory), for: pipeline, loading: WeightLoading(precision: precision),
      pool: ThreadPool(threads: 2),
      options: PredictorOptions(
        controlNetworks: loop.controlNetwork.map { [golden.appending(path: "tiny/\($0)")] } ?? []))
  }

  func request(_ model: LocalModel, _ inputs: PipelineInputs) throws -> ImageRequest {
    let call = try #require(try loop.call()["call"])
    let asked = call["width"]?.integer.flatMap { width in
      call["height"]?.integer.map { ImageSize(widthPx: width, heightPx: $0) }
    }
    return ImageRequest(
      prompt: try #require(call["prompt"]?.text), negativePrompt: call["negative_prompt"]?.text,
      trueCFGScale: try #require(call["true_cfg_scale"]?.double),
      steps: try #require(call["num_inference_steps"]?.integer),
      size: model.card.size(
        for: pipeline, asked, inputs.images.map { ImageSize(widthPx: $0.width, heightPx: $0.height) }),
      seed: try loop.seed())
  }

  func inputs() throws -> PipelineInputs {
    let call = try loop.call()["call"]
    var inputs = PipelineInputs()
    inputs.images = try images.map(Self.image)
    inputs.mask = hasMask ? try Self.image("mask") : nil
    inputs.strength = call?["strength"]?.double
    inputs.paddingMaskCrop = call?["padding_mask_crop"]?.integer
    inputs.layers = call?["layers"]?.integer ?? inputs.layers
    inputs.controls =
      try control.map { name in
        let scale = call?["controlnet_conditioning_scale"]?.double ?? 1
        return [PipelineInputs.Control(try Self.image(name), scale: scale)]
      } ?? []
    return inputs
  }
}

@Suite struct RecordedPipelineTests {
  @Test(arguments: RecordedPipeline.all)
  private func agreesInFP32FromImagesToImages(_ recorded: RecordedPipeline) throws {
    let directory = try TemporaryDirectory(), recording = Recording(), inputs = try recorded.inputs()
    let model = try recorded.model(in: directory.url, .fp32)
    let results = try model(
      recorded.pipeline, recorded.request(model, inputs), inputs, probe: recording.probe)
    let reference = try recorded.loop.tensors()
    // The last of each name: a pipeline that begins with an image notes noise and start under one name.
    var compared: Set<String> = []
    for (name, tensor) in recording.all.reversed() where reference.names.contains(name) {
      // The reference decodes all layers at once.
      guard !(recorded.pipeline == .layered && name.hasPrefix("vae.decode")), compared.insert(name).inserted else {
        continue
      }
      let error = relativeError(tensor.floats(), try reference.floats(name))
      #expect(error <= 1e-4, "\(name) \(tensor.shape): relative error \(error)")
    }
    if recorded.pipeline == .layered {
      let layers = (0..<inputs.layers).compactMap { recording.tensor("vae.decode\($0).out")?.floats() }
      #expect(relativeError(layers.flatMap { $0 }, try reference.floats("vae.decode0.out")) <= 1e-4)
    }
    let steps = reference.names.filter { $0.hasPrefix("latents.step") }
    #expect(!steps.isEmpty && steps.isSubset(of: compared))
    #expect(compared.contains("prepare_latents.0") && compared.contains("prompt_embeds.cond"))
    #expect(!recorded.hasMask || recorded.control != nil || compared.contains("prepare_mask_latents.0"))
    #expect(results.count == (recorded.pipeline == .layered ? inputs.layers : 1))
    for (index, result) in results.enumerated() {
      let suffix = results.count == 1 ? "" : ".\(index)"
      try expectSameImage(result, Golden.reference("\(recorded.loop.name)\(suffix).png"))
    }
  }

  /// What is kept is kept byte for byte, at every precision, whatever was made in its place.
  @Test(arguments: [PrecisionChoice.bf16, .int8, .q4], ["inpaint", "edit_inpaint"])
  private func theRestOfTheImageIsKept(_ precision: PrecisionChoice, _ name: String) throws {
    let recorded = try #require(RecordedPipeline.all.first { $0.loop.name == name })
    let directory = try TemporaryDirectory()
    var inputs = try recorded.inputs()
    inputs.pastesBack = true
    let model = try recorded.model(in: directory.url, precision)
    let result = try model(recorded.pipeline, recorded.request(model, inputs), inputs)[0]
    let original = inputs.images[0].rgb, mask = try #require(inputs.mask).luma
    #expect(result.width == original.width && result.height == original.height)
    var kept = 0, changed = 0
    for index in mask.pixels.indices {
      let pixel = 3 * index..<3 * index + 3
      if mask.pixels[index] == 0 {
        kept += 1
        #expect(result.pixels[pixel] == original.pixels[pixel], "pixel \(index)")
      } else if result.pixels[pixel] != original.pixels[pixel] {
        changed += 1
      }
    }
    #expect(kept > 1000 && changed > 1000)
  }

  @Test func whatIsMissingIsNamed() throws {
    let directory = try TemporaryDirectory()
    let recorded = try #require(RecordedPipeline.all.first { $0.loop.name == "inpaint" })
    let model = try recorded.model(in: directory.url, .fp32)
    var inputs = try recorded.inputs()
    let request = try recorded.request(model, inputs)
    inputs.strength = 0
    #expect { try model(.inpaint, request, inputs) } throws: { "\($0)".contains("strength") }
    inputs.strength = 1
    inputs.mask = nil
    #expect { try model(.inpaint, request, inputs) } throws: { "\($0)".contains("mask") }
    #expect { try model(.imageToImage, request, PipelineInputs()) } throws: { "\($0)".contains("image") }
    #expect { try model(.controlNet, request, inputs) } throws: { "\($0)".contains("control_image") }
  }
}
