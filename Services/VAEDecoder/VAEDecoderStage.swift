import ClusterCore
import ImageCodec
import Kernels
import QwenImage
import StageRuntime
import StageSupport
import TensorCore
import Wire

/// Latents → a PNG with the picture's parameters in its text chunks.
struct VAEDecoderStage: Stage {
  let name = StageName.vaeDecoder
  let card: ModelCard
  let componentFingerprint: String
  let numericsClass: String
  private let decoder: QwenImage.VAEDecoder

  init(_ loading: StageLoading) throws {
    card = ModelCard(loading.model, loading.profile)
    componentFingerprint = try loading.model.componentFingerprint(.vae)
    decoder = try QwenImage.VAEDecoder(model: loading.model, pool: loading.pool)
    numericsClass = decoder.numericsClass
  }

  func run(_ task: StageTask, context: TaskContext) throws -> StageOutput {
    guard case .decodeRequest(let request) = task.request else {
      throw Status(.unimplemented, "a VAE decoder does not answer \(task.request.name)")
    }
    let start = ContinuousClock.now
    try context.checkCancelled()
    let grid = try TokenGrid(request.size)
    let latents = try task.requiredTensor(TensorName.latents).tensor()
    let expected = Shape(card.latents.packedShape(of: request.size))
    guard latents.shape == expected, latents.dtype == .fp32 else {
      throw Status(
        .invalidArgument, "latents is \(latents.dtype) \(latents.shape); expected F32 \(expected)",
        field: TensorName.latents)
    }
    let picture = RasterImage(decoded: decoder(LatentPacking.unpack(latents, grid)))
    try context.checkCancelled()
    let png = try PNG.encode(picture, texts: request.textEntries.map { PNG.Text($0.keyword, $0.text) })
    let response = DecodeResponse(
      mediaType: "image/png", size: request.size, computeSeconds: (ContinuousClock.now - start) / .seconds(1))
    return StageOutput(.decodeResponse(response), tensors: [WireTensor(TensorName.image, bytes: png)])
  }
}
