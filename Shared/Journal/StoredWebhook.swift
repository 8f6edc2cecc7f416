/// What is notified of a job.
public struct StoredWebhook: Hashable, Sendable {
  /// Where notifications are sent.
  public var url: String
  /// The host of the address.
  public var host: String
  /// With what they are signed, as the receiver has it; nil: they are not signed.
  public var secret: String?
  /// The events that are notified of.
  public var events: [String]

  /// See the properties.
  public init(url: String, host: String, secret: String? = nil, events: [String]) {
    self.url = url
    self.host = host
    self.secret = secret
    self.events = events
  }
}

/// Names of the events that the journal itself makes, with the end of a job.
extension StoredState {
  /// nil: none.
  public var event: String? {
    switch self {
    case .open: nil
    case .succeeded: "job.completed"
    case .failed: "job.failed"
    case .cancelled: "job.cancelled"
    }
  }
}

/// One event to notify of, and what came of the attempts.
public struct StoredDelivery: Hashable, Sendable {
  /// Whether more attempts will be made.
  public enum State: Int, Sendable {
    /// There will be an attempt.
    case pending = 0
    /// The receiver has it.
    case delivered = 1
    /// It took too long, or the receiver wants none.
    case abandoned = 2
  }
  /// Never used twice.
  public var number: Int64
  /// The job's name.
  public var job: String
  /// Place of the job's webhook, from 0.
  public var position: Int
  /// What happened.
  public var event: String
  /// Of the job's steps; 0 for events that are not about progress.
  public var percent: Int
  /// When it happened, in milliseconds since 1970.
  public var createdAtMs: Int64
  /// Whether it is still to be made.
  public var state = State.pending
  /// Attempts that have ended.
  public var attempts = 0
  /// When the last one ended, in milliseconds since 1970.
  public var lastAttemptAtMs: Int64?
  /// HTTP status of the last attempt, if there was an answer.
  public var lastStatus: Int?
  /// Why the last attempt has failed.
  public var lastError: String?
  /// When the next one is due, in milliseconds since 1970.
  public var nextAttemptAtMs: Int64?

  /// One that no attempt was made at yet.
  public init(number: Int64, job: String, position: Int, event: String, percent: Int, createdAtMs: Int64) {
    (self.number, self.job, self.position) = (number, job, position)
    (self.event, self.percent, self.createdAtMs) = (event, percent, createdAtMs)
  }

  /// Names the event for its receiver: the same for every attempt. Without a full stop, which separates what is signed.
  public var messageID: String {
    let event = event.split(separator: ".").last ?? ""
    return "\(job)-\(position)-\(event)" + (percent > 0 ? "-\(percent)" : "")
  }
}

/// What has become of an attempt to deliver.
public struct DeliveryAttempt: Hashable, Sendable {
  /// The delivery.
  public var delivery: Int64
  /// When it ended, in milliseconds since 1970.
  public var atMs: Int64
  /// HTTP status, if there was an answer.
  public var status: Int?
  /// Why it has failed; nil: it has not.
  public var error: String?
  /// When to try again, in milliseconds since 1970; nil: never.
  public var nextAtMs: Int64?

  /// See the properties.
  public init(delivery: Int64, atMs: Int64, status: Int? = nil, error: String? = nil, nextAtMs: Int64? = nil) {
    self.delivery = delivery
    self.atMs = atMs
    self.status = status
    self.error = error
    self.nextAtMs = nextAtMs
  }
}

/// A delivery that is due, with everything that an attempt needs.
public struct DueDelivery: Hashable, Sendable {
  /// The event.
  public var delivery: StoredDelivery
  /// Whose job it is about.
  public var tenant: String
  /// Where it goes.
  public var webhook: StoredWebhook

  /// See the properties.
  public init(delivery: StoredDelivery, tenant: String, webhook: StoredWebhook) {
    (self.delivery, self.tenant, self.webhook) = (delivery, tenant, webhook)
  }
}
