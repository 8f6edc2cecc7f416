import ClusterCore
import Foundation
import Logging
import Transport
import Wire

// What a worker says to its gateways, and what it does when they say something.

extension Worker {
  func handle(_ event: DealerEvent, link id: LinkID) async {
    switch event {
    case .connected:
      links[id]?.heardAt = time.elapsed
      await register(link: id)
    case .disconnected:
      links[id]?.session = .disconnected
      links[id]?.registrations = nil
      names.askSoon(now: time.elapsed)
      logger.warning("the gateway is lost", metadata: ["gateway": "\(links[id]?.endpoint ?? "")"])
    case .refused(let reason): logRefusal(reason, link: id)
    case .message(let envelope):
      links[id]?.heardAt = time.elapsed
      await handle(envelope, link: id)
    case .malformed(let malformed):
      guard malformed.header.messageID > 0 || malformed.header.task != nil else { return }
      let inReplyTo = malformed.header.messageID > 0 ? malformed.header.messageID : nil
      await send(
        Envelope(inReplyTo: inReplyTo, task: malformed.header.task, body: .failed(malformed.error.status)), link: id)
    }
  }

  private func handle(_ envelope: Envelope, link id: LinkID) async {
    switch envelope.body {
    case .registered(let registered): await open(registered, inReplyTo: envelope.inReplyTo, link: id)
    case .heartbeatReply: break
    case .encodeRequest, .denoiseRequest, .decodeRequest, .encodeImageRequest, .runRequest:
      await take(envelope, link: id)
    case .cancel(let reason): await cancel(envelope, reason: reason, link: id)
    case .claim(let references): await yield(references, to: id, claim: envelope.messageID)
    case .exchange(let message):
      // About a task that has ended meanwhile, it is of no use.
      guard let task = envelope.task.flatMap({ running[$0] }), task.link == id else { return }
      task.context.deliver(message, tensors: envelope.tensors)
    case .switchModel(let model): await switchModel(to: model, envelope, link: id)
    case .failed(let status): await refused(envelope, status, link: id)
    case .register, .heartbeat, .servedAdapters, .accepted, .draining, .goodbye, .encodeResponse, .progress,
      .denoiseResponse, .decodeResponse, .encodeImageResponse, .runResponse:
      let status = Status(.unimplemented, "a worker does not take \(envelope.body.name)")
      await send(Envelope(inReplyTo: envelope.messageID, task: envelope.task, body: .failed(status)), link: id)
    }
  }

  /// Sends, and tells whether the message is on its way. Not being connected is normal here.
  @discardableResult
  func send(_ envelope: Envelope, link id: LinkID) async -> UInt64? {
    do {
      return try await links[id]?.socket.send(envelope)
    } catch {
      if case .unsendable = error { logger.error("\(error)", metadata: ["message": "\(envelope.body.name)"]) }
      return nil
    }
  }

  // MARK: - Session

  func register(link id: LinkID) async {
    var registration = Register(
      workerID: configuration.workerID, stage: stage.name, card: stage.card,
      componentFingerprint: stage.componentFingerprint,
      numericsClass: stage.numericsClass, credits: configuration.credits, host: configuration.host,
      pid: UInt64(ProcessInfo.processInfo.processIdentifier), softwareVersion: configuration.softwareVersion,
      running: Array(tasks(of: id).prefix(WireLimits().maxListElements)), standbyCards: configuration.standbyCards)
    registration.assists = assists
    registration.takesClaims = true
    links[id]?.saidAssists = registration.assists
    let now = time.elapsed
    let envelope = Envelope(body: .register(registration), tensors: stage.registrationTensors)
    if let messageID = await send(envelope, link: id) {
      links[id]?.session = .registering(since: now)
      let first = links[id]?.registrations?.lowerBound ?? messageID
      links[id]?.registrations = first...messageID
    } else {
      links[id]?.session = .unregistered(retryAt: now + .milliseconds(configuration.registrationRetryMs))
    }
  }

  /// Another gateway could not take an assistant back for a task of its own.
  var assists: Bool { stage.assists && links.count == 1 }

