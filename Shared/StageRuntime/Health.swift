import ClusterCore
import Foundation
import Wire

/// What a worker says of itself in its health file.
public struct HealthReport: Codable, Sendable, Equatable {
  /// The stages of a worker's life.
  public enum State: String, Codable, Sendable {
    /// Weights are being loaded.
    case loading
    /// No gateway has accepted the registration yet, or all are lost.
    case connecting
    /// At least one gateway may send tasks.
    case ready
    /// Running tasks are finished, new ones refused.
    case draining
  }

  /// `denoiser`…
  public var stage: String
  /// Where in its life the worker is.
  public var state: State
  /// The process.
  public var pid: Int32
  /// When this was written, in milliseconds since 1970.
  public var unixMs: UInt64
  /// Tasks that run.
  public var running: Int
  /// Gateways where the worker is registered.
  public var registeredGateways: Int

  /// A report of this process, now.
  public init(
    stage: StageName, state: State, running: Int = 0, registeredGateways: Int = 0, time: any TimeSource = SystemTime()
  ) {
    self.stage = stage.text
    self.state = state
    self.pid = ProcessInfo.processInfo.processIdentifier
    self.unixMs = UInt64(clamping: time.unixMs)
    self.running = running
    self.registeredGateways = registeredGateways
  }
}

/// A file that a worker rewrites every second and `<executable> --health` reads: no port, no server, and a frozen
/// worker shows.
public struct HealthFile: Sendable {
  /// Where it is.
  public let path: String

  /// The file at `path`.
  public init(path: String) { self.path = path }

  /// Replaces the file, so that readers see the old report or the new one.
  public func write(_ report: HealthReport) throws {
    try JSONEncoder().encode(report).write(to: URL(fileURLWithPath: path), options: .atomic)
  }

  /// Removes the file: the worker is gone.
  public func remove() { try? FileManager.default.removeItem(atPath: path) }

  /// What a health check says.
  public struct Verdict: Sendable, Equatable {
    /// Whether tasks are or will be served.
    public var isHealthy: Bool
    /// One line for people.
    public var message: String
    /// For `exit`.
    public var exitCode: Int32 { isHealthy ? 0 : 1 }
  }

  /// Healthy: a fresh report of a worker that is ready or draining.
  public func check(maxAgeSeconds: Double = 15, time: any TimeSource = SystemTime()) -> Verdict {
    guard let data = FileManager.default.contents(atPath: path) else {
      return Verdict(isHealthy: false, message: "\(path): cannot be read: the worker has not started or is gone")
    }
    guard data.count < 4096, let report = try? JSONDecoder().decode(HealthReport.self, from: data) else {
      return Verdict(isHealthy: false, message: "\(path): is not a health report")
    }
    let ageSeconds = (Double(time.unixMs) - Double(report.unixMs)) / 1000
    guard ageSeconds <= maxAgeSeconds else {
      return Verdict(
        isHealthy: false, message: "\(report.stage): no sign of life for \(Int(ageSeconds)) s (process \(report.pid))")
    }
    return Verdict(
      isHealthy: report.state == .ready || report.state == .draining,
      message:
        "\(report.stage): \(report.state.rawValue), \(report.running) tasks, \(report.registeredGateways) gateways")
  }
}
