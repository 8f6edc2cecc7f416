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
    var models: [ModelIdentity] = []
    for worker in status.workers where !models.contains(worker.registration.model) { models.append(worker.registration.model) }
    let ready = status.readyModels()
    let reason: String? =
      if await !dispatcher.isOpen {
        "the gateway is shutting down"
      } else if ready.isEmpty {
        models.isEmpty ? ModelCatalog.missing(nil, status) : models.map { ModelCatalog.missing($0, status) }.joined(separator: "; ")
      } else {
        nil
      }
    return Readiness(
      status: reason == nil ? "ready" : "not_ready", reason: reason,
      models: models.map {
        .init(
          id: $0.id, fingerprint: $0.fingerprint, ready: ready.contains($0),
          missing: status.missingStages(of: $0).map(\.rawValue))
      })
  }
}
