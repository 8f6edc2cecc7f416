import Scheduling
import Testing

@Suite("Random clusters with faults")
struct RandomClusterTests {
  /// Whatever happens, every admitted job ends once; pictures equal those of a run without faults; once the faults stop, all end.
  @Test(arguments: 0..<8) func everyJobEndsOnceAndRight(block: Int) {
    var finished = 0
    var totals = (offers: 0, drops: 0, crashes: 0, freezes: 0, failures: 0, resumed: 0)
    for seed in UInt64(block * 25)..<UInt64(block * 25 + 25) {
      var cluster = RandomCluster(seed: seed)
      cluster.run()
      #expect(cluster.problems.prefix(3) == [], "seed \(seed)")
      for (id, event) in cluster.terminal {
        guard let job = cluster.jobs[id] else { continue }
        switch event {
        case .finished: finished += 1
        case .failed(let failure):
          let isExpected =
            switch failure.code {
            case .cancelled: cluster.cancelled.contains(id)
            case .invalidArgument: job.isBad
            case .deadlineExceeded: job.deadline != nil
            default: failure.message.contains("4 times in a row")
            }
          #expect(isExpected, "seed \(seed), job \(id): \(failure)")
        default: Issue.record("seed \(seed), job \(id): \(event) is not an end")
        }
      }
      totals.offers += cluster.counts.offers
      totals.drops += cluster.counts.drops
      totals.crashes += cluster.counts.crashes
      totals.freezes += cluster.counts.freezes
      totals.failures += cluster.counts.failures
      totals.resumed += cluster.counts.resumed
    }
    // The run is worth something only if the faults really happened.
    #expect(finished > 250)
    #expect(totals.drops > 100 && totals.crashes > 100 && totals.freezes > 100 && totals.failures > 50 && totals.resumed > 50, "\(totals)")
  }

  @Test func theSameSeedGivesTheSameEffects() {
    var first = RandomCluster(seed: 7)
    var second = RandomCluster(seed: 7)
    first.run()
    second.run()
    #expect(first.trace.count > 500)
    #expect(first.trace == second.trace)
  }
}
