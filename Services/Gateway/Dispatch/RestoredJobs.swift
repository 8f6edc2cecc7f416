import ClusterCore
import GatewayPipelines
import Journal
import Scheduling
import Wire

/// A job of an earlier run, ready to be resumed in this one.
struct RestoredJob {
  var job: OpenJob
  var images: [ImageJobID: JobRegistry.Image] = [:]
  var submissions: [RestoredImageJob] = []

  /// - Parameters:
  ///   - record: the job, as the journal has it.
  ///   - openImages: its images that have not ended.
  ///   - pipelines: those that this gateway knows.
  ///   - payloads: takes the tensors.
  ///   - now: on the scheduler's clock, and `nowMs` on the wall's, in milliseconds since 1970.
  /// - Throws: DATA_LOSS when the request cannot be read, UNIMPLEMENTED when its pipeline is not known.
  init(
    _ record: StoredRecord, _ openImages: [OpenImage], pipelines: PipelineRegistry, _ payloads: inout PayloadStore,
    now: Instant,
    nowMs: Int64
  ) throws(Status) {
    var request = try JobRequest(record.job)
    try request.restoreInputs(record.job)
    guard request.images.count == record.outcomes.count else {
      throw Status(
        .dataLoss,
        "job \(record.job.id) in the journal has \(record.outcomes.count) images, not \(request.images.count)")
    }
    let name = request.images[0].pipeline
    guard let pipeline = pipelines[name] else {
      throw Status(.unimplemented, "job \(record.job.id) is for the pipeline \(name), which this gateway does not know")
    }
    if let problem = pipeline.problem(of: request.images[0]) {
      throw Status(.dataLoss, "job \(record.job.id) in the journal cannot be made: \(problem)")
    }
    // A client that waited on a connection has lost it; the job was accepted all the same.
    request.isDetached = true
    request.webhooks = record.job.webhooks
    job = OpenJob(
      id: record.job.id, request: request, submittedAtMs: record.job.submittedAtMs,
      deadlineAtMs: record.job.deadlineAtMs)
    job.isAdmitted = true
    job.images = zip(request.images, record.outcomes).map { ImageProgress(steps: $0.stepCount, $1) }
    // Whatever the column holds: the difference must not overflow.
    let deadline = job.deadlineAtMs.map { now + .milliseconds(max($0, 0) - nowMs) }
    for image in openImages { restore(image, pipeline, deadline: deadline, &payloads) }
  }

  private mutating func restore(
    _ open: OpenImage, _ pipeline: Pipeline, deadline: Instant?, _ payloads: inout PayloadStore
  ) {
    let spec = job.request.images[open.reference.index]
    let id = ImageJobID(open.reference)
    let tasks = pipeline.tasks(spec)
    let image = JobRegistry.Image(open.reference.index, of: job, pipeline)
    var restored: [Int: RestoredTask] = [:]
    for (index, number) in open.attempts where tasks.indices.contains(index) {
      restored[index] = RestoredTask(index: index, attemptNumber: number)
    }
    for progress in open.progress where tasks.indices.contains(progress.task) {
      let task = tasks[progress.task]
      let rule = progress.completedSteps == nil ? task.output : task.checkpoint
      guard let tensor = progress.payload.tensor, rule?.accepts(tensor) ?? false else { continue }
      let payload = payloads.restore(tensor, id: progress.payload.id)
      var record = restored[progress.task] ?? RestoredTask(index: progress.task)
      record.numericsClass = progress.numericsClass
      if let steps = progress.completedSteps {
        record.checkpoint = Checkpoint(completedSteps: steps, latents: payload)
      } else {
        record.output = payload
        image.promptTokensOfTasks[progress.task] = task.promptTokens(tensor)
      }
      restored[progress.task] = record
    }
    images[id] = image
    let submission = ImageJobSubmission(
      id: id, model: spec.card.model, plan: ImageJobPlan(tasks.map(\.plan)), deadline: deadline,
      tenant: job.request.tenant,
      priority: job.request.priority)
    submissions.append(
      RestoredImageJob(submission: submission, tasks: restored.keys.sorted().compactMap { restored[$0] }))
  }
}

extension JobRequest {
  /// Takes the images that the request begins with from the journal.
  ///
  /// - Throws: DATA_LOSS when one of them is not there.
  fileprivate mutating func restoreInputs(_ stored: StoredJob) throws(Status) {
    let references = Set(images.flatMap(\.inputs))
    var known: Set<String> = []
    for reference in references.sorted(by: { ($0.digest, $0.role.rawValue) < ($1.digest, $1.role.rawValue) })
    where known.insert(reference.digest).inserted {
      guard let bytes = stored.inputs.first(where: { $0.digest == reference.digest })?.bytes,
        let input = InputImage(reference, pixels: bytes.withUnsafeBytes { FrameBuffer(copying: $0) })
      else { throw Status(.dataLoss, "an image that job \(stored.id) begins with is not in the journal") }
      inputs.append(input)
    }
  }

  /// The request of a journalled job.
  ///
  /// - Throws: DATA_LOSS when it is not what ``StoredRequest/encoded()`` has written.
  init(_ stored: StoredJob) throws(Status) {
    self = try StoredRequest.request(from: stored.request, tenant: TenantID(stored.tenant))
    key = stored.key
  }
}
