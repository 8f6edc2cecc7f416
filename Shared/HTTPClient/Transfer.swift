import CCurl
import Synchronization

/// Ends its transfer when nothing refers to it any more.
final class TransferLease: Sendable {
  let transfer: Transfer

  init(_ transfer: Transfer) { self.transfer = transfer }

  deinit { transfer.cancel() }
}

/// What comes before a response's body.
struct ResponseHead: Sendable {
  var status: Int
  var headers: [(name: String, value: String)]
}

/// One exchange between the loop's thread, which receives, and a task, which reads.
final class Transfer: Sendable {
  private struct State {
    var head: ResponseHead?
    var chunks: [[UInt8]] = []
    var bufferedBytes = 0
    /// libcurl holds data back because too much waits to be read.
    var isPaused = false
    var isCancelled = false
    /// How it ended.
    var end: Result<Void, any Error>?
    var headWaiter: CheckedContinuation<ResponseHead, any Error>?
    var chunkWaiter: CheckedContinuation<[UInt8]?, any Error>?
  }

  private let state = Mutex(State())
  private let loop: TransferLoop
  private let maxBufferedBytes: Int

  init(loop: TransferLoop, maxBufferedBytes: Int) {
    self.loop = loop
    self.maxBufferedBytes = maxBufferedBytes
  }

  // MARK: - The reader

  /// The response's status and header fields, when they have come.
  func head() async throws -> ResponseHead {
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        let known: Result<ResponseHead, any Error>? = state.withLock { state in
          if let head = state.head { return .success(head) }
          if case .failure(let error) = state.end { return .failure(error) }
          state.headWaiter = continuation
          return nil
        }
        if let known { continuation.resume(with: known) }
      }
    } onCancel: {
      cancel()
    }
  }

  /// The next piece of the body; nil at its end.
  func nextChunk() async throws -> [UInt8]? {
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        var resumes = false
        let known: Result<[UInt8]?, any Error>? = state.withLock { state in
          if state.isCancelled { return .failure(CancellationError()) }
          if !state.chunks.isEmpty {
            let chunk = state.chunks.removeFirst()
            state.bufferedBytes -= chunk.count
            resumes = state.isPaused && state.bufferedBytes <= maxBufferedBytes / 2
            return .success(chunk)
          }
          if let end = state.end { return end.map { nil } }
          state.chunkWaiter = continuation
          return nil
        }
        if resumes { loop.wakeUp() }
        if let known { continuation.resume(with: known) }
      }
    } onCancel: {
      cancel()
    }
  }

  /// Ends the exchange; the task that waits gets a `CancellationError`.
  func cancel() {
    let isNew = state.withLock { state in
      defer { state.isCancelled = true }
      return !state.isCancelled && state.end == nil
    }
    if isNew { loop.wakeUp() }
  }

  // MARK: - The loop's thread

  var isCancelled: Bool { state.withLock { $0.isCancelled } }

  /// Whether data is held back until the reader has caught up.
  var isPaused: Bool { state.withLock { $0.isPaused } }

  /// Whether libcurl shall deliver again what it has held back; asked once.
  func takeResumption() -> Bool {
    state.withLock { state in
      guard state.isPaused, state.bufferedBytes <= maxBufferedBytes / 2 else { return false }
      state.isPaused = false
      return true
    }
  }

  /// The header of the last response (no redirection) has come.
  func receive(_ head: ResponseHead) {
    let waiter = state.withLock { state in
      state.head = head
      defer { state.headWaiter = nil }
      return state.headWaiter
    }
    waiter?.resume(returning: head)
  }

  /// Takes a piece of the body.
  ///
  /// - Returns: false: too much waits to be read, and the piece must come again.
  func receive(_ chunk: [UInt8]) -> Bool {
    let (isTaken, waiter) = state.withLock { state -> (Bool, CheckedContinuation<[UInt8]?, any Error>?) in
      if let waiter = state.chunkWaiter {
        state.chunkWaiter = nil
        return (true, waiter)
      }
      guard state.bufferedBytes < maxBufferedBytes else {
        state.isPaused = true
        return (false, nil)
      }
      state.chunks.append(chunk)
      state.bufferedBytes += chunk.count
      return (true, nil)
    }
    waiter?.resume(returning: chunk)
    return isTaken
  }

  /// Nothing more comes.
  func finish(_ result: Result<Void, any Error>) {
    let (headWaiter, chunkWaiter, end) = state.withLock { state in
      var end = result
      // libcurl has success without a response when the server closes the connection at once.
      if case .success = result, state.head == nil {
        end = .failure(HTTPClientError(kind: .broken, message: "the server closed the connection without a response"))
      }
      state.end = end
      defer { (state.headWaiter, state.chunkWaiter) = (nil, nil) }
      return (state.headWaiter, state.chunkWaiter, end)
    }
    if case .failure(let error) = end { headWaiter?.resume(throwing: error) }
    chunkWaiter?.resume(with: end.map { nil })
  }
}
