import ClusterCore
import Diffusion
import ImageCodec
import Kernels
import StageRuntime
import StageSupport
import TensorCore
import Wire

/// Latents → a file with the image's parameters as texts.
struct VAEDecoderStage: Stage {
  let name = StageName.vaeDecoder
  let card: ModelCard
  let componentFingerprint: String
  let numericsClass: String
  let registrationTensors: [WireTensor]
  private let codec: any LatentCodec

  init(_ loading: StageLoading) throws {
    card = loading.card
    componentFingerprint = try loading.model.componentFingerprint(.vae)
    // Before the decoder is there, so that the memory of both is not needed at a time.
    let previews = loading.previewMap()
    registrationTensors = previews.map { [WireTensor(TensorName.previewMap, $0.weights)] } ?? []
    codec = try loading.model.family.codec(of: loading.model, pool: loading.pool, parts: .decoder)
    numericsClass = codec.numericsClass
  }

  func run(_ task: StageTask, context: TaskContext) throws -> StageOutput {
    guard case .decodeRequest(let request) = task.request else {
      throw Status(.unimplemented, "a VAE decoder does not answer \(task.request.name)")
    }
    let start = ContinuousClock.now
    try context.checkCancelled()
    let grid = try card.grid(of: request.size)
    let latents = try task.requiredTensor(TensorName.latents).tensor()
    let imageCount = request.layers == 0 ? 1 : request.layers + 1
    let expected = Shape([imageCount * grid.tokenCount, card.latents.packedShape(of: request.size)[1]])
    guard latents.shape == expected, latents.dtype == .fp32 else {
      throw Status(
        .invalidArgument, "latents is \(latents.dtype) \(latents.shape); expected F32 \(expected)",
        field: TensorName.latents)
    }
    let images = try (request.layers == 0 ? 0..<1 : 1..<imageCount).map { index in
      try context.checkCancelled()
      let rows = latents.rows(index * grid.tokenCount..<(index + 1) * grid.tokenCount)
      let decoded = RasterImage(decoded: codec.decode(rows, grid: grid, probe: .none))
      return try overlaid(request.background == .opaque ? decoded.overWhite : decoded, request, task)
    }
    try context.checkCancelled()
    let result = try encoded(images, request)
    let response = DecodeResponse(
      mediaType: request.format.mediaType, size: ImageSize(widthPx: images[0].width, heightPx: images[0].height),
      computeSeconds: (ContinuousClock.now - start) / .seconds(1))
    return StageOutput(.decodeResponse(response), tensors: [result])
  }

  private func encoded(_ images: [RasterImage], _ request: DecodeRequest) throws -> WireTensor {
    let texts = request.textEntries.map { PNG.Text($0.keyword, $0.text) }
    switch request.format {
    case .png:
      return WireTensor(TensorName.image, bytes: try images.flatMap { try PNG.encode($0, texts: texts) })
    case .webp, .jpeg:
      guard request.layers == 0 else {
        throw Status(.invalidArgument, "format is \(request.format), and layers are PNG files", field: "format")
      }
      let encoding = ImageEncoding(format: request.format == .webp ? .webp : .jpeg, quality: request.quality)
      return WireTensor(TensorName.image, bytes: try encoding.file(of: images[0], texts: texts))
    case .pixels:
      guard images.count == 1 else {
        throw Status(.invalidArgument, "format is pixels, which is for one image, not for layers", field: "format")
      }
      var tensor = WireTensor(TensorName.image, bytes: images[0].pixels)
      tensor.shape = [images[0].height, images[0].width, images[0].channels]
      return tensor
    }
  }

  private func overlaid(_ image: RasterImage, _ request: DecodeRequest, _ task: StageTask) throws -> RasterImage {
    guard let overlay = request.overlay else { return image }
    let original = try task.image(named: overlay.imageTensor), mask = try task.image(named: overlay.maskTensor)
    return image.replacing(overlay.region, of: original, mask: mask)
  }
}
