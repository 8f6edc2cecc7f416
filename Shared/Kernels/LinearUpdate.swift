import CKernels
import TensorCore

/// What adapters add to the weight of a linear layer, ready for the layer's products: the packed weight is read as it
/// is.
public struct LinearUpdate: Sendable {
  /// A part of ΔW [out, in], which is the sum of all.
  public enum Term: Sendable {
    /// scale · up·down, with up [out, rank] and down [rank, in].
    case lowRank(down: Tensor, up: Tensor, scale: Float)
    /// scale · left ⊗ right, with left [p, q] and right [out / p, in / q].
    case kronecker(left: Tensor, right: Tensor, scale: Float)
  }

  /// Largest rank of a layer, all low-rank terms together: more than a layer has inputs or outputs is of no use,
  /// and the factors of many adapters must not take more memory than the layers.
  public static let maxRank = 8192

  /// The low-rank terms as one: those that follow one another are columns of `up` and rows of `down` that do. Scales
  /// are part of `up`.
  struct LowRank: Sendable {
    let rank: Int
    /// [rank, in] in the form of the layer's weight, in 8 bits beside one in 4: it takes the same rows.
    let down: PreparedWeight
    /// [out, rank]: in fp32 where the layer's weight is, else in bf16.
    let up: PreparedWeight
  }

  /// A Kronecker term.
  struct Kronecker: Sendable {
    /// [p, q], fp32, times the scale.
    let left: Tensor
    /// [out / p, in / q].
    let right: Linear
  }

  let lowRank: LowRank?
  let kroneckers: [Kronecker]
}

extension Compute {
  /// The layer with ΔW beside its weight W, which stays as it is packed; what was beside it before is replaced. Without
  /// terms: the layer as it was read.
  ///
  /// Products with W are of the layer's precision. Those with the first factor of ΔW take the inputs as they are for W,
  /// rotated and in 8 bits where it is quantised; those with the second are of fp32 where W is, else of bf16, with fp32
  /// sums. Kronecker terms are of these precisions, too, of the inputs as they are. Sums are added before bias,
  /// activation and gate.
  public func updated(_ layer: Linear, by terms: [LinearUpdate.Term]) -> Linear {
    var layer = layer
    layer.update = terms.isEmpty ? nil : prepareUpdate(of: layer, terms)
    return layer
  }

  private func prepareUpdate(of layer: Linear, _ terms: [LinearUpdate.Term]) -> LinearUpdate {
    var downs: [Tensor] = [], ups: [(factor: Tensor, scale: Float)] = []
    var kroneckers: [LinearUpdate.Kronecker] = []
    for term in terms {
      switch term {
      case .lowRank(let down, let up, let scale):
        precondition(
          down.shape.rank == 2 && up.shape == [layer.outFeatures, down.shape[0]]
            && down.shape[1] == layer.inFeatures && down.shape[0] > 0,
          "factors \(up.shape), \(down.shape) of a layer [\(layer.outFeatures), \(layer.inFeatures)]")
        downs.append(fp32(down))
        ups.append((up, scale))
      case .kronecker(let left, let right, let scale):
        precondition(
          left.shape.rank == 2 && right.shape.rank == 2 && left.shape[0] * right.shape[0] == layer.outFeatures
            && left.shape[1] * right.shape[1] == layer.inFeatures,
          "Kronecker factors \(left.shape), \(right.shape) of a layer [\(layer.outFeatures), \(layer.inFeatures)]")
        kroneckers.append(
          LinearUpdate.Kronecker(
            left: Tensor(left.floats().map { $0 * scale }, shape: left.shape),
            right: prepareLinear(weight: right, precision: layer.precision == .fp32 ? .fp32 : .bf16)))
      }
    }
    guard !downs.isEmpty else { return LinearUpdate(lowRank: nil, kroneckers: kroneckers) }
    let down = Tensor.stacking(downs), rank = down.shape[0]
    precondition(rank <= LinearUpdate.maxRank, "rank \(rank), the limit is \(LinearUpdate.maxRank)")
    let lowRank = LinearUpdate.LowRank(
      rank: rank, down: firstFactor(down, of: layer), up: secondFactor(Self.joined(ups, rank: rank), of: layer))
    return LinearUpdate(lowRank: lowRank, kroneckers: kroneckers)
  }

