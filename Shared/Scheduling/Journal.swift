import ClusterCore

/// The place of an entry in the journal of one run of the state machine: from 1, without gaps.
public struct JournalSequence: Comparable, Hashable, Sendable, CustomStringConvertible {
  /// From 1.
  public let number: UInt64

  /// Place `number`.
  public init(_ number: UInt64) {
    self.number = number
  }

  /// Whether the left one was written before the right one.
  public static func < (left: JournalSequence, right: JournalSequence) -> Bool { left.number < right.number }
  /// For logs and messages.
  public var description: String { "entry \(number)" }
}

/// What must outlive the process. The bytes of payloads are to be read when the entry is handed over: their release may
/// follow at once.
///
/// What becomes unneeded: a task's checkpoint by its output, an output by the outputs of all tasks of the job that take
/// it, and everything but the admission by the job's end.
public enum JournalEntry: Hashable, Sendable {
  /// Jobs that are admitted together or not at all, in the order of service.
  case imagesAdmitted([ImageJobSubmission])
  /// An attempt is offered to a worker. Nothing waits for this entry: with it, a restarted gateway can adopt the
  /// attempt.
  case attemptStarted(AttemptID, places: [TaskID])
  /// A task's output, in the plans of all jobs that wait for it. Several entries may bring the same payload.
  case taskFinished(places: [TaskID], output: Payload, numericsClass: String)
  /// The state after a step of a task, in the plans of all jobs that wait for it; it replaces the one before.
  case checkpointed(places: [TaskID], Checkpoint, numericsClass: String)
  /// The job's end; clients are notified once this is durable.
  case imageFinished(ImageJobID, output: Payload)
  /// The job's end; clients are notified once this is durable. Also the end of a job that is cancelled.
  case imageFailed(ImageJobID, Status)
}

/// What the journal knows of a task of an unfinished job.
public struct RestoredTask: Hashable, Sendable {
  /// The task's place in the job's plan.
  public var index: Int
  /// Number of the last attempt that the journal knows; 0: of none.
  public var attemptNumber: UInt32
  /// The output, if the task is done.
  public var output: Payload?
  /// Where to resume, if it is not.
  public var checkpoint: Checkpoint?
  /// Of the worker that gave the output or the checkpoint; without one neither is used.
  public var numericsClass: String?

  /// What is known of task `index`.
  public init(
    index: Int, attemptNumber: UInt32 = 0, output: Payload? = nil, checkpoint: Checkpoint? = nil,
    numericsClass: String? = nil
  ) {
    self.index = index
    self.attemptNumber = attemptNumber
    self.output = output
    self.checkpoint = checkpoint
    self.numericsClass = numericsClass
  }
}

/// A job that an earlier run of the gateway admitted and did not finish.
public struct RestoredImageJob: Hashable, Sendable {
  /// As it was admitted; the deadline is on this run's clock.
  public var submission: ImageJobSubmission
  /// Tasks of which something is known, in any order.
  public var tasks: [RestoredTask]

  /// An unfinished job.
  public init(submission: ImageJobSubmission, tasks: [RestoredTask] = []) {
    self.submission = submission
    self.tasks = tasks
  }

  /// Every payload, the same one as often as it occurs.
  var payloads: [Payload] { tasks.flatMap { [$0.output, $0.checkpoint?.latents].compactMap { $0 } } }
}
