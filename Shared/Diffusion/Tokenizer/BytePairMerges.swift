/// The merge rules of byte-pair encoding, and their application to a word.
struct BytePairMerges: Sendable {
  /// A rule's place in the order of rules, and the token that it makes.
  private struct Rule: Sendable {
    let rank: UInt32
    let merged: UInt32
  }

  private var rules: [UInt64: Rule] = [:]

  init(capacity: Int) { rules.reserveCapacity(capacity) }

  private static func key(_ left: UInt32, _ right: UInt32) -> UInt64 { UInt64(left) << 32 | UInt64(right) }

  /// Adds the rule that comes after all those added so far. Returns false if the pair has one already.
  mutating func append(left: UInt32, right: UInt32, merged: UInt32) -> Bool {
    let rule = Rule(rank: UInt32(rules.count), merged: merged)
    return rules.updateValue(rule, forKey: Self.key(left, right)) == nil
  }

  /// Merges the tokens of one word, always the pair of the lowest rank, leftmost first, until no rule applies.
  ///
  /// Candidate pairs wait in a heap, so a word of n bytes takes O(n log n), however long it is.
  func apply(to word: inout [UInt32]) {
    guard word.count > 1 else { return }
    var next = Array(1...word.count)
    var previous = Array(-1..<(word.count - 1))
    var alive = [Bool](repeating: true, count: word.count)
    var heap = CandidateHeap()

    func consider(_ left: Int, _ word: [UInt32]) {
      guard left >= 0, next[left] < word.count, let rule = rules[Self.key(word[left], word[next[left]])] else { return }
      heap.insert(UInt64(rule.rank) << 32 | UInt64(left))
    }
    for left in 0..<(word.count - 1) { consider(left, word) }
    while let candidate = heap.popMin() {
      let left = Int(candidate & 0xffff_ffff)
      // The candidate may be stale: one of its tokens may have been merged with another neighbour since.
      guard alive[left], next[left] < word.count, let rule = rules[Self.key(word[left], word[next[left]])],
        rule.rank == UInt32(candidate >> 32)
      else { continue }
      let right = next[left]
      word[left] = rule.merged
      alive[right] = false
      next[left] = next[right]
      if next[left] < word.count { previous[next[left]] = left }
      consider(left, word)
      consider(previous[left], word)
    }
    word = word.indices.filter { alive[$0] }.map { word[$0] }
  }
}

/// A binary min-heap of merge candidates: rank in the upper half, position in the lower.
private struct CandidateHeap {
  private var keys: [UInt64] = []

  mutating func insert(_ key: UInt64) {
    keys.append(key)
    var child = keys.count - 1
    while child > 0, keys[(child - 1) / 2] > keys[child] {
      keys.swapAt(child, (child - 1) / 2)
      child = (child - 1) / 2
    }
  }

  mutating func popMin() -> UInt64? {
    guard let result = keys.first, let last = keys.popLast() else { return nil }
    guard !keys.isEmpty else { return result }
    keys[0] = last
    var parent = 0
    while true {
      var smallest = parent
      for child in [2 * parent + 1, 2 * parent + 2] where child < keys.count && keys[child] < keys[smallest] {
        smallest = child
      }
      guard smallest != parent else { return result }
      keys.swapAt(parent, smallest)
      parent = smallest
    }
  }
}
