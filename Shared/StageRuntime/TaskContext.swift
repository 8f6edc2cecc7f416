import ClusterCore
import Foundation
import Synchronization
import Wire

/// A running task's line to the gateway; usable from any thread.
public final class TaskContext: Sendable {
  /// When the answer is of no use any more, in milliseconds since 1970.
  public let deadlineUnixMs: UInt64?
  /// The worker's clocks.
  public let time: any TimeSource
  /// W3C Trace Context of the request.
  public let traceparent: String?

  private let stopReason = Mutex<Status?>(nil)
  private let mailbox = ExchangeMailbox()
  private let report: @Sendable (Body, [WireTensor]) -> Void

  /// A context whose progress goes to `report`.
  public init(
    deadlineUnixMs: UInt64? = nil, traceparent: String? = nil, time: any TimeSource = SystemTime(),
    report: @escaping @Sendable (Body, [WireTensor]) -> Void = { _, _ in }
  ) {
    self.deadlineUnixMs = deadlineUnixMs
    self.traceparent = traceparent
    self.time = time
    self.report = report
  }

  /// Tells the gateway that a step is done; with `latents` it is a checkpoint. Never waits. Progress may be lost: the
  /// gateway then resumes from an earlier step.
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
    mailbox.wake()
  }

  // MARK: - Working with another worker

  /// Says something to the worker with which the task's predictions are made. May be lost.
  public func exchange(_ message: Exchange, tensors: [WireTensor] = []) { report(.exchange(message), tensors) }

  /// Takes what that worker, or the gateway about it, says.
  public func deliver(_ message: Exchange, tensors: [WireTensor]) { mailbox.put(message, tensors) }

  /// The last message of a kind, which is taken out; waits for one, unless the task is cancelled or the other worker
  /// is lost.
  public func takeExchange(
    _ kind: Exchange.Kind, within limit: Duration = .zero
  ) -> (message: Exchange, tensors: [WireTensor])? {
    mailbox.take(kind, until: Date(timeIntervalSinceNow: limit / .seconds(1))) { isCancelled }
  }

  private var reasonToStop: Status? {
    if let reason = stopReason.withLock({ $0 }) { return reason }
    let nowMs = UInt64(clamping: time.unixMs)
    guard let deadlineUnixMs, nowMs >= deadlineUnixMs else { return nil }
    return Status(.deadlineExceeded, "the deadline passed \(nowMs - deadlineUnixMs) ms ago")
  }
}
