import ClusterCore
import Foundation
import GatewayPipelines
import Journal
import Scheduling
import Wire

extension JournalEntry {
  /// The entry as changes of the journal, with the bytes of its payloads.
  ///
  /// - Throws: INTERNAL when it is about an image or a payload that the gateway does not have.
  func changes(_ jobs: JobRegistry, _ payloads: PayloadStore, nowMs: Int64) throws(Status) -> [JournalChange] {
    switch self {
    case .imagesAdmitted(let submissions):
      return try Self.requests(of: submissions, jobs).map { images throws(Status) in
        .admit(try Self.job(of: images, jobs))
      }
    case .attemptStarted(let attempt, let places):
      return places.compactMap { place in
        jobs.images[place.job].map { .attempt($0.reference, task: place.index, number: attempt.number) }
      }
    case .taskFinished(let places, let output, let numericsClass):
      return Self.progress(places, completedSteps: nil, try payloads.stored(output), numericsClass, jobs)
    case .checkpointed(let places, let checkpoint, let numericsClass):
      let payload = try payloads.stored(checkpoint.latents)
      return Self.progress(places, completedSteps: checkpoint.completedSteps, payload, numericsClass, jobs)
    case .imageFinished(let id, let output):
      let image = try jobs.image(id)
      return [
        .finish(image.reference, result: try payloads.stored(output), promptTokens: image.promptTokens, atMs: nowMs)
      ]
    case .imageFailed(let id, let status): return [.fail(try jobs.image(id).reference, status, atMs: nowMs)]
    }
  }

  /// The images of each request; those of one follow each other.
  private static func requests(
    of submissions: [ImageJobSubmission], _ jobs: JobRegistry
  ) throws(Status) -> [[ImageJobSubmission]] {
    var requests: [[ImageJobSubmission]] = [], last: String?
    for submission in submissions {
      let job = try jobs.image(submission.id).reference.job
      if job != last { requests.append([]) }
      requests[requests.count - 1].append(submission)
      last = job
    }
    return requests
  }

  /// One row for the images of one request.
  private static func job(of submissions: [ImageJobSubmission], _ jobs: JobRegistry) throws(Status) -> StoredJob {
    guard let first = submissions.first, let job = jobs.jobs[try jobs.image(first.id).reference.job],
      job.images.count == submissions.count
    else { throw Status(.internal, "the images of an entry are not those of one request") }
    var stored = StoredJob(
      id: job.id, tenant: job.request.tenant.text, submittedAtMs: job.submittedAtMs, deadlineAtMs: job.deadlineAtMs,
      request: try StoredRequest(job.request).encoded(), imageCount: job.images.count, key: job.request.key,
      model: job.request.images[0].card.model.id, tags: job.request.options.tags,
      inputs: job.request.inputs.map { input in
        StoredInput(digest: input.reference.digest, bytes: input.tensor.bytes.withUnsafeBytes { Data($0) })
      })
    stored.webhooks = job.request.webhooks
    return stored
  }

  private static func progress(
    _ places: [TaskID], completedSteps: Int?, _ payload: StoredPayload, _ numericsClass: String, _ jobs: JobRegistry
  ) -> [JournalChange] {
    places.compactMap { place in
      jobs.images[place.job].map {
        let progress = StoredProgress(
          task: place.index, completedSteps: completedSteps, payload: payload, numericsClass: numericsClass)
        return .progress($0.reference, progress)
      }
    }
  }
}

extension JobRegistry {
  /// - Throws: INTERNAL when there is no such image.
  fileprivate func image(_ id: ImageJobID) throws(Status) -> Image {
    guard let image = images[id] else { throw Status(.internal, "image \(id) is not known") }
    return image
  }
}

extension PayloadStore {
  /// - Throws: INTERNAL when there is no such payload.
  fileprivate func stored(_ payload: Payload) throws(Status) -> StoredPayload {
    guard let tensor = self[payload] else { throw Status(.internal, "payload \(payload.id) is not there") }
    return StoredPayload(tensor, id: payload.id)
  }
}