  /// What runs, or waits to be answered, for the link's gateway, in a fixed order.
  func tasks(of link: LinkID) -> [TaskReference] {
    let tasks =
      running.values.filter { $0.link == link }.map(\.reference) + pending.filter { $0.value.link == link }.map(\.key)
    return tasks.sorted { $0.description < $1.description }
  }

  private func open(_ registered: Registered, inReplyTo: UInt64?, link id: LinkID) async {
    guard let inReplyTo, links[id]?.registrations?.contains(inReplyTo) == true else { return }
    links[id]?.session = .open(registered)
    await retireTwin(of: id, registered.gatewayID)
    links[id]?.renewed = nil
    links[id]?.leaseMs = registered.leaseMs
    links[id]?.announcedRevision = ServedAdapters.none.revision
    links[id]?.heartbeatAt = time.elapsed + .milliseconds(registered.heartbeatIntervalMs)
    // The registration has named this gateway's tasks only.
    if running.values.contains(where: { $0.link != id }) { links[id]?.owesCredits = true }
    logger.info(
      "registered", metadata: ["gateway": "\(links[id]?.endpoint ?? "")", "session": "\(registered.sessionID)"])
    if case .draining(let reason, _, _) = phase { await send(Envelope(body: .draining(reason: reason)), link: id) }
    await announceAdapters(link: id)
    for reference in tasks(of: id) where pending[reference] != nil { await deliver(reference) }
  }

  /// A `Failed` from the gateway: it refuses the registration, or it does not know our session.
  private func refused(_ envelope: Envelope, _ status: Status, link id: LinkID) async {
    let metadata: Logger.Metadata = ["gateway": "\(links[id]?.endpoint ?? "")", "status": "\(status)"]
    if case .registering? = links[id]?.session, let number = envelope.inReplyTo,
      links[id]?.registrations?.contains(number) == true
    {
      logger.error("the gateway refuses this worker", metadata: metadata)
      let retryAt = time.elapsed + .milliseconds(configuration.registrationRetryMs)
      links[id]?.session = .unregistered(retryAt: retryAt)
    } else if status.code == .failedPrecondition, envelope.task == nil, links[id]?.registered != nil {
      logger.warning("the gateway does not know this worker, registering again", metadata: metadata)
      await register(link: id)
    } else {
      logger.warning("the gateway refuses a message", metadata: metadata)
    }
  }

  private func logRefusal(_ reason: String, link id: LinkID) {
    let now = time.elapsed
    if let last = links[id]?.refusalLoggedAt, now - last < .seconds(10) { return }
    links[id]?.refusalLoggedAt = now
    logger.error(
      "the connection is refused", metadata: ["gateway": "\(links[id]?.endpoint ?? "")", "reason": "\(reason)"])
  }

  private func switchModel(to model: ModelIdentity, _ envelope: Envelope, link id: LinkID) async {
    if configuration.standbyCards.contains(where: { $0.model == model }) {
      await startDraining(reason: "loading model \(model.id)", thenLoading: model)
    } else {
      let status = Status(.notFound, "model \(model) cannot be loaded here", field: "model_id")
      await send(Envelope(inReplyTo: envelope.messageID, body: .failed(status)), link: id)
    }
  }

  // MARK: - Tasks

  private func take(_ envelope: Envelope, link id: LinkID) async {
    do throws(Status) {
      let reference = try admit(envelope, link: id)
      let isNew = running[reference] == nil && pending[reference] == nil
      if isNew { start(reference, envelope, link: id) }
      // Said again to a gateway that asks again.
      await send(
        Envelope(inReplyTo: envelope.messageID, task: reference, traceparent: envelope.traceparent, body: .accepted),
        link: id)
      if isNew { compute(reference, envelope) }
    } catch {
      logger.warning("refused a task", metadata: ["task": "\(envelope.task?.description ?? "")", "status": "\(error)"])
      await send(
        Envelope(
          inReplyTo: envelope.messageID, task: envelope.task, traceparent: envelope.traceparent, body: .failed(error)),
        link: id)
    }
  }

