import ClusterCore
import GatewayDispatch

/// An adapter in the answers of `GET /v1/models` and `/v1/workers`.
struct AdapterItem: Encodable {
  /// What requests have as `name` in `loras`.
  var name: String
  /// Of its contents, in hexadecimal.
  var sha256: String
  /// Whether it is in memory: of a worker, or of any.
  var loaded: Bool

  init(_ adapter: ServedAdapter) {
    (name, sha256, loaded) = (adapter.name, adapter.digest, adapter.isLoaded)
  }

  init(_ entry: AdapterCatalog.Entry) {
    (name, sha256, loaded) = (entry.name, entry.digest, entry.loadedCount > 0)
  }
}
