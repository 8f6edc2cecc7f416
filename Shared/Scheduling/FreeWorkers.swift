import ClusterCore

/// Workers with a free credit that take tasks, by their stages.
struct FreeWorkers: Hashable, Sendable {
  struct Entry: Hashable, Sendable, Comparable {
    let precedence: UInt64
    let id: WorkerID

    static func < (left: Entry, right: Entry) -> Bool {
      (left.precedence, left.id.number) < (right.precedence, right.id.number)
    }
  }

  struct Kind: Hashable, Sendable {
    let stage: StageName
    let model: ModelIdentity
  }

  /// The one to be taken first among equals is first.
  private var stages: [StageName: [Entry]] = [:]
  private var known: [WorkerID: (kind: Kind, entry: Entry)] = [:]
  private var counts: [Kind: Int] = [:]
  /// The most credits of any worker that ever was.
  private var mostCredits: [StageName: Int] = [:]
  /// Counts how often a worker came that was not free before.
  private(set) var arrivals: UInt64 = 0

  var isEmpty: Bool { known.isEmpty }

  func workers(of stage: StageName) -> [Entry] { stages[stage] ?? [] }

  func count(of kind: Kind) -> Int { counts[kind] ?? 0 }

  func mostCredits(of stage: StageName) -> Int { mostCredits[stage] ?? 0 }

  func contains(_ id: WorkerID) -> Bool { known[id] != nil }

  /// Takes note of how a worker is now; nil: it is gone.
  mutating func update(_ id: WorkerID, _ worker: WorkerSession?) {
    let isFree = worker.map { $0.freeCredits > 0 && !$0.isLeaving } ?? false
    if let worker, isFree, known[id] == nil {
      let stage = worker.registration.stage, entry = Entry(precedence: worker.precedence, id: id)
      let kind = Kind(stage: stage, model: worker.registration.model)
      known[id] = (kind, entry)
      counts[kind, default: 0] += 1
      arrivals += 1
      mostCredits[stage] = max(mostCredits(of: stage), worker.registration.credits)
      let list = stages[stage] ?? []
      stages[stage, default: []].insert(entry, at: Self.index(of: entry, in: list))
    } else if !isFree, let (kind, entry) = known.removeValue(forKey: id) {
      counts[kind, default: 0] -= 1
      let index = Self.index(of: entry, in: stages[kind.stage] ?? [])
      stages[kind.stage]?.remove(at: index)
    }
  }

  private static func index(of entry: Entry, in list: [Entry]) -> Int {
    var low = 0, high = list.count
    while low < high {
      let middle = low + (high - low) / 2
      if list[middle] < entry { low = middle + 1 } else { high = middle }
    }
    return low
  }

  static func == (left: FreeWorkers, right: FreeWorkers) -> Bool { left.stages == right.stages }
  func hash(into hasher: inout Hasher) { hasher.combine(stages) }
}