  /// The task, when it can run here and now, or runs already.
  private func admit(_ envelope: Envelope, link id: LinkID) throws(Status) -> TaskReference {
    guard let reference = envelope.task else { throw Status(.invalidArgument, "the task is missing", field: "task") }
    guard let request = envelope.body.request, request.stage == stage.name else {
      throw Status(.unimplemented, "a \(stage.name) does not answer \(envelope.body.name)")
    }
    guard request.modelID == stage.card.model.id else {
      throw Status(
        .notFound, "model \"\(request.modelID)\" is not served here, but \"\(stage.card.model.id)\"", field: "model_id")
    }
    if let holder = holder(of: reference) {
      guard holder == id else { throw Status(.aborted, "attempt \(reference) is another gateway's now") }
      return reference
    }
    if let newest = running.keys.filter({ $0.jobID == reference.jobID && $0.taskID == reference.taskID }).map(\.attempt)
      .max()
    {
      guard newest < reference.attempt else {
        throw Status(.aborted, "attempt \(reference.attempt) is superseded by attempt \(newest)")
      }
      let superseded = TaskReference(jobID: reference.jobID, taskID: reference.taskID, attempt: newest)
      running[superseded]?.context.cancel(Status(.aborted, "superseded by attempt \(reference.attempt)"))
    }
    if case .draining(let reason, _, _) = phase { throw Status(.unavailable, "the worker is draining: \(reason)") }
    let nowMs = UInt64(clamping: time.unixMs)
    if let deadline = envelope.deadlineUnixMs, nowMs >= deadline {
      throw Status(.deadlineExceeded, "the deadline passed \(nowMs - deadline) ms before the task arrived")
    }
    guard running.count < configuration.credits else {
      // It believes otherwise.
      links[id]?.owesCredits = true
      throw Status(.resourceExhausted, "all \(configuration.credits) credits are in use", field: "credits")
    }
    return reference
  }

  private func start(_ reference: TaskReference, _ envelope: Envelope, link id: LinkID) {
    let context = TaskContext(
      deadlineUnixMs: envelope.deadlineUnixMs, traceparent: envelope.traceparent, time: time
    ) { [mailbox] body, tensors in
      mailbox.yield(.progress(reference, body, tensors))
    }
    let now = time.elapsed
    var task = RunningTask(
      reference: reference, link: id, requestMessageID: envelope.messageID, context: context, startedAt: now,
      stepAt: now)
    task.trace = TaskTrace(
      reference, stage.name, worker: configuration.workerID, traceparent: envelope.traceparent)
    if let request = envelope.body.request {
      task.steps = request.steps
      task.completedSteps = request.firstStep
    }
    running[reference] = task
    creditsChanged(by: id)
    metrics.running(running.count)
    logger.info("task started", metadata: ["task": "\(reference)", "trace": "\(envelope.traceparent ?? "")"])
  }

  private func compute(_ reference: TaskReference, _ envelope: Envelope) {
    guard let context = running[reference]?.context else { return }
    let task = StageTask(reference: reference, request: envelope.body, tensors: envelope.tensors)
    compute?.submit { [stage, mailbox] in
      let result: Result<StageOutput, Status>
      do {
        try context.checkCancelled()
        result = .success(try stage.run(task, context: context))
      } catch let status as Status {
        result = .failure(status)
      } catch {
        result = .failure(Status(.internal, "\(error)"))
      }
      mailbox.yield(.finished(reference, result))
    }
  }

  /// The link of a task that runs or waits to be answered.
  private func holder(of reference: TaskReference) -> LinkID? { running[reference]?.link ?? pending[reference]?.link }

