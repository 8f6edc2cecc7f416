import Journal
import Metrics

/// What is counted of the journal's transactions.
struct JournalMetrics: Sendable {
  private let seconds = Timer(label: "qwenimage_journal_write_seconds")
  private let bytes = Counter(label: "qwenimage_journal_written_bytes_total")
  private let changes = Counter(label: "qwenimage_journal_written_changes_total")
  private let failures = Counter(label: "qwenimage_journal_failed_writes_total")

  /// Counts a transaction.
  @Sendable func record(_ transaction: JournalWriter.Transaction) {
    seconds.recordSeconds(transaction.duration.seconds)
    guard transaction.failure == nil else { return failures.increment() }
    bytes.increment(by: transaction.byteCount)
    changes.increment(by: transaction.changeCount)
  }
}
