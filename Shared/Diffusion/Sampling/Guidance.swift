import TensorCore

/// How the velocities for the prompt and for the negative prompt are combined.
public enum Guidance: Sendable {
  /// True classifier-free guidance with the norm of the conditional prediction, see
  /// ``trueCFG(conditional:unconditional:scale:)``.
  case normPreserving
  /// Classifier-free guidance as it comes: `uncond + scale · (cond − uncond)`.
  case plain

  /// The velocity of a step, [tokens, channels].
  func combine(conditional: Tensor, unconditional: Tensor, scale: Float) -> Tensor {
    switch self {
    case .normPreserving: trueCFG(conditional: conditional, unconditional: unconditional, scale: scale)
    case .plain: plainCFG(conditional: conditional, unconditional: unconditional, scale: scale)
    }
  }
}

/// Classifier-free guidance: `uncond + scale · (cond − uncond)` of fp32 tensors of one shape.
private func plainCFG(conditional: Tensor, unconditional: Tensor, scale: Float) -> Tensor {
  precondition(conditional.shape == unconditional.shape, "\(conditional.shape) and \(unconditional.shape)")
  var result = MutableTensor(uninitialized: conditional.shape)
  conditional.withElements(as: Float.self) { positive in
    unconditional.withElements(as: Float.self) { negative in
      result.withElements(as: Float.self) { combined in
        for i in combined.indices { combined[i] = negative[i] + scale * (positive[i] - negative[i]) }
      }
    }
  }
  return result.finish()
}

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
    conditional.dtype == .fp32 && unconditional.dtype == .fp32 && conditional.shape == unconditional.shape
      && conditional.shape.rank > 0,
    "\(conditional.shape) and \(unconditional.shape)")
  let channels = conditional.shape[-1]
  var result = MutableTensor(uninitialized: conditional.shape)
  conditional.withElements(as: Float.self) { positive in
    unconditional.withElements(as: Float.self) { negative in
      result.withElements(as: Float.self) { guide(positive, negative, scale, channels: channels, into: &$0) }
    }
  }
  return result.finish()
}

private func guide(
  _ positive: Span<Float>, _ negative: Span<Float>, _ scale: Float, channels: Int,
  into combined: inout MutableSpan<Float>
) {
  for start in stride(from: 0, to: positive.count, by: max(channels, 1)) {
    // Squares of fp32 numbers neither overflow nor underflow in double.
    var positiveSquares = 0.0
    var combinedSquares = 0.0
    for i in start..<(start + channels) {
      let value = negative[i] + scale * (positive[i] - negative[i])
      combined[i] = value
      positiveSquares += Double(positive[i]) * Double(positive[i])
      combinedSquares += Double(value) * Double(value)
    }
    guard combinedSquares > 0 else { continue }
    let factor = Float(positiveSquares.squareRoot()) / Float(combinedSquares.squareRoot())
    for i in start..<(start + channels) { combined[i] *= factor }
  }
}
