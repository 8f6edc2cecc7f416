import Dispatch
import Foundation
import Synchronization

/// Turns Ctrl-C and SIGTERM into a flag and a callback, so that work can stop at a clean point.
final class Interruption: Sendable {
  /// The exit status of a process that Ctrl-C ended, by the shell's convention.
  static let exitStatus: Int32 = 130

  private let flag = Mutex(false)
  // Dispatch sources may be used from any thread; this one is never touched after `init`.
  nonisolated(unsafe) private let sources: [any DispatchSourceSignal]

  /// Starts listening; `onInterrupt` runs on a background queue at the first signal. A second signal ends the process
  /// at once.
  init(onInterrupt: @escaping @Sendable () -> Void = {}) {
    let signals = [SIGINT, SIGTERM]
    sources = signals.map { number in
      signal(number, SIG_IGN)
      return DispatchSource.makeSignalSource(signal: number, queue: .global())
    }
    for source in sources {
      source.setEventHandler { [weak self] in
        guard let self else { return }
        let isFirst = flag.withLock { interrupted in
          defer { interrupted = true }
          return !interrupted
        }
        guard isFirst else { _exit(Self.exitStatus) }
        onInterrupt()
      }
      source.resume()
    }
  }

  /// Whether a signal has arrived.
  var isInterrupted: Bool { flag.withLock { $0 } }
}
