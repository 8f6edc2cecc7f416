import ClusterCore
import OrderedCollections
import Scheduling
import Wire

/// What many sessions have in common: what a message or a registration has to know of all workers, without asking each.
struct WorkerCensus {
  private struct Service: Hashable {
    let model: ModelIdentity
    let pipeline: PipelineName
    let stage: StageName
  }

  private struct Component: Hashable {
    let model: ModelIdentity
    let stage: StageName
  }

  /// How many sessions have each card, by their model; those of one model are few.
  private var cards: [ModelIdentity: [(card: ModelCard, count: Int)]] = [:]
  /// How many sessions of a model and stage have each fingerprint.
  private var fingerprints: [Component: [String: Int]] = [:]
  /// How many sessions serve a pipeline's stage, with what they have loaded or could load.
  private var services: [Service: Int] = [:]
  private var previewMaps: [ModelIdentity: OrderedDictionary<WorkerID, WireTensor>] = [:]

  mutating func insert(_ session: WorkerDirectory.Session) {
    for card in session.cards {
      let known = cards[card.model]?.firstIndex { $0.card == card }
      if let known { cards[card.model]?[known].count += 1 } else { cards[card.model, default: []].append((card, 1)) }
      for pipeline in Set(card.pipelines) {
        services[Service(model: card.model, pipeline: pipeline, stage: session.register.stage), default: 0] += 1
      }
    }
    fingerprints[component(of: session), default: [:]][session.register.componentFingerprint, default: 0] += 1
    if let map = session.previewMap { previewMaps[session.model, default: [:]][session.id] = map }
  }

  mutating func remove(_ session: WorkerDirectory.Session) {
    for card in session.cards {
      if let index = cards[card.model]?.firstIndex(where: { $0.card == card }) {
        cards[card.model]?[index].count -= 1
        if cards[card.model]?[index].count == 0 { cards[card.model]?.remove(at: index) }
        if cards[card.model]?.isEmpty ?? false { cards[card.model] = nil }
      }
      for pipeline in Set(card.pipelines) {
        let service = Service(model: card.model, pipeline: pipeline, stage: session.register.stage)
        let left = (services[service] ?? 1) - 1
        services[service] = left > 0 ? left : nil
      }
    }
    let component = component(of: session), fingerprint = session.register.componentFingerprint
    let left = (fingerprints[component]?[fingerprint] ?? 1) - 1
    fingerprints[component]?[fingerprint] = left > 0 ? left : nil
    if fingerprints[component]?.isEmpty ?? false { fingerprints[component] = nil }
    previewMaps[session.model]?[session.id] = nil
    if previewMaps[session.model]?.isEmpty ?? false { previewMaps[session.model] = nil }
  }

  /// Whether the session fits in with all that are there, also with an earlier one of the same worker; if not, some may
  /// still be its own.
  func agrees(with session: WorkerDirectory.Session) -> Bool {
    let fingerprint = session.register.componentFingerprint
    return (fingerprints[component(of: session)] ?? [:]).keys.allSatisfy { $0 == fingerprint }
      && session.cards.allSatisfy { card in
        (cards[card.model] ?? []).allSatisfy { $0.card.isOfOneModel(with: card) }
      }
  }

  /// Whether a session of the stage has loaded, or could load, the model for the pipeline.
  func serves(_ model: ModelIdentity, _ pipeline: PipelineName, _ stage: StageName) -> Bool {
    services[Service(model: model, pipeline: pipeline, stage: stage)] != nil
  }

  /// What latents of a model look like, by the oldest session that has said so; nil: none has.
  func previewMap(of model: ModelIdentity) -> WireTensor? { previewMaps[model]?.values.first }

  private func component(of session: WorkerDirectory.Session) -> Component {
    Component(model: session.model, stage: session.register.stage)
  }
}
