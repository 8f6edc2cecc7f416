import Dispatch
import Weights

/// Runs a network whose weights do not all fit into memory: as many layers as fit stay there; each of the others is
/// read from its file while layers before it are computed, and leaves memory after its turn.
///
/// Left to itself the kernel keeps the pages that were used last. In a loop over all layers these are never the ones
/// that are needed next, so that every pass would read the whole network.
public final class WeightStreaming: Sendable {
  /// The layers that do not stay, in their order.
  public let streamed: [Int]
  private let weights: [MappedWeights]
  private let queue = DispatchQueue(label: "weight-streaming")

  /// Chooses the layers that do not stay; nil when all fit.
  ///
  /// - Parameters:
  ///   - layers: the mapped weights of each layer.
  ///   - residentMax: bytes that may be in memory at a time.
  package init?(_ layers: [MappedWeights], residentMax: Int) {
    let total = layers.reduce(0) { $0 + $1.byteCount }
    guard total > residentMax else { return nil }
    // Besides those that stay there are the one that is computed and the one that is read.
    let limit = residentMax - 2 * (layers.map(\.byteCount).max() ?? 0)
    var streamed: [Int] = [], left = total
    for index in Self.spread(layers.count) where left > limit {
      streamed.append(index)
      left -= layers[index].byteCount
    }
    self.streamed = streamed.sorted()
    weights = layers
  }

  /// Bytes that are read in every pass.
  public var byteCount: Int { streamed.reduce(0) { $0 + weights[$1].byteCount } }

  /// The layer `index` has been computed: its memory is used for the next one that does not stay.
  package func ended(_ index: Int) {
    guard let place = streamed.firstIndex(of: index) else { return }
    let (done, next) = (weights[index], weights[streamed[(place + 1) % streamed.count]])
    queue.async {
      done.evict()
      next.readAhead()
    }
  }

  /// The numbers below `count`, so that any first few of them lie evenly: reading then has the time of several layers.
  /// Processes that share a file and have different limits choose alike.
  package static func spread(_ count: Int) -> [Int] {
    let golden = 0.618_033_988_749_894_9
    func place(_ index: Int) -> Double { (Double(index) * golden).truncatingRemainder(dividingBy: 1) }
    return (0..<count).sorted { place($0) < place($1) }
  }
}

extension WeightLoading {
  /// Says which part of a component's weights does not stay in memory.
  package func reportStreaming(_ streaming: WeightStreaming?, of component: ModelComponent, layerCount: Int) {
    guard let streaming else { return }
    report(
      "\(component.rawValue): \(streaming.streamed.count) of \(layerCount) layers, \(streaming.byteCount >> 20) MiB, "
        + "do not fit into memory and are read in every pass")
  }
}
