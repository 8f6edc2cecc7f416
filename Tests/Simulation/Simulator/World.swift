import HeapModule

/// A cluster in one thread and in virtual time; everything follows from the seed. First faults happen; then everything
/// heals, and every job must end. Subclasses say what there is and what happens to it.
class World<Action>: SeededRun {
  var random: SeededGenerator
  /// Virtual milliseconds.
  private(set) final var now = 0
  final var clients: [ToyClient] = []
  final var coverage = Coverage()
  private(set) final var problems: [String] = []
  /// Called with every line of the trace.
  private(set) final var trace: ((String) -> Void)?

  /// How long there are faults.
  private let chaosMs: Int
  private var queue = Heap<Scheduled>()
  private var sequence: UInt64 = 0
  private var quietSince: Int?

  init(random: SeededGenerator, chaosMs: Int) {
    (self.random, self.chaosMs) = (random, chaosMs)
  }

  // MARK: What subclasses say

  /// Schedules what happens first.
  func prepare() { preconditionFailure("a world is prepared by its subclass") }

  func perform(_ action: Action) { preconditionFailure("an action is performed by a subclass") }

  /// Whether everything runs that should once faults have ended.
  var isWhole: Bool { true }

  /// Reports what is left over when all is quiet.
  func checkRest() {}

  // MARK: Time

  /// The time from which on nothing breaks any more is still to come.
  final var isChaos: Bool { now < chaosMs }

  final func schedule(_ action: Action, in delayMs: Int) {
    sequence += 1
    queue.insert(Scheduled(time: now + delayMs, sequence: sequence, action: action))
  }

  final func run(limitSeconds: Int) {
    prepare()
    while problems.isEmpty, let next = queue.popMin() {
      now = next.time
      guard now < chaosMs + limitSeconds * 1000 else {
        let late = clients.filter { !$0.isDone }.map { "\($0.job.key) (\($0.id ?? "no id"))" }
        report("after \(limitSeconds) s without faults these requests have not ended: \(late.joined(separator: ", "))")
        break
      }
      coverage.events += 1
      perform(next.action)
      if isQuiet {
        checkRest()
        break
      }
    }
    coverage.seeds = 1
    coverage.virtualSeconds = Double(now) / 1000
  }

  /// All clients have an answer, and workers and journal have had time to come to rest: as long as the slowest step.
  private var isQuiet: Bool {
    guard !isChaos, clients.allSatisfy(\.isDone), isWhole else {
      quietSince = nil
      return false
    }
    if quietSince == nil { quietSince = now }
    return now - (quietSince ?? now) > 90_000
  }

  private struct Scheduled: Comparable {
    var time: Int
    var sequence: UInt64
    var action: Action

    static func < (left: Scheduled, right: Scheduled) -> Bool {
      (left.time, left.sequence) < (right.time, right.sequence)
    }
    static func == (left: Scheduled, right: Scheduled) -> Bool { left.sequence == right.sequence }
  }

  // MARK: What is noted

  final func count(_ name: String) { coverage.counts[name, default: 0] += 1 }

  final func log(_ text: @autoclosure () -> String) {
    guard let trace else { return }
    let time = String(now + 100_000_000).dropFirst()
    trace("\(time.dropLast(3)).\(time.suffix(3)) \(text())")
  }

  /// A broken promise.
  final func report(_ text: String) {
    log("PROBLEM: \(text)")
    problems.append("at \(now) ms: \(text)")
  }

  final func traceLines(to sink: @escaping (String) -> Void) { trace = sink }
}
