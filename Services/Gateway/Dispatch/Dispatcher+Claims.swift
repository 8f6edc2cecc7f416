import Scheduling
import Wire

/// Tasks that workers have from a gateway whose jobs are this one's now.
extension Dispatcher {
  /// Asks a worker whether it runs any of `attempts`, or holds its answer: then it registers again, which names them,
  /// and the scheduler adopts those that are still their tasks' current attempts; from then on no other gateway can
  /// cancel them. Workers of earlier versions are not asked: their tasks are made again.
  func claim(_ attempts: [AttemptID], at worker: WorkerID) {
    guard let session = workers.session(worker), session.register.takesClaims else { return }
    logger.info(
      "claiming tasks", metadata: ["worker": "\(session.register.workerID)", "tasks": "\(attempts.count)"])
    let limit = WireLimits().maxListElements
    for start in stride(from: 0, to: attempts.count, by: limit) {
      send(Envelope(body: .claim(attempts.dropFirst(start).prefix(limit).map { TaskReference($0) })), to: worker)
    }
  }
}
