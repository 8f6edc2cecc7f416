import Kernels
import Weights

/// What a set of adapters adds to each layer of a network: the network's modules ask for it by the names that they have
/// read their layers by.
package struct LayerUpdates: Sendable {
  private let terms: [String: [LinearUpdate.Term]]
  private let compute: Compute

  /// Brings the factors of all adapters together.
  ///
  /// - Throws: `WeightsError` naming the file and the tensor that fits no layer, or has another shape than the layer
  ///   needs, or numbers that are not finite.
  package init(
    _ adapters: AdapterSet, for targets: AdapterTargets, compute: Compute
  ) throws(WeightsError) {
    self.compute = compute
    var terms: [String: [LinearUpdate.Term]] = [:]
    for member in adapters.members {
      for (layer, term) in try member.adapter.terms(for: targets, scale: member.scale) {
        terms[layer, default: []].append(term)
      }
      for (layer, terms) in terms {
        let rank = terms.reduce(0) { $0 + $1.rank }
        guard rank <= LinearUpdate.maxRank else {
          throw .malformedHeader(
            file: member.adapter.file.path,
            reason: "with the adapters before it, the rank of \(layer) is \(rank); the limit is \(LinearUpdate.maxRank)"
          )
        }
      }
    }
    self.terms = terms
  }

  /// Most bytes that the factors take, packed: those of a layer's low-rank terms are one matrix whose rank is filled
  /// up. The first factor beside a quantised weight takes half of what is counted.
  package var byteCount: Int {
    let width = compute.precision == .fp32 ? 4 : 2, multiple = 48
    return terms.values.reduce(0) { sum, terms in
      var bytes = 0, rank = 0, inFeatures = 0, outFeatures = 0
      for case .lowRank(let down, let up, _) in terms {
        rank += down.shape[0]
        (inFeatures, outFeatures) = (down.shape[1], up.shape[0])
      }
      bytes += ((rank + multiple - 1) / multiple * multiple * inFeatures + outFeatures * rank) * width
      for case .kronecker(let left, let right, _) in terms {
        bytes += left.shape.elementCount * 4 + right.shape.elementCount * width
      }
      return sum + bytes
    }
  }

  /// The layer `name` with what the adapters add to it instead of what others added.
  package func callAsFunction(_ name: String, _ layer: Linear) -> Linear {
    compute.updated(layer, by: terms[name] ?? [])
  }

  /// The same of a layer that is not packed yet.
  package func callAsFunction(_ name: String, _ source: LinearSource) -> LinearSource {
    source.updated(by: terms[name] ?? [])
  }
}
