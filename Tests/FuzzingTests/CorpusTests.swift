import Foundation
import FuzzTargets
import TestSupport
import Testing

/// What the fuzzer has collected (Tests/Fuzzing), without the fuzzer.
@Suite("Inputs from outside")
struct CorpusTests {
  private static let corpus = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .appending(path: "Fuzzing/corpus")

  private func inputs(_ target: FuzzTarget) throws -> [[UInt8]] {
    try FileManager.default.contentsOfDirectory(
      at: Self.corpus.appending(path: target.rawValue), includingPropertiesForKeys: nil
    )
    .sorted { $0.lastPathComponent < $1.lastPathComponent }.map { [UInt8](try Data(contentsOf: $0)) }
  }

  /// A trap ends the process, and so the test.
  @Test(arguments: FuzzTarget.allCases) func noneTraps(target: FuzzTarget) throws {
    let inputs = try inputs(target)
    #expect(inputs.count >= 4)
    for input in inputs { target.run(input) }
  }

  @Test(arguments: FuzzTarget.allCases) func neitherDoMutationsOfThem(target: FuzzTarget) throws {
    let inputs = try inputs(target)
    var generator = TestRandom("corpus \(target.rawValue)")
    for _ in 0..<2000 {
      guard var input = inputs.randomElement(using: &generator), !input.isEmpty else { continue }
      for _ in 0..<Int.random(in: 1...4, using: &generator) { mutate(&input, with: inputs, using: &generator) }
      target.run(input)
    }
  }

  private func mutate(_ input: inout [UInt8], with others: [[UInt8]], using generator: inout TestRandom) {
    guard !input.isEmpty else { return }
    let place = Int.random(in: 0..<input.count, using: &generator)
    switch Int.random(in: 0..<6, using: &generator) {
    case 0: input[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
    case 1: input[place] = [0, 1, 0x7f, 0x80, 0xff].randomElement(using: &generator) ?? 0
    case 2: input.removeSubrange(place..<min(input.count, place + Int.random(in: 1...8, using: &generator)))
    case 3: input.insert(contentsOf: input[place...].prefix(16), at: place)
    case 4: input.removeLast(input.count - place)
    default:
      let other = others.randomElement(using: &generator) ?? []
      input.replaceSubrange(place..., with: other.dropFirst(place).prefix(2048))
    }
  }
}
