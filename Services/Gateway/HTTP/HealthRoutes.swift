import ClusterCore
import GatewayDispatch
import Hummingbird
import Scheduling

/// `GET /healthz`: the process is alive. `GET /readyz`: a request would be served.
struct HealthRoutes: Sendable {
  let dispatcher: Dispatcher

  struct Health: Encodable {
    var status = "ok"
  }

  struct Readiness: Encodable {
    struct Model: Encodable {
      var id: String
      var fingerprint: String
      var ready: Bool
      /// Those that can be served now.
      var pipelines: [String]
      /// Stages that lack a ready worker, while no pipeline can be served.
      var missing: [String]
    }
    var status: String
    var reason: String?
    var models: [Model]
  }

  func add(to router: Router<GatewayContext>) {
    router.serve("/healthz", [(.get, { _, _ in try .json(Health()) })])
    router.serve(
      "/readyz",
      [
        (
          .get,
          { _, _ in
            let readiness = await readiness()
            return try .json(readiness, status: readiness.reason == nil ? .ok : .serviceUnavailable)
          }
        )
      ])
  }

  private func readiness() async -> Readiness {
    let status = await dispatcher.status
    let catalog = await dispatcher.catalog
    let cards = status.models.compactMap { catalog.card(of: $0) }
    let isReady = cards.contains { catalog.isReady($0, status) }
    let reason: String? =
      if await !dispatcher.isOpen {
        "the gateway is shutting down"
      } else if await dispatcher.isSuspended {
        "the journal cannot be reached"
      } else if !isReady {
        cards.isEmpty ? catalog.missing(nil, status) : cards.map { catalog.missing($0, status) }.joined(separator: "; ")
      } else {
        nil
      }
    return Readiness(
      status: reason == nil ? "ready" : "not_ready", reason: reason,
      models: cards.map { card in
        .init(
          id: card.model.id, fingerprint: card.model.fingerprint, ready: catalog.isReady(card, status),
          pipelines: catalog.readyPipelines(of: card, status).map(\.text),
          missing: catalog.isReady(card, status) ? [] : catalog.missingStages(card, status).map(\.text))
      })
  }
}
