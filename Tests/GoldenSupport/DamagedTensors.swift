import Foundation
import Testing
import Weights

/// What is done to one tensor of a file.
enum Damage: String, CaseIterable {
  /// `data_offsets` end one element early.
  case shortOffsets
  /// As many elements in another shape.
  case reshaped
  /// Integers of the same width in the same shape.
  case integers
  /// The same bytes as U8 or F8, in a shape that fits them.
  case sameBytesAsU8, sameBytesAsF8
  /// The file ends in the middle of it.
  case cut
  /// One byte per element in the same shape, of a type that no weights have.
  case sameShapeAsF8
  /// It is gone from the file, and the index still lists it.
  case removedFromItsShard
  /// It is gone, from the index too.
  case removed

  /// Whether the damage is to the file's structure, which is checked for tensors that no model reads too.
  var isOfTheFile: Bool { [.removedFromItsShard, .cut, .shortOffsets].contains(self) }

  /// How the damage is brought about. Those that leave the data as they are, the first ones, write the header only, and
  /// may cut the file off.
  enum Change {
    case header([UInt8], byteCount: Int? = nil)
    case file([UInt8])
  }

  /// The change to `file`, whose header takes `headerByteCount` bytes; nil where there is none, as in a cast of bytes
  /// to bytes.
  func change(to name: String, of file: StoredFile, headerByteCount: Int) -> Change? {
    guard let index = file.tensors.firstIndex(where: { $0.name == name }) else { return nil }
    let tensor = file.tensors[index].tensor
    var damaged = file
    switch self {
    case .shortOffsets:
      return .header(file.header(byteCount: headerByteCount) { $0 == name ? $1 - tensor.width : $1 })
    case .reshaped:
      let isSymmetric = tensor.shape == tensor.shape.reversed()
      damaged[name]?.shape = isSymmetric ? [1] + tensor.shape : tensor.shape.reversed()
    case .integers:
      guard let integers = ["F32": "I32", "BF16": "I16", "F16": "I16", "I32": "F32", "U8": "I8"][tensor.dtype] else {
        return nil
      }
      damaged[name]?.dtype = integers
    case .sameBytesAsU8, .sameBytesAsF8:
      guard tensor.width > 1, let last = tensor.shape.last else { return nil }
      damaged[name]?.dtype = self == .sameBytesAsU8 ? "U8" : "F8_E4M3"
      damaged[name]?.shape = tensor.shape.dropLast() + [last * tensor.width]
    case .sameShapeAsF8:
      guard tensor.width > 1 else { return nil }
      let bytes = Array(tensor.bytes.prefix(tensor.elementCount))
      damaged[name] = StoredTensor(dtype: "F8_E8M0", shape: tensor.shape, bytes: bytes)
      return .file(damaged.bytes())
    case .cut:
      let before = file.tensors[..<index].reduce(headerByteCount) { $0 + $1.tensor.bytes.count }
      return .header(file.header(byteCount: headerByteCount), byteCount: before + tensor.bytes.count / 2)
    case .removed, .removedFromItsShard:
      damaged[name] = nil
      return .file(damaged.bytes())
    }
    return .header(damaged.header(byteCount: headerByteCount))
  }
}

/// How many tensors a folder has, how many of them are used, and how many damaged ones were refused.
package struct DamageCounts {
  package fileprivate(set) var tensors = 0, used = 0, refused = 0
  fileprivate var failures: [String] = []
}

/// A folder with weights, to be damaged, and what loads it.
package struct DamageTarget {
  private let folder: URL
  private let isUsed: (_ tensor: String) -> Bool
  private let load: () throws -> Void

  package init(folder: URL, isUsed: @escaping (_ tensor: String) -> Bool, load: @escaping () throws -> Void) {
    self.folder = folder
    self.isUsed = isUsed
    self.load = load
  }

  /// Damages every tensor of the folder in turn, each time in all ways, and records what the loader did not refuse with
  /// the names of file and tensor, or refused without reason.
  package func damageEveryTensor() throws -> DamageCounts {
    try load()
    var counts = DamageCounts()
    let names = try FileManager.default.contentsOfDirectory(atPath: folder.path)
    let index = names.first { $0.hasSuffix(".index.json") }.map { folder.appending(path: $0) }
    for shard in names.sorted() where shard.hasSuffix(".safetensors") {
      let shardURL = folder.appending(path: shard), file = try StoredFile(shardURL)
      // Space for what damaged headers need more.
      let header = file.header(byteCount: file.header().count + 64),
        original = header + file.tensors.flatMap(\.tensor.bytes)
      for (name, _) in file.tensors {
        counts.tensors += 1
        let isUsed = self.isUsed(name)
        if isUsed { counts.used += 1 }
        try Data(original).write(to: shardURL)
        for damage in Damage.allCases where index != nil || damage != .removedFromItsShard {
          guard let change = damage.change(to: name, of: file, headerByteCount: header.count) else { continue }
          try apply(change, to: shardURL)
          let listed = damage == .removed ? try index.map { try unlist(name, in: $0) } : nil
          let files = [shard] + (index.map { [$0.lastPathComponent] } ?? [])
          // The file says which layers are packed.
          let isOfThePacking = damage == .removed && name.hasSuffix(".panels")
          let isExpected = isUsed || damage.isOfTheFile || isOfThePacking
          let message = refusal()
          if message != nil { counts.refused += 1 }
          if !Self.isRight(
            message, isExpected: isExpected, of: name, in: files.map { "\(folder.lastPathComponent)/\($0)" })
          {
            counts.failures.append("\(name) \(damage): \(message ?? "loaded")")
          }
          if let index, let listed { try listed.write(to: index) }
        }
      }
      try Data(original).write(to: shardURL)
    }
    #expect(counts.failures.isEmpty, "\(counts.failures.count): \(counts.failures.prefix(5))")
    return counts
  }

  private func apply(_ change: Damage.Change, to url: URL) throws {
    switch change {
    case .file(let bytes): try Data(bytes).write(to: url)
    case .header(let bytes, let byteCount):
      let handle = try FileHandle(forUpdating: url)
      try handle.write(contentsOf: bytes)
      if let byteCount { try handle.truncate(atOffset: UInt64(byteCount)) }
      try handle.close()
    }
  }

  /// Why the weights cannot be loaded; nil where it can.
  private func refusal() -> String? {
    do {
      try load()
      return nil
    } catch { return "\(error)" }
  }

  /// Whether there is a message where one is expected, and it names one of the files and the tensor, or the packed
  /// weight that the tensor is part of.
  private static func isRight(_ message: String?, isExpected: Bool, of name: String, in files: [String]) -> Bool {
    guard isExpected, let message else { return message == nil && !isExpected }
    let weight = name.replacing(/\.(panels|scales|offsets)$/, with: "")
    return files.contains { message.contains($0) } && [name, weight].contains { message.contains("\"\($0)\"") }
  }

  /// Takes a tensor out of an index; returns what the index was.
  private func unlist(_ name: String, in index: URL) throws -> Data {
    let data = try Data(contentsOf: index)
    var document = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
    var map = try #require(document["weight_map"] as? [String: String])
    map[name] = nil
    document["weight_map"] = map
    try JSONSerialization.data(withJSONObject: document).write(to: index)
    return data
  }
}
