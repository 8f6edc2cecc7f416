import Scheduling
import Transport
import Wire

extension Dispatcher {
  /// Takes what the router socket has received.
  func receive(_ event: RouterEvent) {
    switch event {
    case .message(let inbound): receive(inbound.envelope, from: inbound.peer)
    case .malformed(let peer, let malformed): refuse(malformed, from: peer)
    case .disconnected(let peer):
      if let session = registry.session(of: peer) { process(.workerLeft(session.id, reason: "the connection is closed")) }
    }
  }

  private func receive(_ envelope: Envelope, from peer: PeerID) {
    if case .register(let register) = envelope.body {
      self.register(register, envelope, from: peer)
      return
    }
    guard let session = registry.session(of: peer) else {
      let status = Status(.failedPrecondition, "this connection has no session: register first")
      answer(.failed(status), to: envelope, at: peer)
      return
    }
    switch envelope.body {
    case .heartbeat(let heartbeat): take(heartbeat, envelope, session)
    case .draining(let reason):
      logger.info("a worker is draining", metadata: ["worker": "\(session.register.workerID)", "reason": "\(reason)"])
      process(.workerDraining(session.id))
    case .goodbye(let reason): process(.workerLeft(session.id, reason: reason.isEmpty ? "the worker said goodbye" : reason))
    case .accepted, .failed, .denoiseProgress, .encodeResponse, .denoiseResponse, .decodeResponse:
      takeAnswer(envelope, session)
    case .register, .registered, .heartbeatReply, .cancel, .drain, .encodeRequest, .denoiseRequest, .decodeRequest:
      answer(.failed(Status(.unimplemented, "a gateway takes no \(envelope.body.name)")), to: envelope, at: peer)
    }
  }

  private func answer(_ body: Body, to envelope: Envelope, at peer: PeerID) {
    let reply = Envelope(inReplyTo: envelope.messageID == 0 ? nil : envelope.messageID, body: body)
    outbox.yield(Outgoing(envelope: reply, worker: registry.session(of: peer)?.id, peer: peer))
  }

  // MARK: Sessions

  private func register(_ register: Register, _ envelope: Envelope, from peer: PeerID) {
    let earlier = registry.session(of: peer)?.register.workerID
    let session: PeerRegistry.Session
    do throws(Status) {
      session = try registry.admit(register, from: peer)
    } catch {
      logger.warning("a worker was refused", metadata: ["worker": "\(register.workerID)", "reason": "\(error)"])
      answer(.failed(error), to: envelope, at: peer)
      return
    }
    let registered = Registered(
      sessionID: registry.name(of: session.id), heartbeatIntervalMs: milliseconds(configuration.heartbeatInterval),
      leaseMs: milliseconds(configuration.scheduling.lease))
    answer(.registered(registered), to: envelope, at: peer)
    catalog.insert(register.card, for: session.model)
    let running = register.running.compactMap(\.attemptID)
    process(
      .workerRegistered(
        WorkerRegistration(
          id: session.id, name: register.workerID, stage: Stage(register.stage), model: session.model,
          numericsClass: register.numericsClass, credits: register.credits, running: running,
          foreignCount: register.running.count - running.count, keepsConnection: earlier == register.workerID)))
    catalog.update(scheduler.status(now: now))
  }

  private func milliseconds(_ duration: Duration) -> Int { Int(duration / .milliseconds(1)) }

  private func take(_ heartbeat: Heartbeat, _ envelope: Envelope, _ session: PeerRegistry.Session) {
    guard heartbeat.sessionID == registry.name(of: session.id) else {
      let status = Status(.failedPrecondition, "session \(heartbeat.sessionID) is over: register again", field: "session_id")
      answer(.failed(status), to: envelope, at: session.peer)
      return
    }
    registry.note(heartbeat, of: session.id)
    answer(.heartbeatReply, to: envelope, at: session.peer)
    let running = heartbeat.running.compactMap(\.task.attemptID)
    // A worker that serves several gateways has fewer free credits than its tasks of this one leave.
    let foreignCount = max(0, session.register.credits - heartbeat.freeCredits - running.count)
    let report = WorkerReport(running: running, foreignCount: foreignCount, isDraining: heartbeat.draining)
    process(.workerReported(session.id, report))
  }

  // MARK: Answers to tasks

  private func takeAnswer(_ envelope: Envelope, _ session: PeerRegistry.Session) {
    guard let reference = envelope.task, let attempt = reference.attemptID else {
      if case .failed(let status) = envelope.body {
        logger.warning("a worker reports an error", metadata: ["worker": "\(session.register.workerID)", "error": "\(status)"])
      } else {
        answer(.failed(Status(.invalidArgument, "names no task of this gateway", field: "task")), to: envelope, at: session.peer)
      }
      return
    }
    switch envelope.body {
    case .accepted: process(.taskAccepted(attempt, by: session.id))
    case .failed(let status): process(.taskFailed(attempt, by: session.id, Failure(status)))
    case .denoiseProgress(let progress): takeProgress(progress, envelope, of: attempt, session)
    default: takeOutput(envelope, of: attempt, session)
    }
  }

  /// The job that an attempt is for, as long as its answers count; nil: they are of use to nobody.
  private func job(of attempt: AttemptID) -> (job: ImageJob, index: Int)? {
    scheduler.waiter(for: attempt).flatMap { waiter in records[waiter.job].map { ($0.job, waiter.index) } }
  }

  private func takeProgress(_ progress: DenoiseProgress, _ envelope: Envelope, of attempt: AttemptID, _ session: PeerRegistry.Session) {
    guard let (job, _) = job(of: attempt) else { return }
    do throws(Failure) {
      let checkpoint = envelope.tensors.isEmpty ? nil : payloads.insert(try job.latents(of: envelope))
      let report = StepReport(completedSteps: progress.completedSteps, stepSeconds: progress.stepSeconds, checkpoint: checkpoint)
      process(.taskProgressed(attempt, by: session.id, report))
    } catch {
      giveUp(attempt, error, session)
    }
  }

  private func takeOutput(_ envelope: Envelope, of attempt: AttemptID, _ session: PeerRegistry.Session) {
    guard let (job, index) = job(of: attempt) else {
      // The attempt does not count, but its credit is free again.
      process(.taskFailed(attempt, by: session.id, Failure(.cancelled, "nobody waits for the answer any more")))
      return
    }
    do throws(Failure) {
      let output = try job.output(of: envelope, index: index)
      process(.taskFinished(attempt, by: session.id, output: payloads.insert(output)))
    } catch {
      process(.taskFailed(attempt, by: session.id, error))
    }
  }

  /// Ends an attempt whose answers are broken while the worker is still at it.
  private func giveUp(_ attempt: AttemptID, _ failure: Failure, _ session: PeerRegistry.Session) {
    send(.cancel(reason: String(failure.message.prefix(500))), task: TaskReference(attempt), to: session.id)
    process(.taskFailed(attempt, by: session.id, failure))
  }

  /// A message that could not be decoded: the sender is told, and what it was about is over.
  private func refuse(_ malformed: Malformed, from peer: PeerID) {
    let id = malformed.header.messageID
    let session = registry.session(of: peer)
    let envelope = Envelope(inReplyTo: id == 0 ? nil : id, task: malformed.header.task, body: .failed(malformed.error.status))
    outbox.yield(Outgoing(envelope: envelope, worker: session?.id, peer: peer))
    guard let session, let attempt = malformed.header.task?.attemptID else { return }
    let name = session.register.workerID
    process(.taskFailed(attempt, by: session.id, Failure(.dataLoss, "worker \(name) sent a message that is broken: \(malformed.error)")))
  }
}
