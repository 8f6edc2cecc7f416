import Foundation
import GatewayAPI
import Journal

/// What webhooks are notified of.
public enum WebhookEvent: String, CaseIterable, Sendable {
  /// A denoiser has begun with the first image.
  case started = "job.started"
  /// A quarter, half or three quarters of the steps are done.
  case progress = "job.progress"
  /// All images are there.
  case completed = "job.completed"
  /// An image has failed.
  case failed = "job.failed"
  /// The job was cancelled.
  case cancelled = "job.cancelled"

  /// The ends of a job.
  public static let ends: [WebhookEvent] = [.completed, .failed, .cancelled]
}

/// Where a client wants to be notified of its job.
public struct WebhookRequest: Hashable, Sendable {
  /// The longest address, in bytes.
  public static let maxURLBytes = 2048

  /// As it was sent; the server has yet to say whether it notifies there.
  public var url: String
  /// What notifications are signed with; nil: not said.
  public var secret: String?
  /// In the order of ``WebhookEvent``.
  public var events: [WebhookEvent]

  /// See the properties.
  public init(url: String, secret: String? = nil, events: [WebhookEvent] = WebhookEvent.ends) {
    self.url = url
    self.secret = secret
    self.events = events
  }

  /// Reads the members of the field `webhook`.
  init(_ fields: inout FieldReader) throws(APIError) {
    guard let url = try fields.nonEmptyString("url", maxBytes: Self.maxURLBytes) else {
      throw APIError(.missingField, "url is missing", param: "url")
    }
    self.url = url
    secret = try fields.nonEmptyString("secret", maxBytes: 128)
    if let secret, WebhookSecret.key(secret) == nil {
      throw APIError(.invalidValue, "secret must be \(WebhookSecret.form)", param: "secret")
    }
    let names = try fields.strings("events", maxCount: WebhookEvent.allCases.count, length: 1...64)
    let chosen = try (names ?? WebhookEvent.ends.map(\.rawValue)).map { (name) throws(APIError) in
      guard let event = WebhookEvent(rawValue: name) else {
        let list = WebhookEvent.allCases.map(\.rawValue).joined(separator: ", ")
        throw APIError(
          .invalidValue, "events has \"\(name.prefix(40))\", but must be some of \(list)", param: "events")
      }
      return event
    }
    guard !chosen.isEmpty else { throw APIError(.invalidValue, "events is empty", param: "events") }
    events = WebhookEvent.allCases.filter(chosen.contains)
    try fields.refuseOthers()
  }
}

/// The secret that a sender and a receiver of webhooks share, by the Standard Webhooks specification.
public enum WebhookSecret {
  /// For error messages.
  public static let form = "\"\(prefix)\" and 24 to 64 bytes in base64"
  private static let prefix = "whsec_"

  /// The bytes that `text` stands for; nil: it is no such secret.
  public static func key(_ text: String) -> [UInt8]? {
    guard text.hasPrefix(prefix), let data = Data(base64Encoded: String(text.dropFirst(prefix.count))),
      (24...64).contains(data.count)
    else { return nil }
    return Array(data)
  }
}
