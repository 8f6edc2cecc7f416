/// SplitMix64 (Steele, Lea, Flood 2014): a small generator whose stream is fixed by its seed.
package struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  package init(seed: UInt64) {
    state = seed
  }

  package mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }

  mutating func chance(_ probability: Double) -> Bool { Double(next() >> 11) * 0x1p-53 < probability }

  mutating func pick(_ range: ClosedRange<Int>) -> Int {
    range.lowerBound + Int(next() % UInt64(range.upperBound - range.lowerBound + 1))
  }
}

/// Order-dependent mixing, in which a lost, repeated or misplaced part shows in the result.
func mix(_ values: UInt64...) -> UInt64 {
  values.reduce(0) { sum, value in
    var generator = SeededGenerator(seed: sum ^ value)
    return generator.next()
  }
}
