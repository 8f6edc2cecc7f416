import ClusterCore
import Foundation

/// A tensor or image with its description; the bytes are guarded by a checksum.
public struct StoredPayload: Hashable, Sendable {
  /// Never used for two payloads of one journal.
  public var id: UInt64
  /// The tensor's role.
  public var name: String
  /// The number of its element type.
  public var dtype: Int32
  /// Its dimensions, outermost first.
  public var shape: [Int]
  /// Its elements; empty while they are in an object.
  public var bytes: Data
  /// Where its elements are; nil: in ``bytes``.
  public var object: StoredObject?

  /// See the properties.
  public init(id: UInt64, name: String, dtype: Int32, shape: [Int], bytes: Data, object: StoredObject? = nil) {
    self.id = id
    self.name = name
    self.dtype = dtype
    self.shape = shape
    self.bytes = bytes
    self.object = object
  }

  /// The size of its elements, wherever they are.
  public var byteCount: Int { object?.byteCount ?? bytes.count }
}

/// Makes a repeated request the same request.
public struct IdempotencyKey: Hashable, Sendable {
  /// As the client chose it; unique for one tenant.
  public var text: String
  /// Hash of what was asked for under it.
  public var digest: Data

  /// A key for the request with this hash.
  public init(text: String, digest: Data) {
    self.text = text
    self.digest = digest
  }
}

/// An image that a request begins with, by its content.
public struct StoredInput: Hashable, Sendable {
  /// Identifies the content.
  public var digest: String
  /// Its pixels; empty while they are in an object.
  public var bytes: Data
  /// Where its pixels are; nil: in ``bytes``.
  public var object: StoredObject?

  /// See the properties.
  public init(digest: String, bytes: Data, object: StoredObject? = nil) {
    self.digest = digest
    self.bytes = bytes
    self.object = object
  }

  /// The size of its pixels, wherever they are.
  public var byteCount: Int { object?.byteCount ?? bytes.count }
}

/// A job as it was accepted.
public struct StoredJob: Hashable, Sendable {
  /// Never used before.
  public var id: String
  /// Whose it is.
  public var tenant: String
  /// Wall clock, in milliseconds since 1970.
  public var submittedAtMs: Int64
  /// When the job fails if it is not done, in milliseconds since 1970; nil: never.
  public var deadlineAtMs: Int64?
  /// What was asked for, encoded by the gateway.
  public var request: Data
  /// Images that it makes, numbered from 0.
  public var imageCount: Int
  /// The key under which it was sent.
  public var key: IdempotencyKey?
  /// The model that makes the images.
  public var model: String
  /// Words by which lists find it. Not read back: the request has them.
  public var tags: [String]
  /// What is notified of it. Read back for jobs that have not ended only.
  public var webhooks: [StoredWebhook] = []
  /// The images that it begins with, once each. Read back for jobs that have not ended only.
  public var inputs: [StoredInput]

  /// See the properties.
  public init(
    id: String, tenant: String, submittedAtMs: Int64, deadlineAtMs: Int64? = nil, request: Data, imageCount: Int,
    key: IdempotencyKey? = nil, model: String = "", tags: [String] = [], inputs: [StoredInput] = []
  ) {
    self.id = id
    self.tenant = tenant
    self.submittedAtMs = submittedAtMs
    self.deadlineAtMs = deadlineAtMs
    self.request = request
    self.imageCount = imageCount
    self.key = key
    self.model = model
    self.tags = tags
    self.inputs = inputs
  }
}

/// One image of a job.
public struct ImageReference: Hashable, Sendable {
  /// The job.
  public var job: String
  /// Its place in the job, from 0.
  public var index: Int

  /// Image number `index` of `job`.
  public init(job: String, index: Int) {
    self.job = job
    self.index = index
  }
}

/// How far a task of an image has got.
public struct StoredProgress: Hashable, Sendable {
  /// The task's place in the image's plan.
  public var task: Int
  /// Steps done; nil: the task is done and the payload is its output.
  public var completedSteps: Int?
  /// The output, or the state after those steps.
  public var payload: StoredPayload
  /// The kind of arithmetic that made it.
  public var numericsClass: String

