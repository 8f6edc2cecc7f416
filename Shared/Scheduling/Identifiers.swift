/// Names a job. The caller that submits it chooses the name, and never uses one twice.
public struct ImageJobID: Hashable, Sendable, CustomStringConvertible {
  /// What the wire and the HTTP API show.
  public let text: String

  /// The job named `text`.
  public init(_ text: String) {
    self.text = text
  }

  /// For logs and messages.
  public var description: String { text }
}

/// Names one task of a job's plan. A task that several jobs share keeps the name that its first job gave it.
public struct TaskID: Hashable, Sendable, CustomStringConvertible {
  /// The job that brought the task.
  public let job: ImageJobID
  /// The task's place in that job's plan.
  public let index: Int

  /// Task number `index` of `job`'s plan.
  public init(job: ImageJobID, index: Int) {
    self.job = job
    self.index = index
  }

  /// For logs and messages.
  public var description: String { "\(job)/\(index)" }
}

/// Names one attempt at a task, or the assistance of another worker with it. Numbers grow from 1 and are never used
/// again: they fence late answers off.
public struct AttemptID: Hashable, Sendable, CustomStringConvertible {
  /// The task that is attempted.
  public let task: TaskID
  /// From 1.
  public let number: UInt32
  /// 0: the attempt itself; from 1: the assistance of another worker with it.
  public let assistance: UInt64

  /// Attempt `number` at `task`.
  public init(task: TaskID, number: UInt32, assistance: UInt64 = 0) {
    self.task = task
    self.number = number
    self.assistance = assistance
  }

  /// The attempt that is assisted, or the attempt itself.
  var main: AttemptID { AttemptID(task: task, number: number) }

  /// For logs and messages.
  public var description: String { "\(task)#\(number)" + (assistance == 0 ? "" : ", assistance \(assistance)") }
}

/// Names one session of a worker: a worker that registers again gets another.
public struct WorkerID: Hashable, Sendable, CustomStringConvertible {
  /// Never used twice by one run of the state machine.
  public let number: UInt64

  /// Session `number`.
  public init(_ number: UInt64) {
    self.number = number
  }

  /// For logs and messages.
  public var description: String { "session \(number)" }
}

/// A tensor or image that the state machine passes on without looking inside. Its caller keeps the bytes.
public struct Payload: Hashable, Sendable {
  /// Never used for two payloads.
  public let id: UInt64
  /// Counts towards the bounds of caches.
  public let byteCount: Int

  /// The payload kept under `id`.
  public init(id: UInt64, byteCount: Int) {
    self.id = id
    self.byteCount = byteCount
  }
}
