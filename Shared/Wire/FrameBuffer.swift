/// An immutable block of bytes that a message frame carries, and whatever keeps those bytes alive: an allocation of its
/// own, a received ZeroMQ message, or a buffer of another owner.
///
/// A reference type so that frames travel between actors, sockets and stages without being copied.
public final class FrameBuffer: @unchecked Sendable {
  // @unchecked Sendable: `start` and `count` never change and the bytes are never written after initialisation.
  private let start: UnsafeRawPointer?
  private let release: @Sendable (UnsafeRawPointer?) -> Void

  /// The number of bytes.
  public let count: Int

  /// Takes over `bytes`: they stay valid and unchanged until `release` is called with their address, once, on any
  /// thread.
  public init(_ bytes: UnsafeRawBufferPointer, release: @escaping @Sendable (UnsafeRawPointer?) -> Void) {
    self.start = bytes.baseAddress
    self.count = bytes.count
    self.release = release
  }

  /// Borrows `bytes`, which stay valid and unchanged as long as `owner` lives.
  public convenience init(_ bytes: UnsafeRawBufferPointer, keepingAlive owner: some AnyObject & Sendable) {
    self.init(bytes) { _ in withExtendedLifetime(owner) {} }
  }

  /// An allocation of `count` bytes, filled by `fill` before it is shared.
  public convenience init<Failure: Error>(
    byteCount count: Int, filledBy fill: (UnsafeMutableRawBufferPointer) throws(Failure) -> Void
  ) throws(Failure) {
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 64)
    do {
      try fill(bytes)
    } catch {
      bytes.deallocate()
      throw error
    }
    self.init(UnsafeRawBufferPointer(bytes)) { start in UnsafeMutableRawPointer(mutating: start)?.deallocate() }
  }

  /// A copy of `bytes`.
  public convenience init(copying bytes: UnsafeRawBufferPointer) {
    self.init(byteCount: bytes.count) { $0.copyMemory(from: bytes) }
  }

  /// A copy of the elements of `array`, as they lie in memory.
  public convenience init<Element: BitwiseCopyable>(copying array: [Element]) {
    self.init(byteCount: array.count * MemoryLayout<Element>.stride) { bytes in
      array.withUnsafeBytes { bytes.copyMemory(from: $0) }
    }
  }

  deinit { release(start) }

  /// Calls `body` with the bytes, which must not be used after it returns.
  public func withUnsafeBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try body(UnsafeRawBufferPointer(start: start, count: count))
  }
}

extension FrameBuffer: Equatable {
  /// Whether both hold the same bytes.
  public static func == (left: FrameBuffer, right: FrameBuffer) -> Bool {
    if left === right { return true }
    return left.withUnsafeBytes { left in right.withUnsafeBytes { right in left.elementsEqual(right) } }
  }
}

extension FrameBuffer: CustomStringConvertible {
  /// The size; never the contents.
  public var description: String { "\(count) bytes" }
}
