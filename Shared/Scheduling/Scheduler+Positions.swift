/// Each job that no stage has begun the main work of knows how many such jobs come before it. With every job that
/// begins, all of them move on: only the first ones are notified at once, those behind them some at each tick.
extension Scheduler {
  /// Jobs that are notified at once.
  private static let promptPositions = 100
  /// Jobs that are looked at in one tick.
  private static let positionsPerTick = 4000
  /// A job behind the first ones is notified when its position has changed by this part of it.
  private static let farShare = 16

  /// Notifies the first jobs of their positions when those have changed.
  mutating func tellPositions() {
    guard isOrderNew else { return }
    isOrderNew = false
    areFarPositionsNew = true
    var estimates: [ImageJobID: JobEstimate]?
    for (index, id) in waitingOrder(limit: Self.promptPositions).enumerated() {
      guard let job = jobs[id], job.position != index + 1 else { continue }
      tell(id, position: index + 1, &estimates)
    }
  }

  /// Notifies others.
  mutating func tellFarPositions() {
    guard queues.waitingCount > Self.promptPositions, farPositions != nil || areFarPositionsNew else { return }
    if farPositions == nil { areFarPositionsNew = false }
    var (order, last) = farPositions ?? (waiting, 0)
    // Others are not to be copied while this is held.
    farPositions = nil
    var estimates: [ImageJobID: JobEstimate]?
    for _ in 0..<Self.positionsPerTick {
      guard let id = order.next() else { return }
      guard let job = jobs[id], !job.isStarted else { continue }
      last += 1
      guard last > Self.promptPositions else { continue }
      if let known = job.position, abs(known - last) <= last / Self.farShare { continue }
      tell(id, position: last, &estimates)
    }
    farPositions = (order, last)
  }

  private mutating func tell(_ id: ImageJobID, position: Int, _ estimates: inout [ImageJobID: JobEstimate]?) {
    jobs[id]?.position = position
    let known = estimates ?? recentEstimates(now: lastStepAt)
    estimates = known
    let estimate = known[id]
    effects.append(
      .image(
        id,
        .queued(position: position, secondsLeft: estimate?.secondsToEnd, secondsToStart: estimate?.secondsToStart)))
  }

  /// What is to be expected, which may be a second old if it takes long to find out.
  private mutating func recentEstimates(now: Instant) -> [ImageJobID: JobEstimate] {
    if let lastEstimates, isEstimatingSlow, now - lastEstimates.at < .seconds(1) { return lastEstimates.jobs }
    let estimates = estimates(now: now)
    lastEstimates = (now, estimates)
    return estimates
  }
}
