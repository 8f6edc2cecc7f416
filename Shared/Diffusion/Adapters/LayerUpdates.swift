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

  /// The layer `name` with what the adapters add to it instead of what others added.
  package func callAsFunction(_ name: String, _ layer: Linear) -> Linear {
    compute.updated(layer, by: terms[name] ?? [])
  }

  /// The same of a layer that is not packed yet.
  package func callAsFunction(_ name: String, _ source: LinearSource) -> LinearSource {
    source.updated(by: terms[name] ?? [])
  }
}
