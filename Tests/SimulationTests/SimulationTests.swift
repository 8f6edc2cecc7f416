import Foundation
import Simulation
import Synchronization
import Testing

@Suite("The cluster in virtual time")
struct SimulationTests {
  /// DESIGN.md's promises hold in every seed: no acknowledged job is lost, every job ends once, with the bytes of a run
  /// without faults, stale answers leave no trace, queues and credits are kept, and when the faults end, every job
  /// ends.
  @Test(.timeLimit(.minutes(10))) func promisesHold() async {
    let clock = ContinuousClock()
    let start = clock.now
    let campaign = await Campaign.run(first: 0, count: 3000)
    let speed = campaign.coverage.virtualSeconds / ((clock.now - start) / .seconds(1))
    print(campaign.coverage.line)
    print("\(Int(speed)) times as fast as real time")
    for finding in campaign.findings {
      Issue.record("\(finding.problem); to see it again: Tests/Simulation/run.sh --seed \(finding.seed) --trace")
    }
    expectCoverage(campaign.coverage)
  }

  /// The run is worth something only if the faults really happened.
  private func expectCoverage(_ coverage: Coverage) {
    let expected = [
      "adoptions": 1000, "assistances": 1000, "lost assistants": 100, "answers of closed sessions": 200,
      "client retries": 10_000, "crashes": 1000,
      "disk stalls": 100,
      "drains": 100, "drops": 1000, "drops by partitions": 1000, "duplicates": 1000, "entries refused": 1000,
      "failures": 100,
      "finished": 10_000, "freezes": 500, "full disks": 500, "gateway freezes": 300, "gateway kills": 1000,
      "held ends": 100, "image encodings": 5000, "jobs of several images": 3000,
      "jobs that begin with an image": 5000,
      "jobs refused for lack of space": 500, "lost writes": 100, "model switches": 500, "partitions": 500,
      "quarantines": 50,
      "reorderings": 1000,
      "requests known by their key": 1000, "resets": 300, "restored jobs": 2000, "resumes": 500, "retries": 1000,
      "sick workers": 200, "slow workers": 200, "stale answers": 1000, "stuck steps": 50, "torn writes": 50,
    ]
    for (name, atLeast) in expected { #expect(coverage[name] >= atLeast, "\(name)") }
  }

  /// The same with up to four gateways over one journal, whose owners are stalled, cut off, ended and come back.
  @Test(.timeLimit(.minutes(5))) func promisesHoldWithSeveralGateways() async {
    let campaign = await Campaign.runReplicas(first: 0, count: 400)
    print(campaign.coverage.line)
    for finding in campaign.findings {
      Issue.record(
        "\(finding.problem); to see it again: Tests/Simulation/run.sh --replicas --seed \(finding.seed) --trace")
    }
    let expected = [
      "adopted images": 500, "claims": 400, "claims answered": 60, "crashes": 100, "fenced gateways": 100,
      "finished": 2000, "forwarded cancels": 100, "gateway freezes": 100, "gateway kills": 100, "gateway stops": 50,
      "gateways cut off from the journal": 100, "gateways cut off from workers": 50, "handovers": 50,
      "journal outages": 50, "keys taken by another gateway": 10, "offers without a credit": 100,
      "requests known by their key": 500, "resumes": 100, "takeovers": 100, "worker freezes": 100,
      "writes that had to wait": 1000,
    ]
    for (name, atLeast) in expected { #expect(campaign.coverage[name] >= atLeast, "\(name)") }
  }

  @Test(arguments: ReplicaMutation.allCases) func everyRuleOfSeveralGatewaysIsNeeded(mutation: ReplicaMutation) async {
    let campaign = await Campaign.runReplicas(first: 0, count: 1000, mutation: mutation, maxFindings: 1)
    let first = campaign.findings.first
    print("without \(mutation.rawValue): seed \(first?.seed ?? 0): \(first?.problem ?? "not noticed")")
    #expect(first != nil, "no seed notices that \(mutation.rawValue) is left out")
  }

  @Test(arguments: [3, 17, 99]) func theSameSeedGivesTheSameRun(seed: UInt64) {
    let lines = (0..<2).map { _ in
      let trace = Mutex<[String]>([])
      let simulation = Campaign.world(seed: seed)
      simulation.traceLines { line in trace.withLock { $0.append(line) } }
      simulation.run()
      return trace.withLock { $0 }
    }
    #expect(lines[0].count > 200)
    #expect(lines[0] == lines[1])
  }

  /// Whatever rule is left out, some seed shows it soon.
  @Test(arguments: Mutation.allCases) func everyRuleIsNeeded(mutation: Mutation) async {
    let campaign = await Campaign.run(first: 0, count: 1000, mutation: mutation, maxFindings: 1)
    let first = campaign.findings.first
    print("without \(mutation.rawValue): seed \(first?.seed ?? 0): \(first?.problem ?? "not noticed")")
    #expect(first != nil, "no seed notices that \(mutation.rawValue) is left out")
  }

  /// The switches that leave rules out are for the simulator alone.
  @Test func nothingElseLeavesRulesOut() throws {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    for floor in ["Services", "Shared"] {
      let files = FileManager.default.enumerator(at: root.appending(path: floor), includingPropertiesForKeys: nil)
      for case let file as URL in files ?? .init()
      where file.pathExtension == "swift" && !file.path.contains("Shared/Scheduling/") {
        #expect(try !String(contentsOf: file, encoding: .utf8).contains("omissions"), "\(file.lastPathComponent)")
      }
    }
  }
}
