import Synchronization

/// The events of one socket, in order, for one consumer: `for await event in socket.events`.
///
/// Bounded: when the consumer lags, the socket stops reading until there is space again, and the peers are held up in
/// turn.
public struct TransportEvents<Event: Sendable>: AsyncSequence, Sendable {
  let queue: EventQueue<Event>

  /// Iterates; events go to the first that asks, so there should be one consumer.
  public func makeAsyncIterator() -> Iterator { Iterator(queue: queue) }

  /// The next events: those that are there, or the first that comes. Empty when the socket is closed or the task
  /// cancelled.
  ///
  /// - Parameter maxCount: at most so many.
  public func next(_ maxCount: Int) async -> [Event] { await queue.next(maxCount) }

  /// Takes events out of the queue.
  public struct Iterator: AsyncIteratorProtocol {
    let queue: EventQueue<Event>

    /// The next event; nil when the socket is closed or the task cancelled.
    public mutating func next() async -> Event? { await queue.next(1).first }
  }
}

final class EventQueue<Event: Sendable>: Sendable {
  private struct State {
    var events: [(event: Event, bytes: Int)] = []
    var head = 0
    var bytes = 0
    var waiters: [(id: UInt64, continuation: CheckedContinuation<[Event], Never>)] = []
    var nextWaiter: UInt64 = 0
    var isFinished = false
    var isPaused = false

    var count: Int { events.count - head }

    mutating func popFirst(_ maxCount: Int) -> [Event] {
      let taken = events[head..<min(head + maxCount, events.count)]
      let first = taken.map(\.event)
      bytes -= taken.reduce(0) { $0 + $1.bytes }
      head += first.count
      // Amortised constant time, and taken events are let go.
      if head == events.count || head >= 64 {
        events.removeFirst(head)
        head = 0
      }
      return first
    }
  }

  private let state = Mutex(State())
  private let capacityMessages: Int
  private let capacityBytes: Int
  private let resume: @Sendable () -> Void

  /// `resume` is called when there is space again after `hasSpace` said that there was none.
  init(capacityMessages: Int, capacityBytes: Int, resume: @escaping @Sendable () -> Void) {
    self.capacityMessages = capacityMessages
    self.capacityBytes = capacityBytes
    self.resume = resume
  }

  /// Whether the socket may read another message.
  func hasSpace() -> Bool {
    state.withLock { state in
      state.isPaused = state.count >= capacityMessages || state.bytes >= capacityBytes
      return !state.isPaused
    }
  }

  /// Appends an event, even beyond the capacity: the socket asks `hasSpace` before it reads.
  func push(_ event: Event, bytes: Int = 0) {
    let waiter: CheckedContinuation<[Event], Never>? = state.withLock { state in
      guard !state.isFinished else { return nil }
      if !state.waiters.isEmpty { return state.waiters.removeFirst().continuation }
      state.events.append((event, bytes))
      state.bytes += bytes
      return nil
    }
    waiter?.resume(returning: [event])
  }

  /// Ends the sequence after the events that are already there.
  func finish() {
    let waiters = state.withLock { state in
      state.isFinished = true
      defer { state.waiters = [] }
      return state.waiters
    }
    for waiter in waiters { waiter.continuation.resume(returning: []) }
  }

  /// The events that are there, at most `maxCount`, or the first that comes; none when there will be no more.
  func next(_ maxCount: Int) async -> [Event] {
    let id = state.withLock { state in
      state.nextWaiter += 1
      return state.nextWaiter
    }
    return await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let (ready, wasPaused): ([Event]?, Bool) = state.withLock { state in
          let events = state.popFirst(maxCount)
          if !events.isEmpty {
            let wasPaused = state.isPaused
            state.isPaused = false
            return (events, wasPaused)
          }
          if state.isFinished || Task.isCancelled { return ([], false) }
          state.waiters.append((id, continuation))
          return (nil, false)
        }
        if let ready { continuation.resume(returning: ready) }
        if wasPaused { resume() }
      }
    } onCancel: {
      let waiter = state.withLock { state in
        state.waiters.firstIndex { $0.id == id }.map { state.waiters.remove(at: $0).continuation }
      }
      waiter?.resume(returning: [])
    }
  }
}
