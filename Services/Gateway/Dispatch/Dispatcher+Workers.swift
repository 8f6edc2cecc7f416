import ClusterCore
import GatewayPipelines
import ImageCodec
import Scheduling
import Transport
import Wire

/// What goes to workers and what comes from them.
extension Dispatcher {
  // MARK: Sending

  func send(_ offer: Offer, to worker: WorkerID) -> Event? {
    guard let image = jobs.imageAtWork(offer.job) else {
      return .taskFailed(offer.attempt, by: worker, Status(.internal, "image \(offer.job) is not known"))
    }
    let task = image.tasks[offer.index]
    let inputs = offer.inputs.compactMap { payloads[$0] }
    for (index, output) in zip(task.plan.inputs, inputs) {
      let count = image.tasks[index].promptTokens(output)
      if count > 0 { jobs.setPromptTokens(count, ofTask: index, of: offer.job) }
    }
    let resume = offer.resume.flatMap { checkpoint in
      payloads[checkpoint.latents].map { (checkpoint.completedSteps, $0) }
    }
    var message = task.message(
      TaskInput(
        inputs: inputs, resume: resume, checkpointInterval: configuration.checkpointInterval,
        previewMap: task.preview == nil || !showsPreviews || offer.attempt.assistance > 0
          ? nil : workers.previewMap(of: image.spec.card.model)))
    if offer.attempt.assistance > 0 { message.predictBranch(1) }
    for input in task.images {
      guard let tensor = jobs.inputs[input.digest] else {
        return .taskFailed(offer.attempt, by: worker, Status(.dataLoss, "an image of the request is lost"))
      }
      message.tensors.append(tensor.renamed(input.name))
    }
    send(
      Envelope(
        task: TaskReference(offer.attempt), deadlineUnixMs: offer.deadline.map(unixMs),
        traceparent: observer.traceparent(of: offer.attempt) ?? image.traceparent, body: message.body,
        tensors: message.tensors),
      to: worker)
    return nil
  }

  func cancel(_ attempt: AttemptID, at worker: WorkerID, reason: String) {
    send(Envelope(task: TaskReference(attempt), body: .cancel(reason: String(reason.prefix(500)))), to: worker)
  }

  func tellLoss(of attempt: AttemptID, at worker: WorkerID, reason: String) {
    logger.info("an assistant is released or lost", metadata: ["task": "\(attempt)", "reason": "\(reason)"])
    send(Envelope(task: TaskReference(attempt), body: .exchange(Exchange(.lost))), to: worker)
  }

  func switchModel(of worker: WorkerID, to model: ModelIdentity) {
    logger.info("switching models", metadata: ["worker": "\(workers.name(of: worker))", "model": "\(model.id)"])
    send(Envelope(body: .switchModel(model)), to: worker)
  }

  func send(_ envelope: Envelope, to worker: WorkerID) {
    guard let session = workers.session(worker) else { return }
    outbox.append(envelope, worker: worker, peer: session.peer)
  }

  /// The wall clock's time of an instant, in milliseconds since 1970.
  private func unixMs(_ instant: Instant) -> UInt64 {
    UInt64(max(1, time.unixMs + Int64((instant - now) / .milliseconds(1))))
  }

  /// Sends what has come together.
  func sendWaiting() async {
    let sent = outbox.take()
    let errors = await outbox.router.send(sent.map(\.message))
    for (place, error) in errors.sorted(by: { $0.key < $1.key }) {
      note(error, sending: sent[place].message, to: sent[place].worker)
    }
  }

  private func note(_ error: TransportError, sending message: Outbound, to worker: WorkerID?) {
    logger.warning(
      "a message could not be sent",
      metadata: ["message": "\(message.envelope.body.name)", "peer": "\(message.peer)", "error": "\(error)"])
    guard let worker else { return }
    switch (error, message.envelope.task?.attemptID) {
    case (.peerUnreachable, _), (.closed, _): process(.workerLeft(worker, reason: "\(error)"))
    case (.unsendable, .some(let attempt)):
      process(.taskFailed(attempt, by: worker, Status(.invalidArgument, "\(error)")))
    case (_, .some(let attempt)): process(.taskFailed(attempt, by: worker, Status(.unavailable, "\(error)")))
    case (_, nil): break
    }
  }

