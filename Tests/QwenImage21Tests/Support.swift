import Foundation
import GoldenSupport

/// Where the recorded reference data of this family lie.
enum Golden {
  static let checkpoint = golden.appending(path: "tiny-2.1/checkpoint")
  static let turboCheckpoint = golden.appending(path: "tiny-2.1/checkpoint-turbo")

  static func reference(_ name: String) -> URL { golden.appending(path: "tiny-2.1/reference/\(name)") }

  static func input(_ name: String) -> URL { golden.appending(path: "tiny-2.1/inputs/\(name).png") }
}
