import Dispatch
import Foundation
import Journal
import Scheduling
import Wire

/// What the scheduler wants to outlive the process goes to the journal; what the journal says goes back to the scheduler.
extension Dispatcher {
  /// Wall clock, in milliseconds since 1970.
  var wallClockMs: Int64 { Int64(Date().timeIntervalSince1970 * 1000) }

  /// Hands an entry to the journal's thread. Returns the refusal if it cannot even be made.
  func write(_ entry: JournalEntry, _ sequence: JournalSequence) -> Event? {
    do throws(Failure) {
      writer?.enqueue(.init(sequence: sequence.number, changes: try changes(for: entry)))
      return nil
    } catch {
      logger.error("a journal entry could not be made", metadata: ["reason": "\(error.message)"])
      return .journalRefused(sequence, error)
    }
  }

  private func changes(for entry: JournalEntry) throws(Failure) -> [JournalChange] {
    switch entry {
    case .jobsAdmitted(let submissions): return [.admit(try storedJob(of: submissions))]
    case .attemptStarted(let attempt, let places):
      return places.compactMap { place in
        records[place.job].map { .attempt($0.picture, task: place.index, number: attempt.number) }
      }
    case .taskFinished(let places, let output, let numericsClass):
      return try progress(places, completedSteps: nil, output, numericsClass)
    case .checkpointed(let places, let checkpoint, let numericsClass):
      return try progress(places, completedSteps: checkpoint.completedSteps, checkpoint.latents, numericsClass)
    case .jobFinished(let id, let output):
      let record = try record(of: id)
      return [.finish(record.picture, result: try stored(output), promptTokens: record.promptTokens, atMs: wallClockMs)]
    case .jobFailed(let id, let failure):
      return [.fail(try record(of: id).picture, StoredFailure(failure), atMs: wallClockMs)]
    }
  }

  private func record(of id: JobID) throws(Failure) -> Record {
    guard let record = records[id] else { throw Failure(.internal, "job \(id) is not known") }
    return record
  }

  /// One entry for the pictures of one request.
  private func storedJob(of submissions: [JobSubmission]) throws(Failure) -> StoredJob {
    guard let first = submissions.first, let job = openJobs[try record(of: first.id).picture.job],
      job.pictures.count == submissions.count
    else { throw Failure(.internal, "the jobs of an entry are not those of one request") }
    return StoredJob(
      id: job.id, tenant: job.request.tenant.text, submittedAtMs: job.submittedAtMs, deadlineAtMs: job.deadlineAtMs,
      request: try StoredRequest(job.request).encoded(), pictureCount: job.pictures.count, key: job.request.key)
  }

  private func progress(
    _ places: [TaskID], completedSteps: Int?, _ payload: Payload, _ numericsClass: String
  ) throws(Failure) -> [JournalChange] {
    let payload = try stored(payload)
    return places.compactMap { place in
      records[place.job].map {
        let progress = StoredProgress(
          task: place.index, completedSteps: completedSteps, payload: payload, numericsClass: numericsClass)
        return .progress($0.picture, progress)
      }
    }
  }

  private func stored(_ payload: Payload) throws(Failure) -> StoredPayload {
    guard let tensor = payloads[payload] else { throw Failure(.internal, "payload \(payload.id) is not there") }
    return StoredPayload(tensor, id: payload.id)
  }

  /// Takes what the journal's thread says.
  func note(_ outcome: JournalWriter.Outcome) {
    switch outcome {
    case .durable(let number): process(.journalled(through: JournalSequence(number)))
    case .refused(let number, let error):
      logger.error("the journal refused an entry", metadata: ["reason": "\(error)"])
      process(.journalRefused(JournalSequence(number), Failure(error)))
    }
  }

  // MARK: Start and end

  /// Takes over the jobs that an earlier run has left. Those that nobody can read any more fail; they must not keep the others from it.
  func restore() async throws(Failure) {
    let (jobs, damaged) = try await JournalReader(store: journal).read { store throws(JournalError) in try store.openJobs() }
    if !damaged.isEmpty { try await giveUp(damaged) }
    var restored: [RestoredJob] = []
    for job in jobs { restored += try restore(job.record, job.pictures) }
    guard !restored.isEmpty else { return }
    logger.info("jobs of an earlier run go on", metadata: ["jobs": "\(jobs.count)", "pictures": "\(restored.count)"])
    process(.restored(restored))
  }

