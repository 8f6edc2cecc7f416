import ClusterCore
import Foundation
import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import ImageCodec
import Journal
import Scheduling

/// How far a job, or one of its images, has got.
enum JobStatus: String, CaseIterable, Encodable, Sendable {
  case queued
  case running
  case succeeded
  case failed
  case cancelled

  init(_ image: ImageProgress) {
    switch image.outcome {
    case .open: self = image.stage == nil || image.queuePosition != nil ? .queued : .running
    case .finished: self = .succeeded
    case .failed(let failure): self = failure.code == .cancelled ? .cancelled : .failed
    }
  }

  /// Of a job with these images.
  init(_ images: [ImageProgress]) {
    let all = images.map { JobStatus($0) }
    if all.allSatisfy({ $0 == .queued }) {
      self = .queued
    } else if all.contains(where: { !$0.isTerminal }) {
      self = .running
    } else {
      self = all.contains(.failed) ? .failed : all.contains(.cancelled) ? .cancelled : .succeeded
    }
  }

  var isTerminal: Bool {
    switch self {
    case .queued, .running: false
    case .succeeded, .failed, .cancelled: true
    }
  }
}

/// A job, as `/v1/jobs` shows it.
struct JobBody: Encodable {
  struct Image: Encodable {
    var index: Int
    var seed: UInt64
    var status: JobStatus
    var stage: String?
    var step: Int
    var steps: Int
    var queuePosition: Int?
    var secondsLeft: Double?
    var estimatedStartAt: Double?
    var estimatedEndAt: Double?
    var retryReason: String?
    var result: String?
    /// How many the result has; absent where it has none.
    var layers: Int?
    var error: ErrorEnvelope.Body?
  }

  var id: String
  var object = "job"
  var status: JobStatus
  var createdAt: Int
  var deadline: Int?
  var endedAt: Int?
  var model: String
  var prompt: String
  /// What the client has sent, where `prompt` is what was made of it; so is `revisedPrompt`, as in OpenAI's API.
  var originalPrompt: String?
  var revisedPrompt: String?
  var negativePrompt: String?
  var size: String
  var steps: Int
  var trueCfgScale: Double
  /// How the steps are taken, where the request has chosen it.
  var sampler: String?
  var schedule: String?
  var cfgSteps: Int?
  var outputFormat: String
  var background: String
  /// The adapters that act; absent: none.
  var loras: [ImageMetadata.AppliedAdapter]?
  /// Absent: every step runs the whole network.
  var cache: StepCache?
  var priority: String
  var tags: [String]
  var metadata: [String: String]
  var n: Int
  /// Denoising steps done, of all images.
  var step: Int
  /// Of the image that comes first.
  var queuePosition: Int?
  /// Of the image that comes last, as far as that was measured.
  var secondsLeft: Double?
  /// Of the image that begins first, while none has begun.
  var estimatedStartAt: Double?
  /// Of the image that ends last.
  var estimatedEndAt: Double?
  var images: [Image]
  /// Only where one job is asked for.
  var webhooks: [Webhook]?

  init(_ job: JobSnapshot, _ links: Links) {
    let first = job.request.images[0]
    id = job.id
    status = JobStatus(job.images)
    createdAt = Int(job.submittedAtMs / 1000)
    deadline = job.deadlineAtMs.map { Int($0 / 1000) }
    endedAt = job.endedAtMs.map { Int($0 / 1000) }
    model = first.card.model.id
    prompt = first.prompt
    (originalPrompt, revisedPrompt) = (first.originalPrompt, first.revisedPrompt)
    negativePrompt = first.negativePrompt
    size = "\(first.size)"
    steps = first.steps
    trueCfgScale = first.trueCFGScale
    let sampling = first.sampling
    sampler = sampling.sampler == .euler ? nil : sampling.sampler.rawValue
    (schedule, cfgSteps) = (sampling.schedule?.rawValue, sampling.cfgSteps)
    outputFormat = first.encoding.format.name
    background = first.isTransparent ? "transparent" : "opaque"
    let adapters = first.metadata.loras
    loras = adapters.isEmpty ? nil : adapters
    cache = first.cache
    priority = job.request.priority.rawValue
    tags = job.request.options.tags
    metadata = job.request.options.metadata
    n = job.images.count
    step = job.images.reduce(0) { $0 + $1.step }
    queuePosition = job.images.compactMap(\.queuePosition).min()
    secondsLeft = job.images.compactMap(\.secondsLeft).max()
    let open = job.images.filter { !$0.isTerminal }, ends = open.compactMap(\.estimatedEndAtMs)
    if status == .queued { estimatedStartAt = open.compactMap(\.estimatedStartAtMs).min().map(Self.seconds) }
    // Without that of one image, that of the job is not known.
    if ends.count == open.count { estimatedEndAt = ends.max().map(Self.seconds) }
    images = job.images.enumerated().map { index, progress in
      Image(job.id, index, job.request.images[index], progress, links)
    }
  }
}

