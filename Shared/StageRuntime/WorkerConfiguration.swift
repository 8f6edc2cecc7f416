import ClusterCore
import Foundation
import Logging
import Transport

/// How a worker presents itself and whom it serves.
public struct WorkerConfiguration: Sendable {
  /// The most gateways that a worker connects to.
  public static let maxLinks = 32

  /// The gateways' addresses; the worker connects to each and serves all. A host name that has several addresses stands
  /// for as many gateways, which have one CURVE key.
  public var gateways: [String]
  /// Whom to trust.
  public var security: DealerSecurity
  /// Tasks at a time.
  public var credits = 1
  /// Different for every process; the default is random.
  public var workerID = "worker-" + UUID().uuidString.lowercased()
  /// The machine, for people.
  public var host = ProcessInfo.processInfo.hostName
  /// The worker's version, for people.
  public var softwareVersion = ""
  /// Times and limits of the connections.
  public var transport = SocketOptions()
  /// Models that the process can load in place of the stage's: see ``Worker/nextModel``.
  public var standbyCards: [ModelCard] = []
  /// How long a drain waits for running tasks before it stops them.
  public var drainGraceMs = 30_000
  /// How long a stopped task has to reach its next step boundary before the worker leaves without it.
  public var stopWaitMs = 10_000
  /// An unanswered registration is repeated after this; a refused one too.
  public var registrationRetryMs = 3000
  /// Tasks of a gateway that has been silent for longer than the lease that it gave the worker and this are given up.
  /// Until then it, or another gateway that takes its jobs over, may claim them: longer than the lease that gateways
  /// have on their jobs in a shared journal, and the time it takes to read them.
  public var orphanTimeoutMs = 60_000
  /// How often the addresses of gateways' names are looked at; besides, when a connection is lost.
  public var resolveIntervalMs = 10_000
  /// Finds them.
  public var resolver: any NameResolver = SystemNameResolver()
  /// Where the worker's state is written for `--health`; nil: nowhere.
  public var healthFile: String?
  /// How often time-dependent matters are looked after.
  public var tickMs = 100
  /// Where the worker tells what it does.
  public var logger = Logger(label: "worker")

  /// A worker for `gateways`.
  public init(gateways: [String], security: DealerSecurity) {
    self.gateways = gateways
    self.security = security
  }

  /// Checks the values before anything is opened; every message names the setting.
  public func validate() throws(WorkerConfigurationError) {
    guard !gateways.isEmpty else {
      throw WorkerConfigurationError(setting: "gateways", reason: "at least one address is required")
    }
    guard Set(gateways).count == gateways.count else {
      throw WorkerConfigurationError(setting: "gateways", reason: "an address is listed twice")
    }
    guard gateways.count <= Self.maxLinks else {
      throw WorkerConfigurationError(
        setting: "gateways", reason: "\(gateways.count) addresses, but at most \(Self.maxLinks) are possible")
    }
    let ranges: [(String, Int, ClosedRange<Int>)] = [
      ("credits", credits, 1...1024), ("drainGraceMs", drainGraceMs, 0...86_400_000),
      ("stopWaitMs", stopWaitMs, 0...3_600_000),
      ("registrationRetryMs", registrationRetryMs, 10...3_600_000),
      ("orphanTimeoutMs", orphanTimeoutMs, 0...86_400_000),
      ("resolveIntervalMs", resolveIntervalMs, 1000...3_600_000), ("tickMs", tickMs, 1...10_000),
    ]
    for (setting, value, range) in ranges where !range.contains(value) {
      throw WorkerConfigurationError(
        setting: setting, reason: "\(value), but \(range.lowerBound)…\(range.upperBound) is required")
    }
  }
}

/// A setting that makes no sense.
public struct WorkerConfigurationError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The setting's name.
  public var setting: String
  /// What is wrong with it.
  public var reason: String
  /// Both.
  public var description: String { "\(setting): \(reason)" }
}
