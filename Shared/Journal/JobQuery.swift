/// What has become of a job, as far as the journal knows.
public enum StoredState: Int, CaseIterable, Sendable {
  /// Some of its images have not ended.
  case open = 0
  /// All images are done.
  case succeeded = 1
  /// An image has failed.
  case failed = 2
  /// None has failed, and one was cancelled.
  case cancelled = 3
}

/// A place in a list of jobs: behind a job, also when that one is not kept any more.
public struct JobCursor: Hashable, Sendable {
  /// The job.
  public var job: String
  /// When it was submitted; nil: as the journal has it.
  public var submittedAtMs: Int64?

  /// The place behind `job`.
  public init(job: String, submittedAtMs: Int64? = nil) {
    self.job = job
    self.submittedAtMs = submittedAtMs
  }
}

/// Which of a tenant's jobs are asked for: those that fulfil everything.
public struct JobQuery: Hashable, Sendable {
  /// In one of these states; all: in any.
  public var states = Set(StoredState.allCases)
  /// Of this model; nil: of any.
  public var model: String?
  /// With all of these tags.
  public var tags: [String] = []
  /// Submitted at these times, in milliseconds since 1970.
  public var submittedMs: ClosedRange<Int64> = 0...(1 << 53)
  /// Whether the oldest come first.
  public var isAscending = false
  /// Behind this place; nil: from the beginning.
  public var after: JobCursor?
  /// At most so many, at least 1.
  public var limit = 20

  /// All jobs, the newest first.
  public init() {}
}

/// A part of a list of jobs.
public struct JobPage: Hashable, Sendable {
  /// In the order of the query, without those whose rows are damaged.
  public var records: [StoredRecord]
  /// Where the rest begins; nil: there is none. The rest may turn out to be empty: a page ends, even without a record,
  /// when as many jobs were looked at as one query may look at.
  public var next: JobCursor?

  /// See the properties.
  public init(records: [StoredRecord], next: JobCursor? = nil) {
    (self.records, self.next) = (records, next)
  }
}