  /// The columns of scaled factors [out, rank of each] side by side: [out, rank].
  private static func joined(_ factors: [(factor: Tensor, scale: Float)], rank: Int) -> Tensor {
    let rows = factors[0].factor.shape[0]
    var values = [Float](repeating: 0, count: rows * rank), column = 0
    for (factor, scale) in factors {
      let source = factor.floats(), width = factor.shape[1]
      for row in 0..<rows {
        for index in 0..<width { values[row * rank + column + index] = source[row * width + index] * scale }
      }
      column += width
    }
    return Tensor(values, shape: [rows, rank])
  }

  /// A factor [rank, in] in the form that takes the rows of a layer's weight.
  private func firstFactor(_ factor: Tensor, of layer: Linear) -> PreparedWeight {
    switch layer.weight {
    case .int8, .q4: packedInt8(factor, layer.rotation)
    case .rowMajor, .fp32, .bf16: secondFactor(factor, of: layer)
    }
  }

  /// A factor [out, rank] in the form that the second product beside a layer's weight takes.
  private func secondFactor(_ factor: Tensor, of layer: Linear) -> PreparedWeight {
    switch layer.weight {
    case .rowMajor: .rowMajor(factor)
    case .fp32: .fp32(packed(factor, functions.fp32))
    case .bf16, .int8, .q4: .bf16(packed(factor, functions.bf16))
    }
  }

  /// A packed factor of an update, the product that takes it, and what belongs to 8-bit numbers.
  func packedFactor(_ factor: PreparedWeight) -> (
    operand: SharedRows.Form.Operand, panels: Tensor, scales: Tensor?, offsets: Tensor?
  ) {
    switch factor {
    case .fp32(let panels): (.fp32, panels, nil, nil)
    case .bf16(let panels): (.bf16, panels, nil, nil)
    case .int8(let panels, let scales, let offsets): (.int8, panels, scales, offsets)
    case .rowMajor, .q4: preconditionFailure("a factor that is not packed for a product beside a layer's")
    }
  }

  /// The products of x [M, in] with the first factor of an update [M, rank], and the second factor [out, rank], for
  /// OpenBLAS.
  func rowMajorFactors(_ x: Tensor, _ update: LinearUpdate.LowRank) -> (projections: Tensor, up: Tensor) {
    guard case .rowMajor(let down) = update.down, case .rowMajor(let up) = update.up else {
      preconditionFailure("packed factors beside weights that are not")
    }
    let layer = Linear(
      outFeatures: update.rank, inFeatures: down.shape[1], rotation: 1, weight: update.down, bias: nil)
    return (linear(x, layer, output: .fp32), up)
  }

  /// The sums of x [M, in] with all Kronecker terms, [M, out], fp32; nil: there are none.
  ///
  /// x·(L ⊗ R)ᵀ is L·(X·Rᵀ) for each row of x as a matrix X [q, in / q]: two small products instead of a large one.
  func kroneckerProducts(_ x: Tensor, _ update: LinearUpdate, outFeatures: Int) -> Tensor? {
    guard !update.kroneckers.isEmpty else { return nil }
    let (rows, depth) = x.shape.rowExtents
    var sums = MutableTensor(zeros: [rows, outFeatures])
    for term in update.kroneckers {
      let (p, q) = (term.left.shape[0], term.left.shape[1]), width = term.right.outFeatures
      let products = linear(x.reshaped([rows * q, depth / q]), term.right, output: .fp32)
      sums.write(reading: products, term.left) { sums in
        let left = term.left.pointer(count: p * q, as: Float.self)
        parallelRows(rows, bytesPerRow: outFeatures * q * 4) { range in
          for row in range {
            let source = products.pointer(row * q * width, count: q * width, as: Float.self)
            let target = sums.pointer(row * outFeatures, count: outFeatures, as: Float.self)
            for i in 0..<p {
              for j in 0..<q {
                let factor = left[i * q + j]
                for k in 0..<width { target[i * width + k] += factor * source[j * width + k] }
              }
            }
          }
        }
      }
    }
    return sums.finish()
  }
}
