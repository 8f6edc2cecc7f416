import ClusterCore
import Foundation
import GatewayAPI
import GatewayPipelines
import TensorCore
import Wire

/// What clients send as images.
extension FuzzTarget {
  /// A model that serves every pipeline with images, and limits that small inputs reach.
  private static let card: ModelCard = ModelCard(
    model: ModelIdentity(id: "m", fingerprint: "f"), pipelineClass: "QwenImagePipeline",
    pipelines: [
      .textToImage, .imageToImage, .inpaint, .edit, .editPlus, .editInpaint, .controlNet, .controlNetInpaint,
    ],
    limits: ModelLimits(
      sizeMultiplePx: 16, minSidePx: 16, maxSidePx: 256, maxPixels: 1 << 14, maxSteps: 50, maxPromptTokens: 100,
      maxPromptBytes: 1000),
    defaults: GenerationDefaults(
      size: ImageSize(widthPx: 64, heightPx: 64), steps: 4, trueCFGScale: 4, negativePrompt: " "),
    recommendedSizes: [], latents: LatentGeometry(channels: 4, downscale: 8, patch: 2),
    references: ReferenceAreas(referencePx: 64 * 64, conditionPx: 32 * 32))

  private static let intake: ImageIntake = {
    var intake = ImageIntake()
    intake.maxFileBytes = 1 << 12
    intake.maxPixels = 1 << 12
    intake.maxRequestPixels = 1 << 14
    return intake
  }()

  /// The first line is the content type, the others the body.
  static func readForm(_ bytes: [UInt8]) {
    let type = bytes.prefix { $0 != 0x0A }
    let body = Array(bytes.dropFirst(type.count + 1))
    guard let boundary = try? MultipartForm.boundary(of: String(decoding: type, as: UTF8.self)) else { return }
    precondition((1...MultipartForm.maxBoundaryBytes).contains(boundary.utf8.count))
    guard let form = try? MultipartForm(body, boundary: boundary) else { return }
    precondition(form.parts.count <= MultipartForm.maxParts)
    let delimiter = Array("\r\n--\(boundary)".utf8)
    var end = 0
    for part in form.parts {
      precondition((1...MultipartForm.maxNameBytes).contains(part.name.utf8.count))
      // Parts are pieces of the body, one after the other, and no boundary is within one.
      precondition(part.bytes.startIndex >= end && part.bytes.endIndex <= body.count, "parts overlap")
      precondition(part.bytes.elementsEqual(body[part.bytes.startIndex..<part.bytes.endIndex]), "another piece")
      precondition(part.bytes.firstRange(of: delimiter) == nil, "a boundary within a part")
      end = part.bytes.endIndex
    }
    for kind in [GenerationRequest.Kind.generation, .edit, .variation] { readImages(of: form, kind) }
  }

  private static func readImages(of form: MultipartForm, _ kind: GenerationRequest.Kind) {
    guard
      let request = try? GenerationRequest(form: form, kind, intake: intake, maxPromptBytes: 1000),
      let (images, inputs) = try? ImageSpec.images(of: request, card: card, intake: intake, randomSeed: 1)
    else { return }
    precondition((1...ImageSpec.maxImageCount).contains(images.count))
    var pixelCount = 0
    for input in inputs {
      let (size, channels) = (input.reference.size, input.reference.channels)
      precondition(input.tensor.bytes.count == size.widthPx * size.heightPx * channels, "an image of another size")
      precondition(input.tensor.shape == [size.heightPx, size.widthPx, channels])
      precondition(size.pixelCount <= intake.maxPixels, "more pixels than the limit")
      if input.reference.role != .mask { pixelCount += size.pixelCount }
    }
    precondition(pixelCount <= intake.maxRequestPixels, "more pixels together than the limit")
    // What is accepted is what a restart makes of it, and tasks can be made of it.
    guard let pipeline = PipelineRegistry.standard[images[0].pipeline] else { fatalError("an unknown pipeline") }
    precondition(pipeline.problem(of: images[0]) == nil, "a specification that the journal would refuse")
    do {
      let stored = try StoredRequest(JobRequest(images)).encoded()
      let restored = try StoredRequest.request(from: stored, tenant: .anonymous).images
      precondition(restored == images, "another one is restored")
    } catch {
      fatalError("cannot be restored: \(error)")
    }
    let digests = Set(inputs.map(\.reference.digest))
    for image in images {
      for task in pipeline.tasks(image) { precondition(task.images.allSatisfy { digests.contains($0.digest) }) }
    }
  }

  /// The text of a field.
  static func readDataURL(_ bytes: [UInt8]) {
    let text = String(decoding: bytes, as: UTF8.self)
    let maxBytes = 300
    guard let image = try? DataURL.bytes(of: text, field: "image", maxBytes: maxBytes) else { return }
    precondition((1...maxBytes).contains(image.count), "more bytes than the limit")
    // It means what Foundation says, too.
    let digits = (text.split(separator: ",", maxSplits: 1).last ?? "").filter { !$0.isWhitespace && $0 != "=" }
      .replacing("-", with: "+").replacing("_", with: "/")
    let padded = digits + String(repeating: "=", count: (4 - digits.count % 4) % 4)
    guard let expected = Data(base64Encoded: padded) else { fatalError("is no base64 for Foundation") }
    precondition(Array(expected) == image, "other bytes than Foundation's")
  }
}
