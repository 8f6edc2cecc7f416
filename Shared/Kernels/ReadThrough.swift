import TensorCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension ThreadPool {
  private static let pieceBytes = 1 << 20
  /// What is copied at a time, to where it stays in a cache.
  private static let cachedBytes = 16 << 10

  /// Reads all bytes of a tensor once, on all threads, and does nothing with them: how long that takes is the speed of
  /// the memory, if the tensor is larger than the caches.
  public func readThrough(_ tensor: Tensor) {
    let bytes = tensor.address(count: tensor.elementCount), count = tensor.byteCount
    parallel((count + Self.pieceBytes - 1) / Self.pieceBytes) { piece in
      let end = min((piece + 1) * Self.pieceBytes, count)
      withUnsafeTemporaryAllocation(byteCount: Self.cachedBytes, alignment: 64) { cached in
        for start in stride(from: piece * Self.pieceBytes, to: end, by: Self.cachedBytes) {
          memcpy(cached.baseAddress!, bytes + start, min(Self.cachedBytes, end - start))
        }
      }
    }
    withExtendedLifetime(tensor) {}
  }
}
