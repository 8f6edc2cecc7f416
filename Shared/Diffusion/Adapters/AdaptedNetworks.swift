import ClusterCore
import Foundation
import Synchronization
import Weights

/// A network with the adapters of a library beside its weights, as requests ask for them: those that were used last are
/// kept. All share the weights.
public final class AdaptedNetworks<Predictor: VelocityPredictor>: Sendable {
  /// A network, and what tells it from those with other adapters.
  public struct Network: Sendable {
    /// The network.
    public let predictor: Predictor
    /// Equal for networks with the same adapters and scales, in the same order; empty without adapters.
    public let key: String
    let digests: Set<String>
  }

  private let base: Network
  private let library: AdapterLibrary?
  private let kept: RecentValues<String, Network>
  /// Held while a network is made: it takes seconds, and what two jobs ask for is made once.
  private let making = Mutex<Void>(())

  /// Networks around one.
  ///
  /// - Parameters:
  ///   - library: where the adapters are; nil: there are none.
  ///   - byteCountMax: most bytes of adapters that are kept. What a running image uses is not counted once it is not
  ///     kept any more, nor are adapters that are more than all may be.
  public init(_ base: Predictor, library: AdapterLibrary?, byteCountMax: Int) {
    self.base = Network(predictor: base, key: "", digests: [])
    self.library = library
    kept = RecentValues(byteCountMax: byteCountMax)
  }

  /// Bytes of adapters that are kept.
  public var byteCount: Int { kept.byteCount }

  /// What requests may name.
  public var served: ServedAdapters { library?.served ?? .none }

  /// The network with these adapters beside its weights.
  ///
  /// - Throws: ABORTED when one of them is not here: another worker may have it; INVALID_ARGUMENT when one cannot be
  ///   used, anywhere.
  public func network(with adapters: [ChosenAdapter]) throws(Status) -> Network {
    guard !adapters.isEmpty else { return base }
    guard let library else { throw Status(.aborted, "this worker has no directory of adapters") }
    let key = adapters.map { "\($0.digest) \($0.scale.bitPattern)" }.joined(separator: " ")
    let made = making.withLock { _ -> Result<Network, Status> in
      if let network = kept[key] { return .success(network) }
      do throws(Status) {
        let network = Network(
          predictor: try adapted(by: adapters, from: library), key: key, digests: Set(adapters.map(\.digest)))
        kept.insert(network, for: key, byteCount: network.predictor.adapterBytes)
        return .success(network)
      } catch { return .failure(error) }
    }
    library.setLoaded(kept.values.reduce(into: []) { $0.formUnion($1.digests) })
    return try made.get()
  }

  private func adapted(by adapters: [ChosenAdapter], from library: AdapterLibrary) throws(Status) -> Predictor {
    var members: [(adapter: Adapter, scale: Double)] = []
    for adapter in adapters {
      members.append((try library.adapter(named: adapter.name, digest: adapter.digest), adapter.scale))
    }
    do {
      return try base.predictor.adapted(by: AdapterSet(members))
    } catch {
      if case .cannotRead? = error as? WeightsError { throw Status(.aborted, "\(error)") }
      // Clients need not know where a worker has its files.
      let message = "\(error)".replacing(library.directory.path + "/", with: "")
      throw Status(.invalidArgument, "loras: \(message)", field: "loras")
    }
  }
}
