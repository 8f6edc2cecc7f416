/// Many seeds, on all cores.
package struct Campaign: Sendable {
  /// A seed with a broken promise.
  package struct Finding: Sendable {
    package var seed: UInt64
    package var problem: String
  }

  package private(set) var coverage = Coverage()
  /// In the order of the seeds.
  package private(set) var findings: [Finding] = []

  /// Runs `count` seeds from `first` on; stops early after `maxFindings` of them have failed.
  package static func run(
    first: UInt64, count: Int, mutation: Mutation? = nil, maxFindings: Int = 10, chunk: Int = 25,
    progress: @Sendable (Int) -> Void = { _ in }
  ) async -> Campaign {
    await withTaskGroup(of: Campaign.self) { group in
      var total = Campaign()
      var next = 0
      func add() {
        guard next < count else { return }
        let seeds = (first + UInt64(next))..<(first + UInt64(min(count, next + chunk)))
        next += chunk
        group.addTask { runBlock(seeds, mutation) }
      }
      for _ in 0..<8 { add() }
      for await part in group {
        total.coverage.add(part.coverage)
        total.findings += part.findings
        progress(total.coverage.seeds)
        if total.findings.count < maxFindings { add() }
      }
      total.findings.sort { $0.seed < $1.seed }
      return total
    }
  }

  private static func runBlock(_ seeds: Range<UInt64>, _ mutation: Mutation?) -> Campaign {
    var part = Campaign()
    for seed in seeds {
      let simulation = Simulation(seed: seed, mutation: mutation)
      simulation.run()
      part.coverage.add(simulation.coverage)
      if let problem = simulation.problems.first { part.findings.append(Finding(seed: seed, problem: problem)) }
    }
    return part
  }
}
