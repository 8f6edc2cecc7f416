import ClusterCore
import Synchronization

/// What workers and clients have seen, for both threads and the one that reports.
final class Recorder: Sendable {
  struct Counts {
    /// Jobs that clients have sent, that were accepted, refused, and that have ended as they should or not.
    var submitted = 0
    var accepted = 0
    var refused = 0
    var succeeded = 0
    var failed = 0
    /// Connections that broke before their answer.
    var broken = 0
    /// Results of the last stage that workers have sent.
    var decoded = 0
    /// Messages that workers have received and sent.
    var received = 0
    var sent = 0
    /// Attempts after the first, of tasks.
    var repeated = 0
    var cancelled = 0
    /// Sessions that were opened.
    var registered = 0
    /// Messages that could not be queued or understood.
    var lost = 0
  }

  struct State {
    var counts = Counts()
    /// Of the denoiser and the decoder: see ``IdealDispatch``.
    var dispatch = Histogram()
    /// From when a request was due to the offer of the job's first task.
    var firstOffer = Histogram()
    /// From when a request was due to its answer.
    var submit = Histogram()
    /// From when a request was due to the end of its job.
    var job = Histogram()
    /// When a request was due, by its number.
    var due = [Int64](repeating: 0, count: 1 << 18)
    var refusals: [Int: Int] = [:]
  }

  private let state = Mutex(State())

  func update(_ change: (inout State) -> Void) { state.withLock { change(&$0) } }

  var snapshot: State { state.withLock { $0 } }

  /// Forgets what was measured so far.
  func reset() {
    state.withLock { state in
      let due = state.due
      state = State()
      state.due = due
    }
  }
}

extension Recorder.State {
  /// When request `number` was due.
  subscript(dueOf number: Int) -> Int64 {
    get { due[number & (due.count - 1)] }
    set { due[number & (due.count - 1)] = newValue }
  }
}

/// What a dispatcher without delay would do in one stage: the n-th offer is made when the n-th task is ready and the
/// n-th credit is free. A task is ready when the worker of the stage before has sent its output; a credit is free when
/// a worker has registered or sent a result.
struct IdealDispatch {
  private var ready = Queue()
  private var free = Queue()
  private var due = Queue()
  /// Offers that came before both were known.
  private var early = 0

  mutating func taskIsReady(_ now: Int64) {
    ready.append(now)
    match()
  }

  mutating func creditIsFree(_ now: Int64) {
    free.append(now)
    match()
  }

  private mutating func match() {
    while let task = ready.first, let credit = free.first {
      ready.removeFirst()
      free.removeFirst()
      if early > 0 { early -= 1 } else { due.append(max(task, credit)) }
    }
  }

  /// The delay of an offer that has come, in nanoseconds.
  mutating func offered(_ now: Int64) -> Int64 {
    guard let expected = due.first else {
      early += 1
      return 0
    }
    due.removeFirst()
    return max(0, now - expected)
  }
}

/// Times in the order in which they came.
private struct Queue {
  private var times: [Int64] = []
  private var head = 0

  var first: Int64? { head < times.count ? times[head] : nil }

  mutating func append(_ time: Int64) { times.append(time) }

  mutating func removeFirst() {
    head += 1
    if head >= 1024, head * 2 >= times.count {
      times.removeFirst(head)
      head = 0
    }
  }
}
