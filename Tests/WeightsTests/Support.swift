import Foundation
import TensorCore
import Weights

/// The repository's reference data.
let golden = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().appending(path: "Golden")

/// A directory that is removed at the end of its scope.
struct TemporaryDirectory: ~Copyable {
  let url: URL

  init() throws {
    url = FileManager.default.temporaryDirectory.appending(path: "weights-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: url) }

  /// Writes `bytes` to a file in the directory.
  func write(_ bytes: [UInt8], as name: String) throws -> URL {
    let file = url.appending(path: name)
    try Data(bytes).write(to: file)
    return file
  }

  /// Names of the files in the directory, hidden ones too.
  var contents: [String] { (try? FileManager.default.contentsOfDirectory(atPath: url.path).sorted()) ?? [] }
}

/// A generator whose sequence is the same in every run (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

/// The bytes of a safetensors file with the given header text and data.
func safetensors(_ header: String, data: [UInt8] = [], length: UInt64? = nil) -> [UInt8] {
  let length = length ?? UInt64(header.utf8.count)
  return (0..<8).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) } + Array(header.utf8) + data
}

/// Runs `body` and returns the ``WeightsError`` it throws.
func weightsError(_ body: () throws -> Void) -> WeightsError? {
  do {
    try body()
    return nil
  } catch { return error as? WeightsError }
}
