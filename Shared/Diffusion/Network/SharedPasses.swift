import TensorCore

extension VelocityPredictor {
  /// `items`, in their order, in groups of as many as are worth a pass.
  package static func passes<Item>(_ items: [Item], tokens: (Item) -> Int) -> [[Item]] {
    var passes: [[Item]] = [], sum = 0
    for item in items {
      if passes.isEmpty || sum + tokens(item) > sharedTokensMax {
        passes.append([])
        sum = 0
      }
      passes[passes.count - 1].append(item)
      sum += tokens(item)
    }
    return passes
  }
}

/// The rows of parts of `counts` rows, one after the other.
package func consecutiveRows(_ counts: [Int]) -> [Range<Int>] {
  var end = 0
  return counts.map { count in
    end += count
    return end - count..<end
  }
}

extension Tensor {
  /// Requires that this part of a request is fp32 and has `shape`.
  package func require(_ shape: Shape, field: String) throws(PipelineError) {
    guard self.shape == shape, dtype == .fp32 else {
      throw .invalidRequest(field: field, reason: "is \(dtype.rawValue) \(self.shape); expected F32 \(shape)")
    }
  }
}
