import Foundation
import Testing

/// Dependencies between the rooms point one way, and the two towers (compute, messaging) meet only in Services/.
@Suite struct ImportDirectionTests {
  /// For each room, the rooms of this project it may import. Everything else must come from outside.
  private static let allowed: [String: Set<String>] = [
    "StrictJSON": [],
    "TensorCore": [],
    "Kernels": ["TensorCore", "CKernels", "COpenBLAS"],
    "Weights": ["TensorCore", "Kernels", "StrictJSON", "CZlib"],
    "ImageCodec": ["CImageCodec"],
    "QwenImage": ["TensorCore", "Kernels", "Weights", "ImageCodec", "StrictJSON"],
    "Wire": ["CWire", "CProtobufC", "CZlib"],
    "Transport": ["Wire", "CZeroMQ"],
    "Observability": [],
    "Settings": [],
    "Scheduling": [],
    "Journal": ["CZlib"],
    "AccessKeys": [],
    "StageRuntime": ["Wire", "Transport", "Observability"],
    "Gateway": [
      "Wire", "Transport", "Scheduling", "Journal", "AccessKeys", "ImageCodec", "Observability", "Settings",
      "StrictJSON",
    ],
    "GatewayMain": ["Gateway", "Observability", "Settings"],
    "StageSupport": ["TensorCore", "Kernels", "QwenImage", "Wire", "Transport", "StageRuntime", "Observability", "Settings"],
    "TextEncoder": ["TensorCore", "Kernels", "Weights", "QwenImage", "Wire", "StageRuntime", "StageSupport"],
    "Denoiser": ["TensorCore", "Kernels", "Weights", "QwenImage", "Wire", "StageRuntime", "StageSupport"],
    "VAEDecoder": ["TensorCore", "Kernels", "Weights", "QwenImage", "ImageCodec", "Wire", "StageRuntime", "StageSupport"],
    "QwenImageCLI": ["AccessKeys", "TensorCore", "Kernels", "Weights", "QwenImage", "ImageCodec", "Settings", "Transport"],
  ]

  private static let root = URL(filePath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  /// Directories with Swift sources directly below `Shared/` and `Services/`.
  private static func rooms() throws -> [URL] {
    try ["Shared", "Services"].flatMap { floor in
      try FileManager.default.contentsOfDirectory(at: root.appending(path: floor), includingPropertiesForKeys: nil)
    }.filter { !swiftFiles($0).isEmpty }
  }

  private static func swiftFiles(_ directory: URL) -> [URL] {
    let files = FileManager.default.enumerator(at: directory, includingPropertiesForKeys: nil)
    return (files?.allObjects as? [URL] ?? []).filter { $0.pathExtension == "swift" }
  }

  /// Modules named in the file's import declarations, in any of their forms.
  private static func imports(_ file: URL) throws -> [String] {
    try String(contentsOf: file, encoding: .utf8).split(separator: "\n").compactMap { line in
      let words = line.split(separator: " ").map(String.init)
      guard let index = words.firstIndex(of: "import"), words[..<index].allSatisfy({ $0.hasPrefix("@") || isAccessLevel($0) }) else {
        return nil
      }
      let kinds: Set = ["struct", "class", "enum", "protocol", "func", "var", "let", "typealias"]
      return words[(index + 1)...].first { !kinds.contains($0) }.map { String($0.prefix { $0 != "." }) }
    }
  }

  private static func isAccessLevel(_ word: String) -> Bool {
    ["public", "package", "internal", "fileprivate", "private"].contains(word)
  }

  @Test func roomsImportOnlyWhatIsBelowThem() throws {
    let rooms = try Self.rooms()
    let names = Set(rooms.map(\.lastPathComponent)).union([
      "CKernels", "COpenBLAS", "CPNG", "CImageCodec", "CWire", "CProtobufC", "CZeroMQ", "CZlib",
    ])
    #expect(rooms.count >= 8)
    for room in rooms {
      let allowed = try #require(Self.allowed[room.lastPathComponent], "room \(room.lastPathComponent) has no entry in the table")
      for file in Self.swiftFiles(room) {
        let forbidden = try Self.imports(file).filter { names.contains($0) && !allowed.contains($0) }
        #expect(forbidden.isEmpty, "\(room.lastPathComponent)/\(file.lastPathComponent) imports \(forbidden)")
      }
    }
  }

  @Test func computeAndMessagingMeetOnlyInServices() {
    let compute: Set = ["TensorCore", "Kernels", "Weights", "QwenImage"]
    let messaging: Set = ["Wire", "Transport", "StageRuntime", "Scheduling", "Gateway"]
    for room in compute { #expect(Self.allowed[room]!.isDisjoint(with: messaging)) }
    for room in messaging { #expect(Self.allowed[room]!.isDisjoint(with: compute)) }
  }
}
