/// A rule that is left out of the cluster, to see that the simulator notices.
package enum Mutation: String, CaseIterable, Sendable {
  /// The journal says "durable" before the disk has synced.
  case fsync
  /// The scheduler takes answers of attempts that are not current.
  case fencing
  /// The gateway takes a request that it knows for a new one.
  case deduplication
  /// The scheduler forgets that attempts hold credits.
  case credits
  /// The scheduler takes steps, and so checkpoints, in any order.
  case checkpointOrder = "checkpoint-order"
  /// The scheduler resumes from a checkpoint with any class of worker.
  case numericsClass = "numerics-class"
  /// The scheduler gives workers tasks of any model.
  case model
  /// The scheduler keeps assistants of attempts that are over.
  case assistance
  /// The gateway acknowledges a job before it is durable.
  case admissionGate = "admission-gate"
  /// The gateway tells a job's end before that is durable.
  case endGate = "end-gate"
  /// Attempts after a restart are numbered like those before.
  case runNumber = "run-number"
  /// A job is journalled without the images that it begins with.
  case inputJournal = "input-journal"
  /// The images that a job begins with go with the end of its first image.
  case inputRelease = "input-release"
  /// The images that a job begins with stay when it ends.
  case inputLeak = "input-leak"
}

/// How rough a seed's world is. Everything follows from the seed.
struct Scenario {
  let clientCount: Int
  let chaosMs: Int
  let dropChance: Double
  let duplicateChance: Double
  let isReordered: Bool
  let maxDelayMs: Int
  let maxCommitMs: Int
  let stallChance: Double
  let hasTwoClasses: Bool
  /// Means; each fault comes at random.
  let workerFaults: Int
  let gatewayKills: Int
  let gatewayFreezes: Int
  let diskFills: Int
  let failureChance: Double
  let maxJobs: Int
  /// Jobs are of two models, and workers load the one that is needed.
  let hasTwoModels: Bool

  init(_ random: inout SeededGenerator) {
    let isReliable = random.chance(0.3)
    clientCount = random.pick(4...10)
    chaosMs = random.pick(30...90) * 1000
    dropChance = isReliable ? 0 : 0.01 * Double(random.pick(0...5))
    duplicateChance = isReliable || random.chance(0.5) ? 0 : 0.05
    isReordered = !isReliable && random.chance(0.4)
    maxDelayMs = random.chance(0.3) ? 20 : random.pick(200...3000)
    maxCommitMs = random.chance(0.5) ? 10 : random.pick(50...1500)
    stallChance = random.chance(0.7) ? 0 : 0.02
    hasTwoClasses = random.chance(0.6)
    workerFaults = random.pick(0...12)
    gatewayKills = random.pick(0...4)
    gatewayFreezes = random.chance(0.7) ? 0 : 1
    diskFills = random.chance(0.6) ? 0 : random.pick(1...3)
    failureChance = random.chance(0.5) ? 0 : 0.02
    maxJobs = random.chance(0.3) ? 5 : 64
    hasTwoModels = random.chance(0.3)
  }
}

/// What happened, to see that it did.
package struct Coverage: Hashable, Sendable {
  package var seeds = 0
  package var virtualSeconds = 0.0
  package var events = 0
  package var counts: [String: Int] = [:]

  package mutating func add(_ other: Coverage) {
    seeds += other.seeds
    virtualSeconds += other.virtualSeconds
    events += other.events
    counts.merge(other.counts, uniquingKeysWith: +)
  }

  package subscript(_ name: String) -> Int { counts[name] ?? 0 }

  /// One line; names in alphabetical order.
  package var line: String {
    "\(seeds) seeds, \(Int(virtualSeconds)) virtual s, \(events) events; "
      + counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
  }

  package init() {}
}