  private func cancel(_ envelope: Envelope, reason: String, link id: LinkID) async {
    guard let reference = envelope.task else {
      let status = Status(.invalidArgument, "the task is missing", field: "task")
      await send(Envelope(inReplyTo: envelope.messageID, body: .failed(status)), link: id)
      return
    }
    if let holder = holder(of: reference), holder != id {
      // It was claimed from the gateway that now cancels it, or never was that one's.
      let status = Status(.notFound, "task \(reference) runs for another gateway")
      await send(Envelope(inReplyTo: envelope.messageID, task: reference, body: .failed(status)), link: id)
      return
    }
    if let task = running[reference] {
      logger.info("cancelling a task", metadata: ["task": "\(reference)", "reason": "\(reason)"])
      task.context.cancel(Status(.cancelled, reason))
    } else if pending.removeValue(forKey: reference) == nil {
      let status = Status(.notFound, "task \(reference) does not run here")
      await send(Envelope(inReplyTo: envelope.messageID, task: reference, body: .failed(status)), link: id)
    } else {
      await send(
        Envelope(inReplyTo: envelope.messageID, task: reference, body: .failed(Status(.cancelled, reason))), link: id
      )
    }
  }

  /// Progress is sent when it can be and forgotten when not.
  func report(_ reference: TaskReference, _ body: Body, _ tensors: [WireTensor]) async {
    guard let task = running[reference] else { return }
    if case .progress(let progress) = body {
      task.trace.step(progress.completedSteps, seconds: progress.stepSeconds)
      task.trace.context.measuring {
        metrics.stepped(progress.completedSteps - task.completedSteps, seconds: progress.stepSeconds)
      }
      running[reference]?.completedSteps = progress.completedSteps
      running[reference]?.steps = progress.steps
      running[reference]?.stepAt = time.elapsed
    }
    guard links[task.link]?.registered != nil else { return }
    await send(
      Envelope(
        inReplyTo: task.requestMessageID, task: reference, traceparent: task.context.traceparent, body: body,
        tensors: tensors),
      link: task.link)
  }

  func finish(_ reference: TaskReference, _ result: Result<StageOutput, Status>) async {
    guard let task = running.removeValue(forKey: reference) else { return }
    let seconds = (time.elapsed - task.startedAt) / .seconds(1)
    var answer = Envelope(
      inReplyTo: task.requestMessageID, task: reference, traceparent: task.context.traceparent, body: .accepted)
    var outcome = StatusCode.ok
    switch result {
    case .success(let output):
      answer.body = output.response
      answer.tensors = output.tensors
    case .failure(let status):
      outcome = status.code == .ok ? .internal : status.code
      answer.body = .failed(
        Status(outcome, Self.bounded(status.message, 4000), field: status.field.map { Self.bounded($0, 250) }))
    }
    if outcome == .ok { tasksDone += 1 } else { tasksFailed += 1 }
    creditsChanged(by: task.link)
    task.trace.context.measuring { metrics.finished(outcome.name, seconds: seconds) }
    task.trace.end(result)
    metrics.running(running.count)
    logger.info(
      "task ended", metadata: ["task": "\(reference)", "outcome": "\(outcome.name)", "seconds": "\(seconds)"])
    // A task that is refused for an adapter that has gone must not come back.
    await announceAdapters(link: task.link)
    pending[reference] = PendingAnswer(link: task.link, envelope: answer)
    await deliver(reference)
  }

  /// Sends an answer, or keeps it until the gateway is back.
  func deliver(_ reference: TaskReference) async {
    guard let answer = pending[reference], let link = links[answer.link], link.registered != nil else { return }
    do {
      try await link.socket.send(answer.envelope)
      pending[reference] = nil
    } catch .unsendable(let error) {
      // The stage made something that the wire does not carry.
      pending[reference] = nil
      logger.error("the stage's answer cannot be sent", metadata: ["task": "\(reference)", "error": "\(error)"])
      var failure = answer.envelope
      failure.body = .failed(Status(.internal, "the stage's answer cannot be sent: \(error)"))
      failure.tensors = []
      await send(failure, link: answer.link)
    } catch {
      // Tried again at the next tick.
    }
  }

  /// `text` within `maxBytes` of UTF-8, without NULs, which the wire does not carry.
  private static func bounded(_ text: String, _ maxBytes: Int) -> String {
    var result = ""
    var bytesLeft = maxBytes
    for scalar in text.unicodeScalars where scalar != "\0" {
      bytesLeft -= UTF8.width(scalar)
      guard bytesLeft >= 0 else { break }
      result.unicodeScalars.append(scalar)
    }
    return result
  }
}
