/// Each job that no stage has begun the main work of knows how many such jobs come before it. With every job that begins,
/// all of them move on: only the first ones are notified at once, those behind them now and then.
extension Scheduler {
  /// Jobs that are notified at once.
  private static let promptPositions = 100
  /// Jobs that are notified at the next tick.
  private static let nearPositions = 2000
  /// How often those behind them are.
  private static let farInterval = Duration.seconds(2)
  /// A job behind the first ones is notified when its position has changed by this part of it.
  private static let farShare = 16

  /// Notifies the first jobs of their positions when those have changed.
  mutating func tellPositions() {
    guard isOrderNew else { return }
    isOrderNew = false
    areFarPositionsNew = true
    tellPositions(limit: Self.promptPositions)
  }

  /// Notifies the others.
  mutating func tellFarPositions(now: Instant) {
    guard areFarPositionsNew, queues.waitingCount > Self.promptPositions else { return }
    let isDue = now - positionsToldAt >= Self.farInterval || queues.waitingCount <= Self.nearPositions
    tellPositions(limit: isDue ? .max : Self.nearPositions)
    guard isDue else { return }
    areFarPositionsNew = false
    positionsToldAt = now
  }

  private mutating func tellPositions(limit: Int) {
    var known: [ImageJobID: JobEstimate]?
    for (index, id) in waitingOrder(limit: limit).enumerated() {
      let position = index + 1
      guard let job = jobs[id], job.position != position else { continue }
      if let told = job.position, index >= Self.promptPositions, abs(told - position) < position / Self.farShare {
        continue
      }
      jobs[id]?.position = position
      let estimates = known ?? recentEstimates(now: lastStepAt)
      known = estimates
      let estimate = estimates[id]
      effects.append(
        .image(
          id,
          .queued(
            position: position, secondsLeft: estimate?.secondsToEnd, secondsToStart: estimate?.secondsToStart)))
    }
  }

  /// What is to be expected, which may be a second old if it takes long to find out.
  private mutating func recentEstimates(now: Instant) -> [ImageJobID: JobEstimate] {
    if let lastEstimates, isEstimatingSlow, now - lastEstimates.at < .seconds(1) { return lastEstimates.jobs }
    let estimates = estimates(now: now)
    lastEstimates = (now, estimates)
    return estimates
  }
}
