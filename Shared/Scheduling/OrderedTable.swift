/// A dictionary that keeps the order of insertion, like `OrderedDictionary`, but in which removal takes constant time
/// on average: what was removed leaves a gap until there are as many gaps as values.
struct OrderedTable<Key: Hashable & Sendable, Value: Sendable>: Sendable, ExpressibleByDictionaryLiteral {
  private var places: [Key: Int] = [:]
  private var keySlots: [Key?] = []
  private var valueSlots: [Value?] = []
  /// Slots before it are gaps.
  private var start = 0

  init() {}

  init(dictionaryLiteral elements: (Key, Value)...) {
    for (key, value) in elements { self[key] = value }
  }

  var count: Int { places.count }
  var isEmpty: Bool { places.isEmpty }

  /// Grows with the order of insertion; comparable as long as the table does not change.
  func place(of key: Key) -> Int? { places[key] }

  subscript(key: Key) -> Value? {
    get { places[key].flatMap { valueSlots[$0] } }
    _modify {
      if let place = places[key] {
        yield &valueSlots[place]
        if valueSlots[place] == nil { removeGap(place, key) }
      } else {
        var value: Value?
        yield &value
        if let value { append(key, value) }
      }
    }
  }

  subscript(key: Key, default fallback: @autoclosure () -> Value) -> Value {
    get { self[key] ?? fallback() }
    _modify {
      var value = self[key] ?? fallback()
      yield &value
      self[key] = value
    }
  }

  @discardableResult
  mutating func removeValue(forKey key: Key) -> Value? {
    guard let place = places[key] else { return nil }
    let value = valueSlots[place]
    valueSlots[place] = nil
    removeGap(place, key)
    return value
  }

  /// The one inserted first.
  var first: (key: Key, value: Value)? {
    for place in start..<keySlots.count {
      if let key = keySlots[place], let value = valueSlots[place] { return (key, value) }
    }
    return nil
  }

  private mutating func append(_ key: Key, _ value: Value) {
    places[key] = keySlots.count
    keySlots.append(key)
    valueSlots.append(value)
  }

  /// Its value is gone.
  private mutating func removeGap(_ place: Int, _ key: Key) {
    places[key] = nil
    keySlots[place] = nil
    while start < keySlots.count, keySlots[start] == nil { start += 1 }
    guard keySlots.count > 32, keySlots.count > 2 * places.count else { return }
    keySlots.removeAll { $0 == nil }
    valueSlots.removeAll { $0 == nil }
    for (place, key) in keySlots.enumerated() { if let key { places[key] = place } }
    start = 0
  }

  /// In the order of insertion.
  var keys: some Sequence<Key> & Sendable { keySlots[start...].lazy.compactMap { $0 } }
  /// In the order of insertion.
  var values: some Sequence<Value> & Sendable { valueSlots[start...].lazy.compactMap { $0 } }
}

extension OrderedTable: Sequence {
  func makeIterator() -> some IteratorProtocol<(key: Key, value: Value)> {
    zip(keySlots[start...], valueSlots[start...]).lazy
      .compactMap { key, value in key.flatMap { key in value.map { (key: key, value: $0) } } }
      .makeIterator()
  }
}
