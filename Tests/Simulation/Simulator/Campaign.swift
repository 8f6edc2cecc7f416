/// One run of a world, which follows from its seed.
package protocol SeededRun: AnyObject {
  var coverage: Coverage { get }
  /// What must not be and was, with the time.
  var problems: [String] { get }
  /// Runs until all is quiet, the first problem is found, or the time without faults is up.
  func run(limitSeconds: Int)
  /// Calls `sink` with every line of the trace.
  func traceLines(to sink: @escaping (String) -> Void)
}

extension SeededRun {
  /// With an hour of virtual time.
  package func run() { run(limitSeconds: 3600) }
}

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

  /// Runs `count` seeds of a cluster with one gateway from `first` on; stops early after `maxFindings` of them have
  /// failed.
  package static func run(
    first: UInt64, count: Int, mutation: Mutation? = nil, maxFindings: Int = 10,
    progress: @Sendable (Int) -> Void = { _ in }
  ) async -> Campaign {
    await run(first: first, count: count, maxFindings: maxFindings, progress: progress) {
      world(seed: $0, mutation: mutation)
    }
  }

  /// A seed's cluster with one gateway.
  package static func world(seed: UInt64, mutation: Mutation? = nil) -> any SeededRun {
    Simulation(seed: seed, mutation: mutation)
  }

  /// The same with several gateways.
  package static func runReplicas(
    first: UInt64, count: Int, mutation: ReplicaMutation? = nil, maxFindings: Int = 10,
    progress: @Sendable (Int) -> Void = { _ in }
  ) async -> Campaign {
    await run(first: first, count: count, maxFindings: maxFindings, progress: progress) {
      replicaWorld(seed: $0, mutation: mutation)
    }
  }

  /// A seed's cluster with several gateways.
  package static func replicaWorld(seed: UInt64, mutation: ReplicaMutation? = nil) -> any SeededRun {
    ReplicaSimulation(seed: seed, mutation: mutation)
  }

  private static func run(
    first: UInt64, count: Int, maxFindings: Int, chunk: Int = 25, progress: @Sendable (Int) -> Void,
    world: @escaping @Sendable (UInt64) -> any SeededRun
  ) async -> Campaign {
    await withTaskGroup(of: Campaign.self) { group in
      var total = Campaign()
      var next = 0
      func add() {
        guard next < count else { return }
        let seeds = (first + UInt64(next))..<(first + UInt64(min(count, next + chunk)))
        next += chunk
        group.addTask { runBlock(seeds, world) }
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

  private static func runBlock(_ seeds: Range<UInt64>, _ world: (UInt64) -> any SeededRun) -> Campaign {
    var part = Campaign()
    for seed in seeds {
      let simulation = world(seed)
      simulation.run()
      part.coverage.add(simulation.coverage)
      if let problem = simulation.problems.first { part.findings.append(Finding(seed: seed, problem: problem)) }
    }
    return part
  }
}
