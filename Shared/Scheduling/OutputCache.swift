import OrderedCollections

/// What a shared output is the output of.
struct ContentKey: Hashable, Sendable {
  var model: ModelIdentity
  var stage: Stage
  var content: String
}

/// Outputs of shared tasks, kept within a number of bytes; the one not asked for longest goes first.
struct OutputCache: Hashable, Sendable {
  let maxBytes: Int
  private(set) var byteCount = 0
  private(set) var hits = 0
  private(set) var misses = 0
  /// Least recently used first.
  private var entries: OrderedDictionary<ContentKey, Payload> = [:]

  init(maxBytes: Int) {
    self.maxBytes = maxBytes
  }

  var count: Int { entries.count }
  var payloads: [Payload] { Array(entries.values) }

  mutating func output(for key: ContentKey) -> Payload? {
    guard let payload = entries.removeValue(forKey: key) else {
      misses += 1
      return nil
    }
    entries[key] = payload
    hits += 1
    return payload
  }

  /// Keeps `payload` and returns what must go for it; nil when it is too large to keep at all, or already there.
  mutating func insert(_ payload: Payload, for key: ContentKey) -> [Payload]? {
    guard payload.byteCount <= maxBytes, entries[key] == nil else { return nil }
    var evicted: [Payload] = []
    while byteCount > maxBytes - payload.byteCount {
      let oldest = entries.removeFirst().value
      byteCount -= oldest.byteCount
      evicted.append(oldest)
    }
    entries[key] = payload
    byteCount += payload.byteCount
    return evicted
  }
}
