import ClusterCore

/// From where a task's attempts are numbered, so that no number is used twice and later attempts have larger ones,
/// also when another owner makes them.
///
/// Numbers come in blocks. The attempts of a job that was admitted here are in block 0, those of one from an earlier
/// run of a journal without other owners in the run's block. Who adopts a job from another owner cannot know which
/// attempts of it the journal does not know yet; they are in the block of the last known one, since every first number
/// of a block but the admission's was durable before it was offered. So the adopter takes the next block, and the same
/// rule holds for it.
struct AttemptNumbers: Hashable, Sendable {
  enum Reservation: Hashable, Sendable {
    /// The journal knows a number of this block, or need not.
    case done
    /// The next number must be durable before it is offered.
    case needed
    case pending(JournalSequence)
  }

  /// Numbers in a block; the first one is not used.
  static let blockSize: UInt32 = 1 << 12
  /// The largest block.
  static let maxBlock = UInt32.max / blockSize

  /// The first one here.
  private(set) var first: UInt32 = 1
  var reservation = Reservation.done

  /// Of a job that was admitted here.
  init() {}

  /// Of a job from an earlier run, whose last attempt that the journal knows is `last`. A run that has used up its
  /// block has begun the next.
  init(run: UInt32, after last: UInt32) {
    let block = Self.hasBlock(after: last) && last > 0 ? max(run, last / Self.blockSize + 1) : run
    first = block * Self.blockSize + 1
  }

  /// Of a job whose earlier owner made an attempt `last`, perhaps, as long as there is a block after that one's.
  init(after last: UInt32) {
    first = min(last / Self.blockSize + 1, Self.maxBlock) * Self.blockSize + 1
    reservation = .needed
  }

  /// The number of the attempt after `last`. When a block is used up, the next one is begun like an adopter's.
  mutating func next(after last: UInt32) -> UInt32 {
    let number = max(first, last + 1)
    guard number / Self.blockSize != first / Self.blockSize else { return number }
    self = AttemptNumbers(after: first)
    return first
  }

  /// Whether there is no number after `last`.
  static func areUsedUp(after last: UInt32) -> Bool { last >= .max - 1 }

  /// Whether there is a block after that of `last`.
  static func hasBlock(after last: UInt32) -> Bool { last / blockSize < maxBlock }
}
