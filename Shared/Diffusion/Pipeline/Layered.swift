import ClusterCore
import ImageCodec
import TensorCore

extension PipelineRun {
  /// A prompt and an image → its layers, from the bottom up, with transparency (diffusers `QwenImageLayeredPipeline`).
  /// A composite is made with them, and left out.
  func layered(_ afterStep: LocalModel.AfterStep) throws -> [RasterImage] {
    let limit = LayerCount.limit
    guard limit.contains(inputs.layers) else {
      throw PipelineError.invalidRequest(
        field: "layers", reason: "is \(inputs.layers); it must be between \(limit.lowerBound) and \(limit.upperBound)")
    }
    _ = try image()
    let image = inputs.images[0].prepared(by: ImagePreparation(size: request.size)).rgba
    let (prompt, negative) = try encodePrompts()
    let reference = reference(image, number: 0), count = inputs.layers + 1
    let noise = InitialNoise.torchCPU(seed: request.seed, grid: grid, geometry, layers: count, probe: probe)
    probe.record("prepare_latents.0", noise)
    var input = input(prompt, negative, from: noise)
    input.layers = count
    input.references = [reference]
    let latents = try model.denoise(input, probe, afterStep), tokens = grid.tokenCount
    return (1..<count).map { decode(latents.rows($0 * tokens..<($0 + 1) * tokens), grid, number: $0 - 1) }
  }
}
