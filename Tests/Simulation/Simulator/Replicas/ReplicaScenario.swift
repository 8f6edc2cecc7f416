import Scheduling

/// A rule that is left out of a cluster with several gateways, to see that the simulator notices.
package enum ReplicaMutation: String, CaseIterable, Sendable {
  /// The journal takes writes of owners whose lease has ended.
  case fencing = "lease-fencing"
  /// Owners number their payloads alike.
  case payloadEpoch = "payload-epoch"
  /// Attempts of adopted jobs are numbered like those of their earlier owner.
  case adoptedNumbers = "adopted-numbers"
  /// Attempts of adopted jobs are offered before the journal knows their numbers.
  case reservation
  /// A gateway looks for jobs without an owner only when it is notified of some.
  case lookAtRenewals = "look-at-renewals"
  /// Two gateways adopt one job.
  case adoption
  /// The journal takes one key from two owners.
  case uniqueKeys = "unique-keys"
  /// A cancelled job's owner is not notified by the gateway that was asked to cancel it.
  case forwardedCancel = "forwarded-cancel"
  /// The worker takes more tasks than it has credits, as long as each gateway keeps to them.
  case workerCredits = "worker-credits"
}

/// How rough the world of a seed with several gateways is.
struct ReplicaScenario {
  let gatewayCount: Int
  let clientCount: Int
  let chaosMs: Int
  let maxDelayMs: Int
  let maxCommitMs: Int
  let hasTwoClasses: Bool
  let workerFaults: Int
  /// Of each kind.
  let gatewayFaults: Int
  let journalOutages: Int
  let messageLoss: Double
  let failureChance: Double
  let maxJobs: Int

  init(_ random: inout SeededGenerator) {
    gatewayCount = random.pick(1...4)
    clientCount = random.pick(4...12)
    chaosMs = random.pick(30...90) * 1000
    maxDelayMs = random.chance(0.5) ? 20 : random.pick(100...1500)
    maxCommitMs = random.chance(0.5) ? 10 : random.pick(50...1000)
    hasTwoClasses = random.chance(0.4)
    workerFaults = random.pick(0...6)
    gatewayFaults = random.pick(0...8)
    journalOutages = random.chance(0.6) ? 0 : random.pick(1...2)
    messageLoss = random.chance(0.5) ? 0 : 0.3
    failureChance = random.chance(0.6) ? 0 : 0.02
    maxJobs = random.chance(0.3) ? 6 : 64
  }

  /// How long an owner's lease holds after its renewal.
  static let leaseMs = 5000
  /// How often owners renew it.
  static let renewalMs = 1000
  /// A job without an owner is adopted within this, while some gateway can.
  static let adoptionLimitMs = leaseMs + 10_000
  /// A worker gives the tasks of a gateway up that it has not been connected to for this long.
  static let orphanMs = 60_000
}
