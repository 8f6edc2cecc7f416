import ClusterCore
import Foundation
import Synchronization
import Wire

/// A running task's line to the gateway; usable from any thread.
public final class TaskContext: Sendable {
  /// When nobody wants the answer any more, in milliseconds since 1970.
  public let deadlineUnixMs: UInt64?
  /// W3C Trace Context of the request.
  public let traceparent: String?

  private let stopReason = Mutex<Status?>(nil)
  private let report: @Sendable (Body, [WireTensor]) -> Void

  /// A context whose progress goes to `report`.
  public init(
    deadlineUnixMs: UInt64? = nil, traceparent: String? = nil,
    report: @escaping @Sendable (Body, [WireTensor]) -> Void = { _, _ in }
  ) {
    self.deadlineUnixMs = deadlineUnixMs
    self.traceparent = traceparent
    self.report = report
  }

  /// Tells the gateway that a step is done; with `latents` it is a checkpoint. Never waits. Progress may be lost: the gateway
  /// then resumes from an earlier step.
  public func progress(_ body: Body, tensors: [WireTensor] = []) { report(body, tensors) }

  /// Whether the result is still wanted.
  public var isCancelled: Bool { reasonToStop != nil }

  /// To be called between steps.
  ///
  /// - Throws: CANCELLED, DEADLINE_EXCEEDED, or UNAVAILABLE when the worker is leaving: to be passed on.
  public func checkCancelled() throws(Status) {
    if let reason = reasonToStop { throw reason }
  }

  /// Asks the stage to stop at its next step; the first reason counts.
  public func cancel(_ reason: Status) {
    stopReason.withLock { current in if current == nil { current = reason } }
  }

  private var reasonToStop: Status? {
    if let reason = stopReason.withLock({ $0 }) { return reason }
    guard let deadlineUnixMs, UnixTime.nowMs >= deadlineUnixMs else { return nil }
    return Status(.deadlineExceeded, "the deadline passed \(UnixTime.nowMs - deadlineUnixMs) ms ago")
  }
}

/// The system's clock, for deadlines that several machines must agree on.
enum UnixTime {
  static var nowMs: UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000
  }
}
