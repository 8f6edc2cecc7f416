import Logging

/// Logs at most one record per second, so that a hostile peer cannot fill the disk; tells how many were left out.
struct RateLimitedLog {
  private let logger: Logger
  private var lastRecord: ContinuousClock.Instant?
  private var suppressed = 0

  init(_ logger: Logger) { self.logger = logger }

  mutating func warning(_ message: Logger.Message, _ metadata: Logger.Metadata) {
    let now = ContinuousClock.now
    if let lastRecord, now - lastRecord < .seconds(1) {
      suppressed += 1
      return
    }
    var metadata = metadata
    if suppressed > 0 { metadata["suppressed"] = "\(suppressed)" }
    logger.warning(message, metadata: metadata)
    lastRecord = now
    suppressed = 0
  }
}
