import CKernels

/// The process's pool of compute threads: pthreads of its own, never Swift's cooperative ones.
///
/// `@unchecked Sendable`: the handle is set once, and the C pool behind it is guarded by its own locks.
public final class ThreadPool: @unchecked Sendable {
  private let handle: OpaquePointer

  /// Starts `threads - 1` threads; the caller of ``parallel(_:_:)`` is the last one. Where the system refuses more
  /// threads the pool is smaller, which changes no result. Threads that cannot all have a processor of their own
  /// (``AvailableProcessors``) leave it as soon as they have nothing to do.
  public init(threads: Int) {
    let processors = AvailableProcessors.current.wholeCount
    guard let handle = ck_pool_create(Int32(clamping: threads), Int32(clamping: processors)) else {
      fatalError("out of memory creating a pool of \(threads) threads")
    }
    self.handle = handle
  }

  deinit { ck_pool_destroy(handle) }

  /// Threads at work in a parallel call, the caller included.
  public var threadCount: Int { Int(ck_pool_threads(handle)) }

  /// Calls `body` once for every index in `0..<count`, in any order and on several threads at once, and returns when
  /// all calls have ended. The caller takes part. Calls from several threads are served one after the other; nested
  /// calls run inline.
  public func parallel(_ count: Int, _ body: (Int) -> Void) {
    withoutActuallyEscaping(body) { body in
      var body = body
      withUnsafeMutablePointer(to: &body) { context in
        ck_pool_run(
          handle, max(count, 0),
          { context, index in context!.assumingMemoryBound(to: ((Int) -> Void).self).pointee(index) },
          context)
      }
    }
  }
}
