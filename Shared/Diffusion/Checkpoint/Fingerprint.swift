import Foundation
import Hashing
import Weights

extension ModelDirectory {
  /// SHA-256, in hexadecimal, of everything the configurations say: equal for two directories that describe the same
  /// model, however their files are arranged. Weights and vocabulary are not part of it; see
  /// `componentFingerprint(_:)`.
  public var fingerprint: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    func bytes(_ configuration: some Encodable) -> Data {
      // Only non-finite numbers cannot be encoded, and the configurations refuse them when they are read.
      guard let data = try? encoder.encode(configuration) else {
        preconditionFailure("configuration with a non-finite number")
      }
      return data
    }
    var hash = LabelledHash()
    hash.update("model_index", bytes(["className": className]))
    for (component, configuration) in family.configurations { hash.update(component.rawValue, bytes(configuration)) }
    hash.update("scheduler", bytes(scheduler))
    return hash.hexDigest()
  }

  /// SHA-256, in hexadecimal, that tells one component's weights (or vocabulary) from another's.
  ///
  /// Covers every tensor's name, element type and shape, all bytes of small tensors and one page in the middle of large
  /// ones: any other training run differs there, and a 40 GB transformer takes two thousand page reads. It identifies a
  /// checkpoint; it is no proof against tampering or bit rot. Independent of how tensors are divided into files. The
  /// tokenizer's files are covered whole.
  ///
  /// - Parameter controlNetworks: directories of control networks that are loaded beside the component.
  public func componentFingerprint(
    _ component: ModelComponent, beside controlNetworks: [URL] = []
  ) throws(WeightsError) -> String {
    var hash = LabelledHash()
    if component == .tokenizer {
      let directory = url(of: component)
      for name in ["vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json", "tokenizer.json"] {
        let path = directory.appending(path: name).path
        guard FileManager.default.fileExists(atPath: path) else { continue }
        hash.update(name, Data(try readSmallFile(path, maxBytes: 256 << 20)))
      }
      return hash.hexDigest()
    }
    try Self.update(&hash, with: try weights(of: component))
    for url in controlNetworks {
      hash.update("control network", Data())
      try Self.update(
        &hash, with: ComponentWeights(directory: url, baseName: ModelComponent.transformer.weightsBaseName))
    }
    return hash.hexDigest()
  }

  private static func update(_ hash: inout LabelledHash, with weights: ComponentWeights) throws(WeightsError) {
    for name in weights.names {
      let quantisation = weights.quantisation(of: name).map { " \($0)" } ?? ""
      for part in 0..<weights.partCount(of: name) {
        guard let entry = weights.entry(name, part: part) else { continue }
        hash.update(name, Data("\(entry.dtypeName) \(entry.shape)\(quantisation)".utf8))
        hash.update("bytes", Data(try weights.readBytes(of: name, part: part, in: sample(byteCount: entry.byteCount))))
      }
    }
  }

  private static let maxWholeTensorBytes = 16 << 10
  private static let samplePageBytes = 4096

  private static func sample(byteCount: Int) -> Range<Int> {
    guard byteCount > maxWholeTensorBytes else { return 0..<byteCount }
    let middle = byteCount / 2 / samplePageBytes * samplePageBytes
    return middle..<min(middle + samplePageBytes, byteCount)
  }
}

/// SHA-256 over labelled fields; lengths are hashed too, so that no two sequences of fields run together.
struct LabelledHash: ~Copyable {
  private var hash = SHA256()

  mutating func update(_ label: String, _ data: Data) {
    update(label)
    updateCount(data.count)
    hash.update(data)
  }

  mutating func update(_ label: String, _ bytes: RawSpan) {
    update(label)
    updateCount(bytes.byteCount)
    hash.update(bytes)
  }

  private mutating func update(_ label: String) {
    updateCount(label.utf8.count)
    hash.update(label.utf8)
  }

  private mutating func updateCount(_ count: Int) {
    hash.update((0..<8).map { UInt8(truncatingIfNeeded: count >> (8 * $0)) })
  }

  consuming func hexDigest() -> String { hexadecimal(hash.finalize()) }
}
