import ClusterCore
import Diffusion

extension TransformerConfiguration {
  /// The products of all blocks in a step over `imageTokens` and `textTokens`; what is before and behind the blocks is
  /// less than a thousandth.
  func work(imageTokens: Int, textTokens: Int) -> DenoisingWork {
    let dim = innerDim, tokens = imageTokens + textTokens
    let products = [imageTokens, textTokens].flatMap { rows -> [DenoisingWork.Product] in
      [
        .init(rows: rows, inFeatures: dim, outFeatures: dim, count: 4 * layerCount),
        .init(rows: rows, inFeatures: dim, outFeatures: 4 * dim, count: layerCount),
        .init(rows: rows, inFeatures: 4 * dim, outFeatures: dim, count: layerCount),
      ]
    }
    return DenoisingWork(
      products: products,
      attention: [.init(queries: tokens, keys: tokens, heads: headCount, headDim: headDim, count: layerCount)],
      activationBytes: DenoisingWork.activationBytes(tokens: tokens, width: dim))
  }
}

extension QwenImageFamily {
  /// The blocks of `transformer/`.
  public func denoisingWork(size: ImageSize, textTokens: Int) -> DenoisingWork {
    let edge = latents.tokenEdgePx
    return transformer.work(imageTokens: size.widthPx / edge * (size.heightPx / edge), textTokens: textTokens)
  }
}
