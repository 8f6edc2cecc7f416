import CZeroMQ
import Foundation
import Synchronization

/// The one thread on which a ZeroMQ socket lives: it polls the socket and runs the jobs of the actor that owns it.
///
/// ZeroMQ sockets must not be used by two threads at a time; as the actor's executor is this thread, nothing can.
final class SocketThread: SerialExecutor, @unchecked Sendable {
  // @unchecked Sendable: `core`, `onReadable` and `thread` are touched by the thread itself only (after `start`); the
  // rest is locked.
  private struct Shared {
    var jobs: [UnownedJob] = []
    var isStopping = false
    /// Whether a byte is in the pipe, or is being put there: another one would wake the thread no sooner.
    var isWoken = false
  }

  private let shared = Mutex(Shared())
  private let wakeReader: Int32
  private let wakeWriter: Int32
  private var identity: pthread_t?

  /// The socket; used on this thread only.
  var core: SocketCore?
  /// Called on this thread when the socket or its monitor may have something to read.
  var onReadable: (@Sendable () -> Void)?
  /// Whether the socket is polled for messages: not while the consumer lags.
  var isReading = true

  init(name: String) throws(TransportError) {
    var ends: [Int32] = [0, 0]
    guard pipe(&ends) == 0 else {
      throw .system(operation: "pipe", code: errno, reason: String(cString: strerror(errno)))
    }
    wakeReader = ends[0]
    wakeWriter = ends[1]
    for end in ends {
      _ = fcntl(end, F_SETFL, O_NONBLOCK)
      _ = fcntl(end, F_SETFD, FD_CLOEXEC)
    }
    let thread = Thread { [self] in run() }
    thread.name = name
    thread.stackSize = 1 << 20
    thread.start()
  }

  deinit {
    close(wakeReader)
    close(wakeWriter)
  }

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    wake { $0.jobs.append(job) }
  }

  func checkIsolated() {
    precondition(identity.map { pthread_equal($0, pthread_self()) != 0 } ?? false, "not on the socket's thread")
  }

  /// Makes the thread look at its queue; from any thread.
  func wake() { wake { _ in } }

  private func wake(_ change: (inout Shared) -> Void) {
    let wasWoken = shared.withLock { shared in
      change(&shared)
      defer { shared.isWoken = true }
      return shared.isWoken
    }
    guard !wasWoken else { return }
    // A full pipe wakes the thread as well.
    var byte: UInt8 = 0
    _ = write(wakeWriter, &byte, 1)
  }

  /// Closes the socket and ends the thread after the jobs that are queued.
  func stop() {
    wake { $0.isStopping = true }
  }

  private func run() {
    identity = pthread_self()
    while true {
      let (jobs, isStopping) = shared.withLock { shared in
        defer { shared.jobs = [] }
        return (shared.jobs, shared.isStopping)
      }
      for job in jobs { job.runSynchronously(on: asUnownedSerialExecutor()) }
      if jobs.isEmpty {
        if isStopping { break }
        if poll() { onReadable?() }
      }
    }
    onReadable = nil
    core?.close()
    core = nil
  }

  /// Waits until there is something to do; returns false when it was interrupted.
  private func poll() -> Bool {
    var items = [zmq_pollitem_t(socket: nil, fd: wakeReader, events: Int16(ZMQ_POLLIN), revents: 0)]
    if let core {
      if isReading { items.append(zmq_pollitem_t(socket: core.socket, fd: 0, events: Int16(ZMQ_POLLIN), revents: 0)) }
      if let monitor = core.monitor {
        items.append(zmq_pollitem_t(socket: monitor, fd: 0, events: Int16(ZMQ_POLLIN), revents: 0))
      }
    }
    guard zmq_poll(&items, Int32(items.count), -1) > 0 else { return false }
    if items[0].revents != 0 {
      var bytes = [UInt8](repeating: 0, count: 256)
      while read(wakeReader, &bytes, bytes.count) == bytes.count {}
      // Only now, and before anything is looked at: who wakes the thread later must be heard.
      shared.withLock { $0.isWoken = false }
    }
    // What woke the thread may have made space in a queue that was full.
    return true
  }
}
