import TensorCore

/// True classifier-free guidance with the norm of the conditional prediction (diffusers `QwenImagePipeline.__call__`).
///
/// `v = uncond + scale · (cond − uncond)`, then every token of `v` is rescaled to the length of that token of `cond`.
/// A token whose `v` is zero stays zero (the reference divides 0 by 0).
/// - Parameters:
///   - conditional: Prediction for the prompt, `[…, tokens, channels]`, fp32.
///   - unconditional: Prediction for the negative prompt, same shape.
///   - scale: Guidance scale; 1 gives `conditional` back.
public func trueCFG(conditional: Tensor, unconditional: Tensor, scale: Float) -> Tensor {
  precondition(
    conditional.dtype == .fp32 && unconditional.dtype == .fp32 && conditional.shape == unconditional.shape && conditional.shape.rank > 0,
    "\(conditional.shape) and \(unconditional.shape)")
  let channels = conditional.shape[-1]
  let result = Tensor(uninitialized: conditional.shape)
  withExtendedLifetime((conditional, unconditional, result)) {
    let positive: UnsafeMutablePointer<Float> = conditional.pointer()
    let negative: UnsafeMutablePointer<Float> = unconditional.pointer()
    let combined: UnsafeMutablePointer<Float> = result.pointer()
    for start in stride(from: 0, to: conditional.elementCount, by: max(channels, 1)) {
      // Squares of fp32 numbers neither overflow nor underflow in double.
      var positiveSquares = 0.0
      var combinedSquares = 0.0
      for i in start..<(start + channels) {
        combined[i] = negative[i] + scale * (positive[i] - negative[i])
        positiveSquares += Double(positive[i]) * Double(positive[i])
        combinedSquares += Double(combined[i]) * Double(combined[i])
      }
      guard combinedSquares > 0 else { continue }
      let factor = Float(positiveSquares.squareRoot()) / Float(combinedSquares.squareRoot())
      for i in start..<(start + channels) { combined[i] *= factor }
    }
  }
  return result
}
