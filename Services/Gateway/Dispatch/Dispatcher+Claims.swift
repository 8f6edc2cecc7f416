import ClusterCore
import Scheduling
import Wire

/// Attempts that are claimed, until a worker has them or it is too late.
struct OpenClaims {
  private var claims: [StageName: [AttemptID: Instant]] = [:]

  mutating func add(_ attempts: [AttemptID], of stage: StageName, until end: Instant) {
    for attempt in attempts { claims[stage, default: [:]][attempt] = end }
  }

  /// A worker has said that it runs them.
  mutating func remove(_ attempts: [AttemptID], of stage: StageName) {
    for attempt in attempts { claims[stage]?[attempt] = nil }
  }

  /// What workers of `stage` may still have, in a fixed order.
  mutating func attempts(of stage: StageName, now: Instant) -> [AttemptID] {
    guard let open = claims[stage]?.filter({ $0.value > now }) else { return [] }
    claims[stage] = open.isEmpty ? nil : open
    return open.keys.sorted { $0.description < $1.description }
  }
}

/// Tasks that workers have from a gateway whose jobs are this one's now.
extension Dispatcher {
  /// Claims what workers run of `attempts`: they are told at once, and those that register within `period` then. A
  /// worker that has any registers again, which names them, and the scheduler adopts those that are still their tasks'
  /// current attempts; from then on nobody else can cancel them. Workers of earlier versions are not asked: their
  /// tasks are made again.
  func claim(_ attempts: [AttemptID], of stage: StageName, for period: Duration) {
    guard !attempts.isEmpty else { return }
    logger.info("claiming tasks", metadata: ["stage": "\(stage)", "tasks": "\(attempts.count)"])
    claims.add(attempts, of: stage, until: now + period)
    for session in workers.sessions.values where session.register.stage == stage { send(attempts, to: session) }
  }

  /// What a worker that has registered may still have under another gateway's name. What it has named is settled.
  func repeatClaims(to session: WorkerDirectory.Session) {
    let stage = session.register.stage
    claims.remove(session.register.running.compactMap(\.attemptID), of: stage)
    send(claims.attempts(of: stage, now: now), to: session)
  }

  private func send(_ attempts: [AttemptID], to session: WorkerDirectory.Session) {
    guard session.register.takesClaims else { return }
    let limit = WireLimits().maxListElements
    for start in stride(from: 0, to: attempts.count, by: limit) {
      let tasks = attempts.dropFirst(start).prefix(limit).map { TaskReference($0) }
      send(Envelope(body: .claim(tasks)), to: session.id)
    }
  }
}
