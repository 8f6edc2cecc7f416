import Foundation
import GoldenSupport
import Testing

/// Where the recorded reference data of this family lie.
enum Golden {
  static let checkpoint = golden.appending(path: "tiny-2.1/checkpoint")
  static let turboCheckpoint = golden.appending(path: "tiny-2.1/checkpoint-turbo")

  static func reference(_ name: String) -> URL { golden.appending(path: "tiny-2.1/reference/\(name)") }

  static func input(_ name: String) -> URL { golden.appending(path: "tiny-2.1/inputs/\(name).png") }
}

/// A copy of the tiny checkpoint, or an empty folder, that is removed when it is let go.
final class TemporaryCheckpoint {
  let url = FileManager.default.temporaryDirectory.appending(path: "qwen-image-21-\(UUID().uuidString)")

  init(empty: Bool = false) throws {
    if empty {
      try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    } else {
      try FileManager.default.copyItem(at: Golden.checkpoint, to: url)
    }
  }

  deinit { try? FileManager.default.removeItem(at: url) }

  /// Replaces a text that a file has once.
  func edit(_ path: String, _ text: String, _ replacement: String) throws {
    let file = url.appending(path: path)
    let content = try String(contentsOf: file, encoding: .utf8)
    #expect(content.components(separatedBy: text).count == 2, "\(path): \(text)")
    try content.replacingOccurrences(of: text, with: replacement).write(to: file, atomically: true, encoding: .utf8)
  }
}
