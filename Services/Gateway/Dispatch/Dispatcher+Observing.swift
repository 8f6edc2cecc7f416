import ClusterCore
import Scheduling

/// What the observer learns of events, before the scheduler does, and of effects, before they are carried out.
extension Dispatcher {
  func observe(_ event: Event) {
    let now = now
    switch event {
    case .imagesSubmitted(let submissions):
      for submission in submissions {
        observer.submitted(submission, traceparent: jobs.images[submission.id]?.traceparent, now: now)
      }
    case .restored(let restored):
      for job in restored {
        observer.submitted(job.submission, traceparent: jobs.images[job.submission.id]?.traceparent, now: now)
        observer.admitted(job.submission.id, isRestored: true, now: now)
      }
    case .taskProgressed(let attempt, _, let report): observer.stepped(attempt, report)
    case .taskFinished(let attempt, _, _): observer.ended(attempt, nil, now: now)
    case .taskFailed(let attempt, _, let status): observer.ended(attempt, status, now: now)
    default: break
    }
  }

  func observe(_ effect: Effect) {
    let now = now
    switch effect {
    case .admitted(let id): observer.admitted(id, now: now)
    case .rejected(let id, let status): observer.rejected(id, status)
    case .offer(let offer, let id):
      guard let worker = workers.session(id)?.register else { return }
      observer.offered(
        offer, to: id, worker.stage, named: worker.workerID,
        after: scheduler.waited(offer.attempt, at: id) ?? .zero, now: now)
    case .cancel(let attempt, _, let reason): observer.ended(attempt, Status(.cancelled, reason), now: now)
    case .image(let id, .started(_, isMain: true, _)): observer.started(id, now: now)
    // After a restart, a worker may be at it still: there is no other sign of that.
    case .image(let id, .progressed): observer.started(id, now: now)
    case .image(_, .retrying(let stage, _)): observer.retrying(stage)
    case .image(let id, .finished): observer.ended(id, nil, now: now)
    case .image(let id, .failed(let status)): observer.ended(id, status, now: now)
    case .worker(let id, let event):
      guard let stage = workers.session(id)?.register.stage else { return }
      switch event {
      case .joined: observer.show(stage)
      case .quarantined: observer.quarantined(stage)
      case .gone(let reason): observer.lost(id, stage, because: reason, now: now)
      }
    default: break
    }
  }

  func recordMetrics(_ status: ClusterStatus) {
    observer.record(
      status, payloadBytes: payloads.byteCount, secondsPerCost: { scheduler.typicalSeconds(of: $0) }, now: now)
  }
}