  func note(_ id: WorkerID, _ event: WorkerEvent) {
    let name = workers.name(of: id)
    switch event {
    case .joined: logger.info("worker registered", metadata: ["worker": "\(name)"])
    case .gone(let reason):
      logger.info("worker disconnected", metadata: ["worker": "\(name)", "reason": "\(reason)"])
      workers.remove(id)
    case .quarantined(_, let reason):
      logger.warning("worker quarantined", metadata: ["worker": "\(name)", "reason": "\(reason)"])
    }
  }

  // MARK: Receiving

  /// Takes what the router socket has received.
  func receive(_ events: [RouterEvent]) {
    for event in events {
      switch event {
      case .message(let inbound): receive(inbound.envelope, from: inbound.peer)
      case .malformed(let peer, let malformed): refuse(malformed, from: peer)
      case .disconnected(let peer):
        if let session = workers.session(of: peer) {
          process(.workerLeft(session.id, reason: "the connection is closed"))
        }
      }
    }
  }

  private func receive(_ envelope: Envelope, from peer: PeerID) {
    if case .register(let register) = envelope.body {
      self.register(register, envelope, from: peer)
      return
    }
    guard let session = workers.session(of: peer) else {
      answer(
        .failed(Status(.failedPrecondition, "this connection has no session: register first")), to: envelope, at: peer)
      return
    }
    switch envelope.body {
    case .heartbeat(let heartbeat): take(heartbeat, envelope, session)
    case .servedAdapters(let announcement): take(announcement, session)
    case .draining(let reason):
      logger.info("worker draining", metadata: ["worker": "\(session.register.workerID)", "reason": "\(reason)"])
      process(.workerDraining(session.id))
    case .goodbye(let reason): process(.workerLeft(session.id, reason: reason.isEmpty ? "the worker has left" : reason))
    case .accepted, .failed, .progress, .encodeResponse, .denoiseResponse, .decodeResponse, .encodeImageResponse,
      .runResponse:
      takeAnswer(envelope, session)
    case .exchange(let message): passOn(message, envelope, from: session)
    case .register, .registered, .heartbeatReply, .cancel, .claim, .switchModel, .encodeRequest, .denoiseRequest,
      .decodeRequest, .encodeImageRequest, .runRequest:
      answer(.failed(Status(.unimplemented, "a gateway takes no \(envelope.body.name)")), to: envelope, at: peer)
    }
  }

  private func answer(_ body: Body, to envelope: Envelope, at peer: PeerID) {
    let reply = Envelope(inReplyTo: envelope.messageID == 0 ? nil : envelope.messageID, body: body)
    outbox.append(reply, worker: workers.session(of: peer)?.id, peer: peer)
  }

  // MARK: Sessions

  private func register(_ register: Register, _ envelope: Envelope, from peer: PeerID) {
    let earlier = workers.session(of: peer)?.register.workerID
    let session: WorkerDirectory.Session
    do throws(Status) {
      session = try workers.admit(
        register, from: peer, previewMap: envelope.tensor(TensorName.previewMap), nowUnix: Int(time.unixMs / 1000))
    } catch {
      logger.warning("worker refused", metadata: ["worker": "\(register.workerID)", "reason": "\(error)"])
      answer(.failed(error), to: envelope, at: peer)
      return
    }
    let registered = Registered(
      sessionID: workers.sessionName(of: session.id),
      heartbeatIntervalMs: Int(configuration.heartbeatInterval / .milliseconds(1)),
      leaseMs: Int(configuration.scheduling.lease / .milliseconds(1)), takesAdapters: true,
      gatewayID: workers.instance)
    answer(.registered(registered), to: envelope, at: peer)
    let running = register.running.compactMap(\.attemptID)
    process(
      .workerRegistered(
        WorkerRegistration(
          id: session.id, name: register.workerID, stage: register.stage, model: session.model,
          pipelines: register.card.pipelines,
          standby: Dictionary(register.standbyCards.map { ($0.model, $0.pipelines) }) { first, _ in first },
          numericsClass: register.numericsClass, credits: register.credits, assists: register.assists,
          running: running,
          foreignCount: register.running.count - running.count, keepsConnection: earlier == register.workerID)))
    updateCatalog()
  }

