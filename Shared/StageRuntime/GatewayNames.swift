import ClusterCore
import Transport

/// What is known of the addresses of the configured gateways. It decides when names are asked for again, but
/// does not ask.
package struct GatewayNames {
  private struct Entry {
    let address: GatewayEndpoint
    /// As last resolved, each once; of an address that is no name, itself.
    var endpoints: [String]
    var isAsked = false
    var askAt = Duration.zero
    var askedAt: Duration?
    var failures = 0
  }

  /// What a name's new addresses mean.
  package struct Change: Equatable {
    /// Those that it did not have before.
    package var added: [String]
    /// Those that it has no more.
    package var removed: [String]
    /// Whether it had one address and has another one now: the gateway has moved.
    package var isMove: Bool
  }

  /// Names are not asked for more often than this, whatever happens to connections.
  static let shortestPause = Duration.seconds(1)

  private var entries: [Entry]
  private let interval: Duration

  /// - Parameters:
  ///   - addresses: as configured.
  ///   - interval: how often a name's addresses are looked at again.
  package init(_ addresses: [GatewayEndpoint], every interval: Duration) {
    self.interval = interval
    entries = addresses.map { Entry(address: $0, endpoints: $0.name == nil ? [$0.text] : []) }
  }

  /// All endpoints, each once, in the order of the configuration.
  package var endpoints: [String] {
    var seen: Set<String> = []
    return entries.flatMap(\.endpoints).filter { seen.insert($0).inserted }
  }

  /// The addresses whose names are to be resolved now. They are not due again before ``note(_:of:now:)``.
  package mutating func due(now: Duration) -> [(index: Int, name: String)] {
    entries.indices.compactMap { index in
      let entry = entries[index]
      guard let name = entry.address.name, !entry.isAsked, now >= entry.askAt else { return nil }
      entries[index].isAsked = true
      entries[index].askedAt = now
      return (index, name)
    }
  }

  /// Has names resolved soon: a gateway is lost, and may be found elsewhere.
  package mutating func askSoon(now: Duration) {
    for index in entries.indices where entries[index].address.name != nil {
      let soon = entries[index].askedAt.map { max(now, $0 + Self.shortestPause) } ?? now
      entries[index].askAt = min(entries[index].askAt, soon)
    }
  }

  /// Takes the addresses of the name number `index`; nil: they are not known, and stay what they were.
  package mutating func note(_ found: [String]?, of index: Int, now: Duration) -> Change? {
    entries[index].isAsked = false
    guard let found, !found.isEmpty else {
      let pause = Self.shortestPause * (1 << min(entries[index].failures, 10))
      entries[index].failures += 1
      entries[index].askAt = now + min(pause, interval)
      return nil
    }
    entries[index].failures = 0
    entries[index].askAt = now + interval
    let old = entries[index].endpoints
    let new = found.map { entries[index].address.endpoint(at: $0) }
    entries[index].endpoints = new
    let change = Change(
      added: new.filter { !old.contains($0) }, removed: old.filter { !new.contains($0) },
      isMove: old.count == 1 && new.count == 1 && old != new)
    return change.added.isEmpty && change.removed.isEmpty ? nil : change
  }

  /// The address number `index`, for logs.
  func text(of index: Int) -> String { entries[index].address.text }
}
