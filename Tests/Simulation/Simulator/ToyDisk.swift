import ClusterCore
import OrderedCollections
import Scheduling

/// An entry as the toy journal writes it.
enum LogRecord {
  /// With the images that the jobs begin with.
  case admitted([ToyImage], inputs: Set<UInt64>)
  case attempt(AttemptID, places: [TaskID])
  case output(places: [TaskID], UInt64, String)
  case checkpoint(places: [TaskID], completedSteps: Int, UInt64, String)
  case finished(ImageJobID, UInt64)
  case failed(ImageJobID, Status)
  /// Written in part when the power went; its checksum is wrong.
  case torn
}

/// What survives the gateway: records that were synced. Those that were only written may be gone after a crash.
struct ToyDisk {
  private(set) var log: [LogRecord] = []
  /// Written, not synced.
  private(set) var unsynced: [LogRecord] = []
  /// How often the gateway started.
  var runs = 0

  mutating func write(_ records: [LogRecord]) { unsynced += records }

  mutating func sync() {
    log += unsynced
    unsynced = []
  }

  /// Of what was not synced a part may be there, and the first record that is not may be torn.
  mutating func crash(surviving count: Int, isTorn: Bool) {
    log += unsynced.prefix(count)
    if isTorn, count < unsynced.count { log.append(.torn) }
    unsynced = []
  }

  /// Drops what was torn, as its checksum tells.
  mutating func repair() {
    log.removeAll { if case .torn = $0 { true } else { false } }
  }
}

/// What the log says.
struct ToyDatabase {
  struct Entry {
    var image: ToyImage
    /// By the task's place in the plan.
    var tasks: [Int: Task] = [:]
    var outcome: Outcome?
  }

  struct Task {
    var attemptNumber: UInt32 = 0
    var output: (value: UInt64, numericsClass: String)?
    var checkpoint: (completedSteps: Int, latents: UInt64, numericsClass: String)?
  }

  /// In the order of admission.
  private(set) var jobs: OrderedDictionary<ImageJobID, Entry> = [:]
  /// The images that jobs begin with.
  private(set) var inputs: Set<UInt64> = []
  /// See ``Mutation/inputRelease``.
  private let releasesEarly: Bool

  init(_ log: [LogRecord], releasesEarly: Bool) {
    self.releasesEarly = releasesEarly
    for record in log { take(record) }
  }

  /// The images that jobs which have not ended begin with.
  var neededInputs: Set<UInt64> {
    let ended = releasesEarly ? Set(jobs.values.filter { $0.outcome != nil }.map(\.image.name)) : []
    return Set(
      jobs.values.filter { $0.outcome == nil && !ended.contains($0.image.name) }.compactMap(\.image.job.input))
  }

  private mutating func take(_ record: LogRecord) {
    switch record {
    case .admitted(let images, let inputs):
      for image in images { jobs[image.id] = Entry(image: image) }
      self.inputs.formUnion(inputs)
    case .attempt(let attempt, let places):
      for place in places { jobs[place.job]?.tasks[place.index, default: Task()].attemptNumber = attempt.number }
    case .output(let places, let value, let numericsClass):
      for place in places {
        jobs[place.job]?.tasks[place.index, default: Task()].output = (value, numericsClass)
        jobs[place.job]?.tasks[place.index]?.checkpoint = nil
        forgetInputs(of: place.job)
      }
    case .checkpoint(let places, let steps, let latents, let numericsClass):
      for place in places {
        jobs[place.job]?.tasks[place.index, default: Task()].checkpoint = (steps, latents, numericsClass)
      }
    case .finished(let id, let image): end(id, .finished(image))
    case .failed(let id, let failure): end(id, .failed(failure))
    case .torn: break
    }
  }

  private mutating func end(_ id: ImageJobID, _ outcome: Outcome) {
    jobs[id]?.outcome = outcome
    jobs[id]?.tasks = [:]
    inputs.formIntersection(neededInputs)
  }

  /// Outputs that no task of the job takes any more.
  private mutating func forgetInputs(of id: ImageJobID) {
    guard let entry = jobs[id] else { return }
    let plan = entry.image.plan
    for index in plan.tasks.indices.dropLast() {
      let takers = plan.tasks.indices.filter { plan.tasks[$0].inputs.contains(index) }
      if takers.allSatisfy({ entry.tasks[$0]?.output != nil }) { jobs[id]?.tasks[index]?.output = nil }
    }
  }
}