  private func take(_ heartbeat: Heartbeat, _ envelope: Envelope, _ session: WorkerDirectory.Session) {
    guard heartbeat.sessionID == workers.sessionName(of: session.id) else {
      let status = Status(
        .failedPrecondition, "session \(heartbeat.sessionID) is over: register again", field: "session_id")
      answer(.failed(status), to: envelope, at: session.peer)
      return
    }
    workers.note(heartbeat, of: session.id)
    answer(.heartbeatReply, to: envelope, at: session.peer)
    let completed = completions.filter { $0.value.worker == session.id }.map(\.key)
    let running = heartbeat.running.compactMap(\.task.attemptID) + completed
    // A worker that serves several gateways has fewer free credits than its tasks of this one leave.
    let foreignCount = max(0, session.register.credits - heartbeat.freeCredits - running.count)
    let report = WorkerReport(running: running, foreignCount: foreignCount, isDraining: heartbeat.draining)
    process(.workerReported(session.id, report))
  }

  // MARK: Answers to tasks

  private func takeAnswer(_ envelope: Envelope, _ session: WorkerDirectory.Session) {
    guard let attempt = envelope.task?.attemptID else {
      if case .failed(let status) = envelope.body {
        logger.warning(
          "a worker reports an error", metadata: ["worker": "\(session.register.workerID)", "error": "\(status)"])
      } else {
        answer(
          .failed(Status(.invalidArgument, "the message is about no task of this gateway", field: "task")),
          to: envelope, at: session.peer)
      }
      return
    }
    switch envelope.body {
    case .accepted: process(.taskAccepted(attempt, by: session.id))
    case .failed(let status): process(.taskFailed(attempt, by: session.id, status))
    case .progress(let progress): takeProgress(progress, envelope, of: attempt, session)
    default: takeOutput(envelope, of: attempt, session)
    }
  }

  /// The task that an attempt is at, as long as its answers count.
  private func task(of attempt: AttemptID) -> PipelineTask? {
    scheduler.waiter(for: attempt).flatMap { waiter in jobs.images[waiter.job]?.tasks[waiter.index] }
  }

  private func takeProgress(
    _ progress: Progress, _ envelope: Envelope, of attempt: AttemptID, _ session: WorkerDirectory.Session
  ) {
    guard let task = task(of: attempt) else { return }
    do throws(Status) {
      var checkpoint: Payload?
      if let rule = task.checkpoint, envelope.tensor(rule.name) != nil {
        checkpoint = payloads.insert(try rule.tensor(of: envelope, stage: task.plan.stage))
      }
      let report = StepReport(
        completedSteps: progress.completedSteps, stepSeconds: progress.stepSeconds, checkpoint: checkpoint,
        checkpointSteps: progress.checkpointSteps > 0 ? progress.checkpointSteps : nil)
      process(.taskProgressed(attempt, by: session.id, report))
      takePreview(envelope, of: attempt, session)
    } catch {
      // The worker is still at it.
      cancel(attempt, at: session.id, reason: error.message)
      process(.taskFailed(attempt, by: session.id, error))
    }
  }

  /// Two workers that make an image's predictions together know one another through the gateway only. What one says
  /// when the other is gone is of no use.
  private func passOn(_ message: Exchange, _ envelope: Envelope, from session: WorkerDirectory.Session) {
    guard let attempt = envelope.task?.attemptID, let partner = scheduler.partner(of: attempt, at: session.id),
      (attempt.assistance == 0) == (message.kind == .state), message.kind != .lost
    else { return }
    send(
      Envelope(
        task: TaskReference(partner.id), traceparent: envelope.traceparent, body: envelope.body,
        tensors: envelope.tensors), to: partner.worker)
  }

  /// What clients may see before it was judged: nothing, where images are.
  private var showsPreviews: Bool { reviewer?.judgesResults != true }

  /// Shows what the image looks like so far to those who watch. It is kept in memory only, and no reason to fail.
  private func takePreview(_ envelope: Envelope, of attempt: AttemptID, _ session: WorkerDirectory.Session) {
    guard showsPreviews, let waiter = scheduler.waiter(for: attempt), let image = jobs.images[waiter.job],
      let rule = image.tasks[waiter.index].preview, envelope.tensor(rule.name) != nil
    else { return }
    do throws(Status) {
      let tensor = try rule.tensor(of: envelope, stage: session.register.stage)
      let pixels = tensor.bytes.withUnsafeBytes { [UInt8]($0) }
      let raster = RasterImage(width: tensor.shape[1], height: tensor.shape[0], pixels: pixels)
      jobs.notify(waiter.job, preview: raster, origin: provenance.previewOrigin(of: image.spec))
    } catch {
      logger.warning(
        "a preview is not shown", metadata: ["worker": "\(session.register.workerID)", "reason": "\(error.message)"])
    }
  }

