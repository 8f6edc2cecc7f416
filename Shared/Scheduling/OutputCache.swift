import ClusterCore

/// What a shared output is the output of.
struct ContentKey: Hashable, Sendable {
  var model: ModelIdentity
  var stage: StageName
  var content: String

  /// nil: the task is never shared.
  init?(_ task: TaskPlan, of model: ModelIdentity) {
    guard let content = task.content else { return nil }
    (self.model, stage, self.content) = (model, task.stage, content)
  }
}

/// Outputs of shared tasks, kept within a number of bytes; the one not asked for longest goes first.
struct OutputCache: Sendable {
  let maxBytes: Int
  private(set) var byteCount = 0
  private(set) var hits = 0
  private(set) var misses = 0
  /// Least recently used first.
  private var entries: OrderedTable<ContentKey, Output> = [:]

  init(maxBytes: Int) {
    self.maxBytes = maxBytes
  }

  var count: Int { entries.count }
  var payloads: [Payload] { entries.values.map(\.payload) }

  mutating func output(for key: ContentKey) -> Output? {
    guard let output = entries.removeValue(forKey: key) else {
      misses += 1
      return nil
    }
    entries[key] = output
    hits += 1
    return output
  }

  /// Keeps `output` and returns what must go for it; nil when it is too large to keep at all, or already there.
  mutating func insert(_ output: Output, for key: ContentKey) -> [Payload]? {
    let payload = output.payload
    guard payload.byteCount <= maxBytes, entries[key] == nil else { return nil }
    var evicted: [Payload] = []
    while byteCount > maxBytes - payload.byteCount {
      guard let (oldest, output) = entries.first else { break }
      entries.removeValue(forKey: oldest)
      byteCount -= output.payload.byteCount
      evicted.append(output.payload)
    }
    entries[key] = output
    byteCount += payload.byteCount
    return evicted
  }
}
