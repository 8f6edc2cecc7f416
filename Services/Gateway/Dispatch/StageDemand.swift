import ClusterCore
import Foundation
import Scheduling

/// How much work arrives at each stage and how much waits, from which follows how many workers the stage needs.
///
/// With λ, the cost that arrives per second; B, the cost that queued jobs hold; t, the seconds for which a unit of cost
/// holds a credit of a worker, as measured; c, the credits of a worker; D, the time in which a backlog shall be gone;
/// and ρ, the share of its credits that a worker shall be busy with at most:
///
///     workers wanted = t · (λ + B ÷ D) ÷ (c · ρ)
///
/// It is at least 1 while any open job needs the stage, and 0 when there is none and none has arrived lately. A stage
/// that was never measured needs the workers that it has, or one.
package struct StageDemand {
  /// Over which arrivals are averaged: the time constant of an exponential average, in seconds.
  package static let windowSeconds = 60.0
  /// ρ.
  package static let busyTarget = 0.8
  /// Arrivals of which less than this share of a worker is left count as none.
  private static let negligible = 0.01

  private struct Stage {
    /// Costs that have arrived, each weighted by e^(−age ÷ window), as of `updatedAt`.
    var arrived = 0.0
    var updatedAt = Instant.zero
    /// Of jobs whose main work has not begun.
    var queuedCost = 0.0
    /// Jobs that have not ended and have a task for the stage.
    var openCount = 0
    /// The last that workers had, on average.
    var creditsPerWorker = 1.0
  }

  private var stages: [StageName: Stage] = [:]
  /// D, in seconds.
  private let drainSeconds: Double

  /// No demand. A backlog shall be gone after `drainSeconds`.
  package init(drainSeconds: Double) { self.drainSeconds = drainSeconds }

  /// Stages that jobs have asked for.
  package var names: some Sequence<StageName> { stages.keys }

  /// A job is admitted.
  package mutating func arrive(_ costs: [StageName: Double], now: Instant) {
    for (name, cost) in costs {
      var stage = stages[name] ?? Stage()
      stage.arrived = Self.faded(stage, now) + cost
      stage.updatedAt = now
      stage.queuedCost += cost
      stage.openCount += 1
      stages[name] = stage
    }
  }

  /// A queued job's main work begins.
  package mutating func start(_ costs: [StageName: Double]) {
    for (name, cost) in costs { stages[name]?.queuedCost -= cost }
  }

  /// A job ends; its work counts no more if it was still queued.
  package mutating func end(_ costs: [StageName: Double], wasQueued: Bool) {
    if wasQueued { start(costs) }
    for name in costs.keys {
      stages[name]?.openCount -= 1
      // What rounding has left.
      if stages[name]?.openCount == 0 { stages[name]?.queuedCost = 0 }
    }
  }

  /// How many workers the stage needs.
  ///
  /// - Parameters:
  ///   - name: the stage.
  ///   - workers: those that take its tasks now.
  ///   - credits: of these workers together.
  ///   - secondsPerCost: for which a unit of cost holds a credit; nil: never measured.
  package mutating func workersWanted(
    _ name: StageName, workers: Int, credits: Int, secondsPerCost: Double?, now: Instant
  ) -> Double {
    if workers > 0 { stages[name, default: Stage()].creditsPerWorker = max(1, Double(credits) / Double(workers)) }
    guard let stage = stages[name] else { return 0 }
    let least = stage.openCount > 0 ? 1.0 : 0
    guard let secondsPerCost else { return stage.openCount > 0 ? max(least, Double(workers)) : 0 }
    let arriving = Self.faded(stage, now) / Self.windowSeconds
    let credits = secondsPerCost * (arriving + max(0, stage.queuedCost) / drainSeconds) / Self.busyTarget
    let wanted = credits / stage.creditsPerWorker
    return wanted < Self.negligible ? least : max(least, wanted)
  }

  private static func faded(_ stage: Stage, _ now: Instant) -> Double {
    stage.arrived * exp(-(now - stage.updatedAt).seconds / windowSeconds)
  }
}