  private func giveUp(_ jobs: [DamagedJob]) async throws(Failure) {
    let atMs = wallClockMs
    for job in jobs { logger.error("a job of an earlier run is damaged and fails", metadata: ["reason": "\(job.damage)"]) }
    try await JournalReader(store: journal).read { store throws(JournalError) in
      try store.fail(jobs, code: StatusCode.dataLoss.rawValue, atMs: atMs)
    }
  }

  private func restore(_ record: StoredRecord, _ pictures: [OpenPicture]) throws(Failure) -> [RestoredJob] {
    var request = try StoredRequest.request(from: record.job.request, tenant: TenantID(record.job.tenant))
    guard request.images.count == record.outcomes.count else {
      throw Failure(.dataLoss, "job \(record.job.id) in the journal has \(record.outcomes.count) pictures, not \(request.images.count)")
    }
    // Whoever waited on a connection has lost it; the job was accepted all the same.
    request.isDetached = true
    request.key = record.job.key
    var job = OpenJob(
      id: record.job.id, request: request, submittedAtMs: record.job.submittedAtMs, deadlineAtMs: record.job.deadlineAtMs)
    job.isAdmitted = true
    job.pictures = zip(request.images, record.outcomes).map { PictureState($0, $1) }
    if let key = request.key { keys[TenantKey(request.tenant, key)] = job.id }
    // Whatever the column holds: the difference must not overflow.
    let deadline = job.deadlineAtMs.map { now + .milliseconds(max($0, 0) - wallClockMs) }
    openJobs[job.id] = job
    return pictures.map { picture in restore(picture, request, deadline: deadline) }
  }

  private func restore(_ picture: OpenPicture, _ request: JobRequest, deadline: Instant?) -> RestoredJob {
    let image = request.images[picture.reference.index]
    let id = JobID(picture.reference)
    var tasks: [Int: RestoredTask] = [:]
    var promptTokens = 0
    for (index, number) in picture.attempts where image.plan.tasks.indices.contains(index) {
      tasks[index] = RestoredTask(index: index, attemptNumber: number)
    }
    for progress in picture.progress {
      guard image.plan.tasks.indices.contains(progress.task), let tensor = progress.payload.tensor,
        image.accepts(tensor, ofTask: progress.task)
      else { continue }
      let payload = payloads.restore(tensor, id: progress.payload.id)
      var task = tasks[progress.task] ?? RestoredTask(index: progress.task)
      task.numericsClass = progress.numericsClass
      if let steps = progress.completedSteps {
        task.checkpoint = Checkpoint(completedSteps: steps, latents: payload)
      } else {
        task.output = payload
        if image.plan.tasks[progress.task].stage == .textEncoder { promptTokens += tensor.shape[0] }
      }
      tasks[progress.task] = task
    }
    records[id] = Record(picture: picture.reference, job: image, traceparent: request.traceparent, promptTokens: promptTokens)
    let submission = JobSubmission(
      id: id, model: image.model, plan: image.plan, deadline: deadline, tenant: request.tenant, priority: request.priority)
    return RestoredJob(submission: submission, tasks: tasks.keys.sorted().compactMap { tasks[$0] })
  }

  /// Ends this run: jobs that can go on with the next one are left as they are, the others fail. Waits until the journal has it all.
  func end(because reason: Failure) async {
    close(because: reason)
    for (id, job) in openJobs {
      if job.request.isDetached, job.isAdmitted, journal.path != nil {
        openJobs[id]?.finishListeners()
      } else {
        cancel(id, reason: reason)
      }
    }
    let (writer, report) = (writer, journalReport)
    await withCheckedContinuation { continuation in
      DispatchQueue.global().async {
        writer?.stop()
        report.finish()
        continuation.resume()
      }
    }
  }
}

extension JobID {
  /// Every picture is a job of its own to the scheduler.
  init(_ picture: PictureReference) { self.init("\(picture.job)-\(picture.index)") }
}

extension ImageJob {
  /// Whether the tensor can be what the task has given, or its state after some steps.
  fileprivate func accepts(_ tensor: WireTensor, ofTask index: Int) -> Bool {
    switch plan.tasks[index].stage {
    case .textEncoder: tensor.shape.count == 2 && tensor.shape[0] > 0
    case .denoiser: tensor.shape == card.latents.packedShape(of: size)
    case .vaeDecoder: tensor.dtype == .u8
    }
  }
}

extension PictureState {
  init(_ image: ImageJob, _ outcome: StoredOutcome) {
    self.init(steps: image.steps)
    switch outcome {
    case .open: break
    case .finished(_, let promptTokens):
      step = steps
      self.outcome = .finished(promptTokens: promptTokens)
    case .failed(let failure): self.outcome = .failed(failure.failure)
    }
  }
}
