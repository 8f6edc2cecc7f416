import CWire

#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// Owns the C structures of one message while it is packed.
final class CArena {
  private var allocations: [UnsafeMutableRawPointer] = []

  deinit { for allocation in allocations { allocation.deallocate() } }

  /// A message with all fields at their defaults.
  func message<Message>(_ initialize: (UnsafeMutablePointer<Message>) -> Void) -> UnsafeMutablePointer<Message> {
    let pointer = allocate(Message.self, 1)
    initialize(pointer)
    return pointer
  }

  /// A C string.
  func text(_ value: String) -> UnsafeMutablePointer<CChar> {
    let bytes = value.utf8CString
    let pointer = allocate(CChar.self, bytes.count)
    bytes.withUnsafeBufferPointer { pointer.initialize(from: $0.baseAddress!, count: $0.count) }
    return pointer
  }

  /// A C array; nil when it is empty.
  func array<Element>(_ elements: [Element]) -> UnsafeMutablePointer<Element>? {
    guard !elements.isEmpty else { return nil }
    let pointer = allocate(Element.self, elements.count)
    for (index, element) in elements.enumerated() { (pointer + index).initialize(to: element) }
    return pointer
  }

  private func allocate<Element>(_: Element.Type, _ count: Int) -> UnsafeMutablePointer<Element> {
    let pointer = UnsafeMutablePointer<Element>.allocate(capacity: count)
    allocations.append(UnsafeMutableRawPointer(pointer))
    return pointer
  }
}
