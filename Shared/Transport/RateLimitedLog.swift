import ClusterCore
import Logging

/// Logs at most one record per second, so that a hostile peer cannot fill the disk; tells how many were left out.
struct RateLimitedLog {
  private let logger: Logger
  private let time: any TimeSource
  private var lastRecordAt: Duration?
  private var suppressed = 0

  init(_ logger: Logger, time: any TimeSource) {
    self.logger = logger
    self.time = time
  }

  mutating func warning(_ message: Logger.Message, _ metadata: Logger.Metadata) {
    let now = time.elapsed
    if let lastRecordAt, now - lastRecordAt < .seconds(1) {
      suppressed += 1
      return
    }
    var metadata = metadata
    if suppressed > 0 { metadata["suppressed"] = "\(suppressed)" }
    logger.warning(message, metadata: metadata)
    lastRecordAt = now
    suppressed = 0
  }
}
