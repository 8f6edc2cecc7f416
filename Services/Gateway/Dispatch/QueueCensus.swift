import DequeModule
import Scheduling

/// How many jobs wait for their main work, by what they have in common, and since when the oldest does.
package struct QueueCensus {
  /// What the metrics tell apart. Names of tenants are no part of it: `/metrics` asks for no key, and there
  /// may be thousands.
  package struct Group: Hashable {
    package let priority: JobPriority
    /// Whether the request came with a key.
    package let isNamed: Bool

    package init(priority: JobPriority, isNamed: Bool) {
      (self.priority, self.isNamed) = (priority, isNamed)
    }

    package static let all = JobPriority.allCases.flatMap { priority in
      [false, true].map { Group(priority: priority, isNamed: $0) }
    }

    /// As labels.
    package var dimensions: [(String, String)] {
      [("priority", priority.rawValue), ("tenant", isNamed ? "named" : "anonymous")]
    }
  }

  private struct Waiting {
    /// The oldest first, some of whom have left.
    var arrivals: Deque<(id: ImageJobID, at: Instant)> = []
    var present: Set<ImageJobID> = []

    /// Those at the front who have left go at once; the others when they are more than those who are there.
    mutating func tidy() {
      while let first = arrivals.first, !present.contains(first.id) { arrivals.removeFirst() }
      if arrivals.count > 2 * present.count + 64 {
        let present = present
        arrivals.removeAll { !present.contains($0.id) }
      }
    }
  }

  private var groups: [Group: Waiting] = [:]

  package init() {}

  /// A job begins to wait.
  package mutating func join(_ id: ImageJobID, _ group: Group, now: Instant) {
    groups[group, default: Waiting()].arrivals.append((id, now))
    groups[group]?.present.insert(id)
  }

  /// A job waits no more.
  package mutating func leave(_ id: ImageJobID, _ group: Group) {
    groups[group]?.present.remove(id)
    groups[group]?.tidy()
  }

  /// Jobs of the group that wait.
  package func count(_ group: Group) -> Int { groups[group]?.present.count ?? 0 }

  /// Entries kept of the group, those of jobs that have left among them.
  package func storedCount(_ group: Group) -> Int { groups[group]?.arrivals.count ?? 0 }

  /// For how long the oldest of the group has waited, in seconds; 0 when none waits.
  package func oldestSeconds(_ group: Group, now: Instant) -> Double {
    groups[group]?.arrivals.first.map { (now - $0.at).seconds } ?? 0
  }
}
