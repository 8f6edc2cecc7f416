import Foundation
import Kernels
import Synchronization
import TensorCore
import Testing
import Weights

@Suite struct WeightCacheTests {
  private let directory = try? TemporaryDirectoryBox()
  private let compute = Compute(precision: .int8, pool: testPool)

  private func key(fingerprint: String = "0123456789abcdef01", source: String = "/m", rules: String = "1")
    -> WeightCache.Key
  {
    WeightCache.Key(component: "transformer", precision: "int8", source: source, fingerprint: fingerprint, rules: rules)
  }

  /// Opens the entry; returns how often it had to be made and what was reported.
  private func open(
    _ key: WeightCache.Key, verifies: Bool = false, byteCount: Int = 1000, seed: UInt64 = 1
  ) throws -> (made: Int, reports: [String], weights: ComponentWeights) {
    let cache = WeightCache(try #require(directory).url, verifiesContents: verifies)
    var (made, reports) = (0, [String]())
    let weights = try cache.component(key, tensorsMax: 1, byteCount: byteCount, report: { reports.append($0) }) {
      writer in
      made += 1
      try writer.append(weight: "a.weight", of: compute.prepareLinear(weight: randomTensor([60, 70], seed: seed)))
    }
    return (made, reports, weights)
  }

  private var entries: [String] {
    let names = directory.flatMap { try? FileManager.default.contentsOfDirectory(atPath: $0.url.path) } ?? []
    return names.filter { !$0.hasSuffix(".lock") }.sorted()
  }

  @Test func isMadeOnceAndReplacedWhenItsSourceChanges() throws {
    #expect(try open(key()).made == 1)
    let again = try open(key(), verifies: true)
    #expect(again.made == 0 && again.reports.isEmpty)
    let layer = try #require(
      try again.weights.packedLayer("a.weight", output: 60, input: 70, bias: nil, compute: compute))
    let expected = compute.prepareLinear(weight: randomTensor([60, 70], seed: 1))
    #expect(compute.weight(of: layer).floats() == compute.weight(of: expected).floats())

    #expect(try open(key(fingerprint: "fedcba9876543210ff"), seed: 2).made == 1)
    #expect(entries == ["transformer-int8-fedcba9876543210"], "what was made from older contents goes")
    #expect(try open(key(source: "/other")).made == 1)
    #expect(entries.count == 2, "another model's entry stays")
    // The old mapping is still whole.
    #expect(compute.weight(of: layer).floats() == compute.weight(of: expected).floats())
  }

  @Test func otherRulesAndLongerFingerprintsMakeItAgain() throws {
    _ = try open(key())
    let rules = try open(key(rules: "2"))
    #expect(rules.made == 1 && rules.reports.first?.contains("another version of the checkpoint or program") == true)
    #expect(try open(key(fingerprint: "0123456789abcdefff", rules: "2")).made == 1)
  }

  @Test(arguments: ["header", "size", "manifest", "missing", "contents"]) func damageIsFoundAndRepaired(_ what: String)
    throws
  {
    _ = try open(key())
    let entry = try #require(directory).url.appending(path: entries[0])
    let file = entry.appending(path: "packed.safetensors"), manifest = entry.appending(path: "manifest.json")
    var bytes = try Data(contentsOf: file)
    switch what {
    case "header": bytes[100] ^= 1
    case "size": bytes.removeLast()
    case "contents": bytes[bytes.count - 5] ^= 1
    case "manifest": try Data("{}".utf8).write(to: manifest)
    default: try FileManager.default.removeItem(at: manifest)
    }
    try bytes.write(to: file)
    if what == "contents" { #expect(try open(key()).made == 0, "only a full check reads contents") }
    let repaired = try open(key(), verifies: true)
    #expect(repaired.made == 1 && repaired.reports.count == 1, "\(repaired.reports)")
    #expect(try open(key(), verifies: true).made == 0)
  }

  @Test func nothingIncompleteIsLeftOrTrusted() throws {
    let url = try #require(directory).url, cache = WeightCache(url)
    struct Stop: Error {}
    #expect(throws: Stop.self) {
      _ = try cache.component(key(), tensorsMax: 1, byteCount: 10, report: { _ in }) { writer in
        try writer.append("x", Tensor([1], shape: [1]))
        throw Stop()
      }
    }
    #expect(entries.isEmpty)
    // As a killed process leaves it.
    let partial = url.appending(path: ".transformer-int8-0123456789abcdef.partial")
    try FileManager.default.createDirectory(at: partial, withIntermediateDirectories: true)
    try Data("half".utf8).write(to: partial.appending(path: "packed.safetensors"))
    #expect(try open(key()).made == 1)
    #expect(entries == ["transformer-int8-0123456789abcdef"])
  }

  @Test func aFullDiskAndAForbiddenDirectoryAreErrors() throws {
    let full = weightsError { _ = try open(key(), byteCount: 1 << 60) }
    #expect(full?.description.contains("MB are needed") == true && entries.isEmpty)
    let forbidden = weightsError {
      _ = try WeightCache(URL(filePath: "/proc/nothing")).component(
        key(), tensorsMax: 1, byteCount: 1, report: { _ in }
      ) { _ in }
    }
    #expect(forbidden?.description.contains("/proc/nothing") == true)
  }

  @Test func processesThatStartTogetherMakeItOnce() throws {
    let made = Atomic(0), url = try #require(directory).url
    DispatchQueue.concurrentPerform(iterations: 6) { _ in
      _ = try? WeightCache(url).component(key(), tensorsMax: 1, byteCount: 10, report: { _ in }) { writer in
        made.add(1, ordering: .relaxed)
        Thread.sleep(forTimeInterval: 0.05)
        try writer.append("x", Tensor([1], shape: [1]))
      }
    }
    #expect(made.load(ordering: .relaxed) == 1)
  }
}

/// A temporary directory that a suite can hold.
private final class TemporaryDirectoryBox: Sendable {
  let url: URL
  init() throws {
    url = FileManager.default.temporaryDirectory.appending(path: "weights-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
  }
  deinit { try? FileManager.default.removeItem(at: url) }
}
