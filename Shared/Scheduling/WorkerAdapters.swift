/// The adapters that a worker can put beside its weights, by the digests of their contents.
public struct WorkerAdapters: Hashable, Sendable {
  /// All that it can.
  public var served: Set<String>
  /// Those of them that it has in memory.
  public var loaded: Set<String>

  /// See the properties.
  public init(served: Set<String> = [], loaded: Set<String> = []) {
    self.served = served
    self.loaded = loaded
  }
}

extension WorkerSession {
  /// Whether it may be offered the task: it is a worker for it, and has its adapters.
  func takes(_ task: ImageTask, ofAnyModel: Bool = false) -> Bool {
    registration.serves(task, ofAnyModel: ofAnyModel) && adapters.served.isSuperset(of: task.plan.adapters)
  }

  /// How good a choice it is for a task that it takes: the number of its free credits. One that has the task's adapters
  /// in memory counts as having another one: it is preferred to others that are as free, but work does not pile up
  /// there.
  func preference(for task: ImageTask, freeCredits: Int) -> Int {
    let isLoaded = !task.plan.adapters.isEmpty && adapters.loaded.isSuperset(of: task.plan.adapters)
    return 2 * freeCredits + (isLoaded ? 3 : 0)
  }
}

extension Scheduler {
  /// Whether no worker that is there has the task's adapters.
  func lacksAdapters(_ task: ImageTask) -> Bool {
    !task.plan.adapters.isEmpty && !workers.values.contains { $0.takes(task) }
  }
}