extension JobBody {
  /// In seconds since 1970, with milliseconds.
  fileprivate static func seconds(_ ms: Int64) -> Double { Double(ms) / 1000 }
}

extension JobBody.Image {
  init(_ job: String, _ index: Int, _ image: ImageSpec, _ progress: ImageProgress, _ links: Links) {
    self.index = index
    seed = image.seed
    status = JobStatus(progress)
    stage = status.isTerminal ? nil : progress.stage?.text ?? "queued"
    step = progress.step
    steps = progress.steps
    queuePosition = progress.queuePosition
    secondsLeft = progress.secondsLeft
    estimatedStartAt = progress.estimatedStartAtMs.map(JobBody.seconds)
    estimatedEndAt = progress.estimatedEndAtMs.map(JobBody.seconds)
    retryReason = progress.retryReason
    if case .finished = progress.outcome {
      result = links.path(ResultAddress(job: job, index: "\(index)").path(signedBy: Caller()))
      layers = image.layers > 0 ? image.layers : nil
    }
    if case .failed(let failure) = progress.outcome { error = ErrorEnvelope(APIError(failure)).error }
  }
}

extension JobBody {
  /// What is notified of a job, and what came of it.
  struct Webhook: Encodable {
    var url: String
    var events: [String]
    var signed: Bool
    var deliveries: [Delivery]

    init(_ webhook: StoredWebhook, _ deliveries: [StoredDelivery]) {
      url = webhook.url
      events = webhook.events
      signed = webhook.secret != nil
      self.deliveries = deliveries.map { Delivery($0) }
    }
  }

  struct Delivery: Encodable {
    /// As the receiver gets it.
    var id: String
    var event: String
    /// `pending`, `delivered` or `abandoned`.
    var status: String
    var createdAt: Int
    var attempts: Int
    var lastAttemptAt: Int?
    var lastStatus: Int?
    var lastError: String?
    var nextAttemptAt: Int?

    init(_ delivery: StoredDelivery) {
      id = delivery.messageID
      event = delivery.event
      status = "\(delivery.state)"
      createdAt = Int(delivery.createdAtMs / 1000)
      attempts = delivery.attempts
      lastAttemptAt = delivery.lastAttemptAtMs.map { Int($0 / 1000) }
      lastStatus = delivery.lastStatus
      lastError = delivery.lastError
      nextAttemptAt = delivery.nextAttemptAtMs.map { Int($0 / 1000) }
    }
  }
}

/// A page of jobs.
struct JobList: Encodable {
  var object = "list"
  var data: [JobBody]
  /// Whether `?after=` the last one, or what `next` says, may give more.
  var hasMore: Bool
  /// What to ask for as `after`; absent where nothing follows. It stays good when its job is not kept any more.
  var next: String?
}

/// `job.progress`, `job.image_completed` or `job.image_failed`: something happened to one progress.
struct JobProgressEvent: Encodable {
  var type: String
  var jobId: String
  var image: JobBody.Image

  init(job: String, index: Int, _ image: ImageSpec, _ progress: ImageProgress, _ links: Links) {
    switch progress.outcome {
    case .open: type = "job.progress"
    case .finished: type = "job.image_completed"
    case .failed: type = "job.image_failed"
    }
    jobId = job
    self.image = JobBody.Image(job, index, image, progress, links)
  }
}

/// `job.preview`: what an image looks like so far.
struct JobPreviewEvent: Encodable {
  var type = "job.preview"
  var jobId: String
  /// The image's place in the request.
  var index: Int
  /// Steps done.
  var step: Int
  /// A JPEG file.
  var b64Json: String

  init(job: String, index: Int, _ preview: Preview, _ image: ImageSpec) async throws {
    jobId = job
    self.index = index
    step = preview.step
    b64Json = Data(try await preview.file(as: .preview, of: image.size)).base64EncodedString()
  }
}

/// `job.ended`: nothing follows.
struct JobEndedEvent: Encodable {
  var type = "job.ended"
  var jobId: String
  var status: JobStatus
}
