/// In place of the actor, which would bring all of the gateway.
enum Dispatcher {
  static let keyField = "Idempotency-Key"
}
