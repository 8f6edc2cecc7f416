import Logging
import Synchronization

/// Keeps what a socket logs.
final class LogRecorder: Sendable {
  struct Record: Sendable {
    let message: String
    let metadata: [String: String]
  }

  private let kept = Mutex<[Record]>([])

  var records: [Record] { kept.withLock { $0 } }

  /// A logger whose records come here.
  var logger: Logger { Logger(label: "test") { _ in Handler(recorder: self) } }

  private struct Handler: LogHandler {
    let recorder: LogRecorder
    var metadata: Logger.Metadata = [:]
    var metadataProvider: Logger.MetadataProvider?
    var logLevel = Logger.Level.trace

    init(recorder: LogRecorder) { self.recorder = recorder }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
      get { metadata[key] }
      set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
      let values = (event.metadata ?? [:]).mapValues { "\($0)" }
      recorder.kept.withLock { $0.append(Record(message: "\(event.message)", metadata: values)) }
    }
  }
}