  /// See the properties.
  public init(task: Int, completedSteps: Int?, payload: StoredPayload, numericsClass: String) {
    self.task = task
    self.completedSteps = completedSteps
    self.payload = payload
    self.numericsClass = numericsClass
  }
}

/// One change of the journal.
public enum JournalChange: Hashable, Sendable {
  /// A job is accepted.
  case admit(StoredJob)
  /// A task's attempt is handed to a worker; its number takes the place of the one before.
  case attempt(ImageReference, task: Int, number: UInt32)
  /// A task is done, or has a new checkpoint, which takes the place of the earlier ones.
  case progress(ImageReference, StoredProgress)
  /// An image is done. What led to it is not kept.
  case finish(ImageReference, result: StoredPayload, promptTokens: Int, atMs: Int64)
  /// An image will never be done.
  case fail(ImageReference, Status, atMs: Int64)
  /// Something happened to an open job that its webhooks may want to know; its end is announced without this.
  case announce(job: String, event: String, percent: Int, atMs: Int64)
  /// An attempt to deliver has ended.
  case attempted(DeliveryAttempt)
}

/// How an image ended, if it has.
public enum StoredOutcome: Hashable, Sendable {
  /// It is still to be made.
  case open
  /// Its result is there.
  case finished(byteCount: Int, promptTokens: Int)
  /// There is none.
  case failed(Status)
}

/// A job with what has become of it.
public struct StoredRecord: Hashable, Sendable {
  /// Its place in the order of admission.
  public var number: Int64
  /// As it was accepted.
  public var job: StoredJob
  /// For each image.
  public var outcomes: [StoredOutcome]
  /// When its last image ended, in milliseconds since 1970.
  public var endedAtMs: Int64?

  /// See the properties.
  public init(number: Int64, job: StoredJob, outcomes: [StoredOutcome], endedAtMs: Int64?) {
    (self.number, self.job, self.outcomes, self.endedAtMs) = (number, job, outcomes, endedAtMs)
  }
}

/// An image that is still to be made.
public struct OpenImage: Hashable, Sendable {
  /// Which one.
  public var reference: ImageReference
  /// What need not be done again.
  public var progress: [StoredProgress]
  /// Number of each task's last attempt.
  public var attempts: [Int: UInt32]

  /// See the properties.
  public init(reference: ImageReference, progress: [StoredProgress], attempts: [Int: UInt32]) {
    (self.reference, self.progress, self.attempts) = (reference, progress, attempts)
  }
}

/// An open job whose own rows are not those that were written.
public struct DamagedJob: Hashable, Sendable {
  /// Its place in the order of admission.
  public let number: Int64
  /// What is wrong, for people.
  public let damage: String

  /// See the properties.
  public init(number: Int64, damage: String) {
    self.number = number
    self.damage = damage
  }
}

/// How much is kept, and for how long.
public struct JournalLimits: Hashable, Sendable {
  /// The most that the database file, and objects in files, may take; 0: as much as there is.
  public var maxBytes: Int64 = 0
  /// Set aside, on the disk and within `maxBytes`, so that jobs which run can end; none is admitted while that cannot
  /// be done.
  public var reserveBytes: Int64 = 64 << 20
  /// Jobs that ended longer ago than this are forgotten, with their results and keys.
  public var retentionSeconds: Int64 = 7 * 24 * 3600
  /// Results together; the oldest jobs are forgotten first.
  public var retentionBytes: Int64 = 10 << 30

  /// The defaults.
  public init() {}
}

/// Bounds of single values.
package enum ValueLimits {
  package static let maxRequestBytes = 4 << 20
  package static let maxPayloadBytes = 900 << 20
  package static let maxNameBytes = 256
  package static let maxMessageBytes = 16 << 10
  package static let maxRank = 8
  package static let maxImages = 1000
  package static let maxInputs = 64
  package static let maxTags = 16
  package static let maxWebhooks = 4
  package static let maxURLBytes = 4096
  package static let maxTasks = 64
  package static let maxSteps = 1_000_000
}