  private func takeOutput(_ envelope: Envelope, of attempt: AttemptID, _ session: WorkerDirectory.Session) {
    guard let task = task(of: attempt) else {
      // The attempt does not count, but its credit is free again.
      process(.taskFailed(attempt, by: session.id, Status(.cancelled, "no client waits for the answer any more")))
      return
    }
    do throws(Status) {
      let output = try task.output.tensor(of: envelope, stage: task.plan.stage)
      if let image = image(endingWith: attempt), provenance.isAdded || reviewer != nil {
        complete(output, of: image, attempt, by: session.id)
      } else {
        process(.taskFinished(attempt, by: session.id, output: payloads.insert(output)))
      }
    } catch {
      process(.taskFailed(attempt, by: session.id, error))
    }
  }

  /// The image whose result the attempt gives; nil: it is at a task whose output other tasks take.
  private func image(endingWith attempt: AttemptID) -> JobRegistry.Image? {
    guard let waiter = scheduler.waiter(for: attempt), let image = jobs.images[waiter.job],
      waiter.index == image.tasks.count - 1
    else { return nil }
    return image
  }

  /// Has the result judged, and adds what files say about their origin, before it counts as finished: the journal gets
  /// the bytes that clients get, and a signature is made once. Both take a while, so that is not done here.
  private func complete(
    _ output: WireTensor, of image: JobRegistry.Image, _ attempt: AttemptID, by worker: WorkerID
  ) {
    guard completions[attempt] == nil else { return }
    let (spec, reference) = (image.spec, image.reference)
    let task = Task.detached { [provenance, reviewer, weak self] in
      var result: Result<WireTensor, Status>
      do throws(Status) {
        try await reviewer?.review(output, of: spec, job: reference.job, index: reference.index)
        result = .success(try provenance.adding(to: output, of: spec))
      } catch {
        result = .failure(error)
      }
      await self?.takeCompleted(result, attempt, by: worker)
    }
    completions[attempt] = (worker, task)
  }

  private func takeCompleted(_ result: Result<WireTensor, Status>, _ attempt: AttemptID, by worker: WorkerID) {
    // At the end of this run nothing counts any more.
    guard completions.removeValue(forKey: attempt) != nil else { return }
    guard task(of: attempt) != nil else {
      process(.taskFailed(attempt, by: worker, Status(.cancelled, "no client waits for the answer any more")))
      return
    }
    do throws(Status) {
      process(.taskFinished(attempt, by: worker, output: payloads.insert(try result.get())))
    } catch {
      process(.taskFailed(attempt, by: worker, error))
    }
  }

  /// A message that could not be decoded: the sender learns it, and the attempt that it was about is over.
  private func refuse(_ malformed: Malformed, from peer: PeerID) {
    let id = malformed.header.messageID
    let session = workers.session(of: peer)
    let envelope = Envelope(
      inReplyTo: id == 0 ? nil : id, task: malformed.header.task, body: .failed(malformed.error.status))
    outbox.append(envelope, worker: session?.id, peer: peer)
    // What a later version says besides is no reason to give the attempt up.
    if case .unknownBody = malformed.error { return }
    guard let session, let attempt = malformed.header.task?.attemptID else { return }
    let name = session.register.workerID
    process(
      .taskFailed(
        attempt, by: session.id, Status(.dataLoss, "worker \(name) sent a message that is broken: \(malformed.error)")))
  }
}

/// The scheduler's names ↔ the wire's.
extension TaskReference {
  init(_ attempt: AttemptID) {
    let assistance = attempt.assistance == 0 ? "" : ".\(attempt.assistance)"
    self.init(jobID: attempt.task.job.text, taskID: "\(attempt.task.index)\(assistance)", attempt: attempt.number)
  }

  /// nil: not a name that a gateway gives.
  package var attemptID: AttemptID? {
    let numbers = taskID.split(separator: ".", omittingEmptySubsequences: false)
    guard attempt > 0, numbers.count <= 2, let index = Int(numbers[0]),
      let assistance = numbers.count == 1 ? 0 : UInt64(numbers[1])
    else { return nil }
    let id = AttemptID(
      task: TaskID(job: ImageJobID(jobID), index: index), number: attempt, assistance: assistance)
    return TaskReference(id) == self ? id : nil
  }
}
