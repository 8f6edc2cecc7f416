import Foundation
import Simulation

let usage = """
  simulate [--replicas] [--seeds N] [--first S] [--mutation NAME]   many seeds
  simulate [--replicas] --seed S [--trace] [--mutation NAME]        one seed again, with every event and effect
  simulate --load JOBS [--workers N] [--answers N]                  times of the scheduler's events

  --replicas: several gateways share a journal.
  Mutations, rules to leave out: \(Mutation.allCases.map(\.rawValue).joined(separator: " "));
  with --replicas: \(ReplicaMutation.allCases.map(\.rawValue).joined(separator: " "))
  """

var seeds = 2000
var first: UInt64 = 0
var single: UInt64?
var isTraced = false
var mutation: String?
var hasReplicas = false
var loadJobs: Int?
var loadWorkers = 2000
var loadAnswers = 5000

func fail(_ message: String) -> Never {
  FileHandle.standardError.write(Data((message + "\n").utf8))
  exit(64)
}

var arguments = CommandLine.arguments.dropFirst()
@MainActor func value<T>(_ option: String, _ convert: (String) -> T?) -> T {
  guard let text = arguments.popFirst() else { fail("\(option) needs a value, see Tests/Simulation/README.md") }
  guard let value = convert(text) else { fail("\(option) cannot be \"\(text)\", see Tests/Simulation/README.md") }
  return value
}
while let option = arguments.popFirst() {
  switch option {
  case "--seeds": seeds = value(option) { Int($0).flatMap { $0 > 0 ? $0 : nil } }
  case "--first": first = value(option) { UInt64($0) }
  case "--seed": single = value(option) { UInt64($0) }
  case "--mutation": mutation = value(option) { $0 }
  case "--replicas": hasReplicas = true
  case "--load": loadJobs = value(option) { Int($0).flatMap { $0 > 0 ? $0 : nil } }
  case "--workers": loadWorkers = value(option) { Int($0).flatMap { $0 > 0 ? $0 : nil } }
  case "--answers": loadAnswers = value(option) { Int($0).flatMap { $0 > 0 ? $0 : nil } }
  case "--trace": isTraced = true
  case "-h", "--help":
    print(usage)
    exit(0)
  default:
    fail(
      "unknown option \(option); there are --replicas, --load, --workers, --answers, --seeds, --first, --seed, "
        + "--mutation, --trace"
    )
  }
}
let clusterMutation = mutation.flatMap { Mutation(rawValue: $0) }
let replicaMutation = mutation.flatMap { ReplicaMutation(rawValue: $0) }
if let mutation, hasReplicas ? replicaMutation == nil : clusterMutation == nil {
  fail("there is no mutation \(mutation), see Tests/Simulation/README.md")
}

if let loadJobs {
  func residentKilobytes() -> Int {
    let fields = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8))?.split(separator: " ") ?? []
    return fields.count > 1 ? (Int(fields[1]) ?? 0) * 4 : 0
  }
  let before = residentKilobytes()
  var load = SchedulerLoad(workers: loadWorkers, jobs: loadJobs)
  let held = residentKilobytes() - before
  print(
    "\(loadJobs) jobs taken in within \(String(format: "%.2f", load.recoverySeconds)) s, with \(loadWorkers) workers "
      + "\(held * 1024 / loadJobs) bytes for each job")
  load.answer(loadAnswers)
  for line in load.lines { print(line) }
  exit(0)
}

if let single {
  let simulation: any SeededRun =
    hasReplicas
    ? Campaign.replicaWorld(seed: single, mutation: replicaMutation)
    : Campaign.world(seed: single, mutation: clusterMutation)
  if isTraced { simulation.traceLines { print($0) } }
  simulation.run()
  print(simulation.coverage.line)
  for problem in simulation.problems { print("seed \(single): \(problem)") }
  exit(simulation.problems.isEmpty ? 0 : 1)
}

let clock = ContinuousClock()
let start = clock.now
let progress: @Sendable (Int) -> Void = { done in
  if done.isMultiple(of: 5000) { FileHandle.standardError.write(Data("\(done) seeds\n".utf8)) }
}
let campaign =
  hasReplicas
  ? await Campaign.runReplicas(first: first, count: seeds, mutation: replicaMutation, progress: progress)
  : await Campaign.run(first: first, count: seeds, mutation: clusterMutation, progress: progress)
let realSeconds = (clock.now - start) / .seconds(1)
print(campaign.coverage.line)
let speed = Int(campaign.coverage.virtualSeconds / realSeconds)
print("\(String(format: "%.1f", realSeconds)) s, \(speed) times as fast as real time")
for finding in campaign.findings { print("seed \(finding.seed): \(finding.problem)") }
if let worst = campaign.findings.first {
  print("to see it again: Tests/Simulation/run.sh \(hasReplicas ? "--replicas " : "")--seed \(worst.seed) --trace")
}
exit(campaign.findings.isEmpty ? 0 : 1)
