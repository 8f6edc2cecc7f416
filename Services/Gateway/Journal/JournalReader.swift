import Dispatch
import Journal
import Scheduling

/// Reads the journal on threads that may block.
struct JournalReader: Sendable {
  let store: JournalStore

  /// Runs `body` beside the cooperative threads.
  func read<Result: Sendable>(
    _ body: @escaping @Sendable (JournalStore) throws(JournalError) -> Result
  ) async throws(Failure) -> Result {
    let result: Swift.Result<Result, JournalError> = await withCheckedContinuation { continuation in
      DispatchQueue.global(qos: .userInitiated).async { [store] in
        do throws(JournalError) {
          continuation.resume(returning: .success(try body(store)))
        } catch {
          continuation.resume(returning: .failure(error))
        }
      }
    }
    do throws(JournalError) { return try result.get() } catch { throw Failure(error) }
  }
}
