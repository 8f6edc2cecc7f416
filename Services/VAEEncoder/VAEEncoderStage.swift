import ClusterCore
import Diffusion
import Kernels
import StageRuntime
import StageSupport
import TensorCore
import Wire

/// An image → packed latents.
struct VAEEncoderStage: Stage {
  let name = StageName.vaeEncoder
  let card: ModelCard
  let componentFingerprint: String
  let numericsClass: String
  private let encoder: ImageEncoder

  init(_ loading: StageLoading) throws {
    card = loading.card
    componentFingerprint = try loading.model.componentFingerprint(.vae)
    let codec = try loading.model.family.codec(of: loading.model, pool: loading.pool, parts: .encoder)
    numericsClass = codec.numericsClass
    encoder = ImageEncoder(codec, loading.card.latents)
  }

  func run(_ task: StageTask, context: TaskContext) throws -> StageOutput {
    guard case .encodeImageRequest(let request) = task.request else {
      throw Status(.unimplemented, "a VAE encoder does not answer \(task.request.name)")
    }
    let start = ContinuousClock.now
    try context.checkCancelled()
    let size = request.image.preparation.size
    let grid = try card.grid(of: size)
    let image = try task.image(request.image).converted(toChannels: encoder.imageChannels)
    let draws = Array(repeating: grid, count: request.posterior == .sample ? request.precedingDraws + 1 : 0)
    let noise = InitialNoise.posteriors(seed: request.seed, grids: draws, card.latents).last
    let latents: Tensor
    if let mask = request.mask {
      latents = encoder.encode(image, blanking: try task.image(mask).luma, noise: noise)
    } else {
      latents = encoder.encode(image, noise: noise)
    }
    try context.checkCancelled()
    let response = EncodeImageResponse(size: size, computeSeconds: (ContinuousClock.now - start) / .seconds(1))
    return StageOutput(.encodeImageResponse(response), tensors: [WireTensor(TensorName.latents, latents)])
  }
}
