import Foundation

/// Random numbers for tests: other ones in every run, and the same again on request.
///
/// The process prints its seed when a test first draws a number. `QWEN_IMAGE_TEST_SEED=<seed>` repeats the run;
/// `Tests/run.sh` and `Tests/dev.sh` set it for all the tests that they start, and print it when something fails.
public struct TestRandom: RandomNumberGenerator {
  /// The environment variable that sets ``seed``.
  public static let variable = "QWEN_IMAGE_TEST_SEED"

  /// The seed of this process.
  public static let seed: UInt64 = {
    let text = ProcessInfo.processInfo.environment[variable] ?? ""
    guard text.isEmpty || UInt64(text) != nil else {
      fatalError("\(variable) is \"\(text)\", but must be an integer from 0 to 2^64 - 1")
    }
    let seed = UInt64(text) ?? UInt64.random(in: 0...UInt64(UInt32.max))
    // Unbuffered, so that it is there when a test crashes.
    FileHandle.standardError.write(Data("\(variable)=\(seed) repeats the random numbers of this run\n".utf8))
    return seed
  }()

  private var state: UInt64

  /// A sequence of its own for `name`, so that one test alone draws what it draws among all the others.
  public init(_ name: String) {
    // FNV-1a of the name, because Swift's own hashes differ from process to process.
    state = name.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 } ^ Self.seed
  }

  /// SplitMix64 (Steele, Lea, Flood 2014).
  public mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
