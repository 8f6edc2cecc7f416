import Journal
import Scheduling

/// A client's request: images that are submitted together.
public struct JobRequest: Sendable {
  /// Whose they are.
  public var tenant = TenantID.anonymous
  /// Equal but for their seeds; never empty.
  public var images: [ImageSpec]
  /// How urgent they are.
  public var priority = JobPriority.interactive
  /// When they are given up, and the client's notes.
  public var options = JobOptions()
  /// The wish to have the prompts rewritten; nil: they are as they shall be.
  public var enhancement: PromptEnhancement?
  /// What is notified of the job.
  public var webhooks: [StoredWebhook] = []
  /// Trace context of the request, by W3C.
  public var traceparent: String?
  /// Makes a repeated request the same request.
  public var key: IdempotencyKey?
  /// Whether they are made even when no client waits for them any more.
  public var isDetached = false

  /// The pixels of the images that the request begins with, once each.
  public var inputs: [InputImage] = []

  /// A request for `images`, which are equal but for their seeds.
  public init(_ images: [ImageSpec]) {
    precondition(!images.isEmpty, "a request needs an image")
    self.images = images
  }
}
