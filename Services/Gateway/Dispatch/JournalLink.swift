import ClusterCore
import Dispatch
import Foundation
import Journal
import Scheduling
import TensorCore
import Wire

/// The gateway's way to its journal: reads on threads that may block, writes on the journal's own thread, outcomes as a
/// stream.
final class JournalLink: Sendable {
  let store: any JournalStore
  private let writer: JournalWriter
  /// What became of the entries, in order; ends after ``stop()``.
  let outcomes: AsyncStream<JournalWriter.Outcome>
  private let report: AsyncStream<JournalWriter.Outcome>.Continuation

  init(_ store: any JournalStore) {
    self.store = store
    let (outcomes, report) = AsyncStream<JournalWriter.Outcome>.makeStream()
    (self.outcomes, self.report) = (outcomes, report)
    writer = JournalWriter(store, report: { report.yield($0) }, observe: JournalMetrics().record)
  }

  /// Whether jobs outlive the process.
  var isDurable: Bool { store.isDurable }

  /// Hands changes to the journal's thread.
  func write(_ changes: [JournalChange], as sequence: JournalSequence) {
    writer.enqueue(.init(sequence: sequence.number, changes: changes))
  }

  /// Writes changes that are not the scheduler's; returns when they are on the disk.
  func write(_ changes: [JournalChange]) async throws(Status) {
    let error: JournalError? = await withCheckedContinuation { continuation in
      writer.enqueue(.init(changes: changes) { continuation.resume(returning: $0) })
    }
    if let error { throw Status(error) }
  }

  /// Runs `body` on a thread that may block.
  func read<Result: Sendable>(
    _ body: @escaping @Sendable (any JournalStore) throws(JournalError) -> Result
  ) async throws(Status) -> Result {
    do throws(JournalError) { return try await attempt(body).get() } catch { throw Status(error) }
  }

  /// The same with the journal's own error.
  func attempt<Result: Sendable>(
    _ body: @escaping @Sendable (any JournalStore) throws(JournalError) -> Result
  ) async -> Swift.Result<Result, JournalError> {
    await withCheckedContinuation { continuation in
      DispatchQueue.global(qos: .userInitiated).async { [store] in
        do throws(JournalError) {
          continuation.resume(returning: .success(try body(store)))
        } catch {
          continuation.resume(returning: .failure(error))
        }
      }
    }
  }

  /// Writes what waits, then ends the outcomes.
  func stop() async {
    await withCheckedContinuation { continuation in
      DispatchQueue.global().async { [writer, report] in
        writer.stop()
        report.finish()
        continuation.resume()
      }
    }
  }
}

extension StoredPayload {
  /// A copy of the tensor's bytes.
  init(_ tensor: WireTensor, id: UInt64) {
    self.init(
      id: id, name: tensor.name, dtype: Int32(tensor.dtype.wireNumber), shape: tensor.shape,
      bytes: tensor.bytes.withUnsafeBytes { Data($0) })
  }

  /// The tensor; nil when the description and the bytes do not agree.
  var tensor: WireTensor? {
    guard let dtype = DType(wireNumber: UInt32(clamping: dtype)),
      WireTensor.byteCount(shape: shape, dtype: dtype) == bytes.count
    else {
      return nil
    }
    return WireTensor(name: name, dtype: dtype, shape: shape, bytes: bytes.withUnsafeBytes { FrameBuffer(copying: $0) })
  }
}

extension Status {
  /// What clients learn when the journal fails.
  init(_ error: JournalError) {
    switch error {
    case .full: self.init(.resourceExhausted, "\(error)", retryAfterSeconds: 60, resource: .storage)
    case .duplicate: self.init(.alreadyExists, "\(error)")
    case .tooLarge: self.init(.invalidArgument, "\(error)")
    case .corrupt: self.init(.dataLoss, "\(error)")
    case .unavailable, .fenced: self.init(.unavailable, "\(error)", retryAfterSeconds: 5)
    case .foreign, .inUse, .failed: self.init(.internal, "\(error)")
    }
  }
}
