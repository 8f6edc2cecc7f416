import ClusterCore
import Diffusion
import TensorCore

extension SingleStreamConfiguration {
  /// The products of all blocks in a step over `imageTokens`, behind `textTokens` whose keys and values are kept.
  func work(imageTokens: Int, textTokens: Int) -> DenoisingWork {
    let dim = innerDim
    return DenoisingWork(
      products: [
        .init(rows: imageTokens, inFeatures: dim, outFeatures: dim, count: 4 * layerCount),
        .init(rows: imageTokens, inFeatures: dim, outFeatures: mlpDim, count: 2 * layerCount),
        .init(rows: imageTokens, inFeatures: mlpDim, outFeatures: dim, count: layerCount),
      ],
      attention: [
        .init(
          queries: imageTokens, keys: imageTokens + textTokens, heads: headCount, headDim: headDim, count: layerCount)
      ],
      activationBytes: DenoisingWork.activationBytes(tokens: imageTokens, width: dim)
        + prefixCacheBytes(tokens: textTokens, .bf16))
  }
}

extension QwenImage21Family {
  /// The blocks of `transformer/`.
  public func denoisingWork(size: ImageSize, textTokens: Int) -> DenoisingWork {
    let edge = latents.tokenEdgePx
    return transformer.work(imageTokens: size.widthPx / edge * (size.heightPx / edge), textTokens: textTokens)
  }
}
