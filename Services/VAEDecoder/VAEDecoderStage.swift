import ClusterCore
import Diffusion
import ImageCodec
import Kernels
import StageRuntime
import StageSupport
import TensorCore
import Wire

/// Latents → a PNG with the image's parameters in its text chunks.
struct VAEDecoderStage: Stage {
  let name = StageName.vaeDecoder
  let card: ModelCard
  let componentFingerprint: String
  let numericsClass: String
  private let codec: any LatentCodec

  init(_ loading: StageLoading) throws {
    card = loading.card
    componentFingerprint = try loading.model.componentFingerprint(.vae)
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
    let expected = Shape(card.latents.packedShape(of: request.size))
    guard latents.shape == expected, latents.dtype == .fp32 else {
      throw Status(
        .invalidArgument, "latents is \(latents.dtype) \(latents.shape); expected F32 \(expected)",
        field: TensorName.latents)
    }
    var image = RasterImage(decoded: codec.decode(latents, grid: grid, probe: .none))
    if let overlay = request.overlay {
      let original = try task.image(named: overlay.imageTensor), mask = try task.image(named: overlay.maskTensor)
      image = image.replacing(overlay.region, of: original, mask: mask)
    }
    try context.checkCancelled()
    let png = try PNG.encode(image, texts: request.textEntries.map { PNG.Text($0.keyword, $0.text) })
    let response = DecodeResponse(
      mediaType: "image/png", size: ImageSize(widthPx: image.width, heightPx: image.height),
      computeSeconds: (ContinuousClock.now - start) / .seconds(1))
    return StageOutput(.decodeResponse(response), tensors: [WireTensor(TensorName.image, bytes: png)])
  }
}
