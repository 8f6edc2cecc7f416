import Synchronization

/// The values that were used last, as many as fit into a number of bytes.
package final class RecentValues<Key: Equatable & Sendable, Value: Sendable>: Sendable {
  private struct Entry: Sendable {
    let key: Key
    let value: Value
    let byteCount: Int
  }

  /// In the order of use, the last one at the end.
  private let entries = Mutex([Entry]())
  private let byteCountMax: Int

  /// Keeps at most `byteCountMax` bytes of values.
  package init(byteCountMax: Int) { self.byteCountMax = byteCountMax }

  /// Bytes of all values.
  package var byteCount: Int { entries.withLock { $0.reduce(0) { $0 + $1.byteCount } } }

  /// All values, the one that was used last at the end.
  package var values: [Value] { entries.withLock { $0.map(\.value) } }

  /// The value of `key`, if it is still there.
  package subscript(key: Key) -> Value? {
    entries.withLock { entries in
      guard let index = entries.firstIndex(where: { $0.key == key }) else { return nil }
      let entry = entries.remove(at: index)
      entries.append(entry)
      return entry.value
    }
  }

  /// Keeps a value of `byteCount` bytes, and gives up those that were not used for the longest time. A value that is
  /// larger than all may be is not kept.
  package func insert(_ value: Value, for key: Key, byteCount: Int) {
    guard byteCount <= byteCountMax else { return }
    entries.withLock { entries in
      entries.removeAll { $0.key == key }
      var total = entries.reduce(byteCount) { $0 + $1.byteCount }
      while total > byteCountMax { total -= entries.removeFirst().byteCount }
      entries.append(Entry(key: key, value: value, byteCount: byteCount))
    }
  }
}
