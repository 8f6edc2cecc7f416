import GatewayAPI
import Synchronization

/// The bytes of all request bodies that are being read, or whose images are being decoded. What is accepted counts
/// among the images of open jobs from then on.
final class BodyMemory: Sendable {
  /// So many bytes of each body do not count: however many images come, a request without any is never refused.
  static let freeBytes = 64 << 10

  private let limit: Int
  private let used = Mutex(0)

  /// - Parameter limit: most bytes of all bodies together.
  init(limit: Int) { self.limit = limit }

  /// What one request has of it.
  func share() -> Share { Share(of: self) }

  /// One request's part; to be released when its body is gone.
  final class Share: Sendable {
    private let memory: BodyMemory
    private let counted = Mutex(0)

    fileprivate init(of memory: BodyMemory) { self.memory = memory }

    /// Counts a body that has `byteCount` bytes by now.
    ///
    /// - Throws: an error of kind `queueFull` when that is too much; the bytes that came last are not counted then, so
    ///   that a body that is refused takes no memory from others.
    func grow(to byteCount: Int) throws(APIError) {
      let (total, isTaken) = counted.withLock { counted in
        let more = max(0, byteCount - BodyMemory.freeBytes - counted)
        let (total, isTaken) = memory.used.withLock { used in
          let total = used + more
          guard more == 0 || total <= memory.limit else { return (total, false) }
          used = total
          return (total, true)
        }
        if isTaken { counted += more }
        return (total, isTaken)
      }
      guard isTaken else {
        throw APIError(
          .queueFull,
          "the bodies of all requests that are being read have \(total) bytes, the limit is \(memory.limit)",
          retryAfterSeconds: 1)
      }
    }

    /// Nothing of the body is left. May be called again.
    func release() {
      let bytes = counted.withLock { counted in
        defer { counted = 0 }
        return counted
      }
      memory.used.withLock { $0 -= bytes }
    }
  }
}
