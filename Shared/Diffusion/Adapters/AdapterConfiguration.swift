import Foundation
import StrictJSON
import Weights

/// What PEFT keeps apart from an adapter's tensors: in `adapter_config.json` beside them, or in the header of the file,
/// as diffusers does.
struct AdapterConfiguration: Sendable, Equatable {
  /// What α is for layers that no pattern names.
  private let alpha: Double
  /// The same for layers whose names end with a key.
  private let alphas: [String: Double]
  /// The rank, for adapters whose tensors do not show it.
  private let rank: Int
  private let ranks: [String: Int]
  /// Whether α is divided by the square root of the rank.
  private let usesRootOfRank: Bool

  /// The key of the header's metadata.
  static let metadataKey = "lora_adapter_metadata"
  /// The file's name.
  static let fileName = "adapter_config.json"
  private static let maxBytes = 4 << 20
  private static let maxRank = 1 << 20

  /// Reads `adapter_config.json` beside `file`; nil: there is none.
  init?(beside file: URL) throws(WeightsError) {
    let url = file.deletingLastPathComponent().appending(path: Self.fileName)
    guard isPresent(url.path) else { return nil }
    try self.init(readSmallFile(url.path, maxBytes: Self.maxBytes), file: url.path)
  }

  /// Reads a header's metadata; nil: they have none.
  init?(metadata: [String: String], file: String) throws(WeightsError) {
    guard let text = metadata[Self.metadataKey] else { return nil }
    guard text.utf8.count <= Self.maxBytes else {
      throw .malformedHeader(
        file: file, reason: "\(Self.metadataKey) has \(text.utf8.count) bytes, the limit is \(Self.maxBytes)")
    }
    try self.init(Array(text.utf8), file: file)
  }

  private init(_ bytes: [UInt8], file: String) throws(WeightsError) {
    func failure(_ reason: String) -> WeightsError {
      .malformedHeader(file: file, reason: "the adapter's configuration \(reason)")
    }
    let document: JSON
    do { document = try JSON(bytes, maxValues: 1 << 18) } catch { throw failure("is no JSON: \(error.description)") }
    guard case .object(let members) = document else { throw failure("is \(document.kind), expected an object") }
    // Of a pipeline's adapters each network's fields have its name in front.
    let prefix = members.keys.contains("r") ? "" : "transformer."
    func field(_ name: String) -> JSON? { document[prefix + name].flatMap { $0 == .null ? nil : $0 } }
    for name in ["use_dora", "lora_bias", "fan_in_fan_out"] where field(name) == .bool(true) {
      throw failure("has \(name), which is not supported")
    }
    if let kind = field("peft_type")?.text, !["LORA", "LOHA", "LOKR"].contains(kind) {
      throw failure("is of the type \(printable(kind, max: 40)); supported are LORA, LOHA, LOKR")
    }
    guard let rank = (field("r") ?? 8).integer, (1...Self.maxRank).contains(rank) else {
      throw failure("has no r from 1 to \(Self.maxRank)")
    }
    guard let alpha = (field("lora_alpha") ?? field("alpha") ?? 8).double, alpha.isFinite else {
      throw failure("has a lora_alpha that is no number")
    }
    self.rank = rank
    self.alpha = alpha
    usesRootOfRank = field("use_rslora") == .bool(true)
    func patterns<Value>(_ name: String, _ value: (JSON) -> Value?) throws(WeightsError) -> [String: Value] {
      guard let field = field(name) else { return [:] }
      guard case .object(let members) = field else { throw failure("has a \(name) that is no object") }
      var patterns: [String: Value] = [:]
      for (key, member) in members {
        // PEFT takes them for regular expressions, in which a dot stands for any character.
        guard key.utf8.allSatisfy({ Self.isPlain($0) }) else {
          throw failure(
            "has a \(name) with the regular expression \"\(printable(key, max: 100))\"; names are supported")
        }
        guard let value = value(member) else {
          throw failure("has a \(name) whose \(printable(key, max: 100)) is no number")
        }
        patterns[key] = value
      }
      return patterns
    }
    alphas = try patterns("alpha_pattern") { $0.double }
    ranks = try patterns("rank_pattern") { $0.integer.flatMap { (1...Self.maxRank).contains($0) ? $0 : nil } }
  }

  /// Everything, as text that is equal for equal configurations.
  var summary: String {
    let patterns =
      alphas.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
      + ranks.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
    return "\(alpha) \(rank) \(usesRootOfRank) \(alphas.count) \(patterns.joined(separator: " "))"
  }

  private static func isPlain(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "-"):
      true
    default: false
    }
  }

  /// What ΔW of a layer is multiplied with.
  ///
  /// - Parameters:
  ///   - layer: its name in the network.
  ///   - rank: as its tensors show it; nil: they do not.
  func scale(of layer: String, rank: Int?) -> Double {
    func value<Value>(_ patterns: [String: Value]) -> Value? {
      patterns[layer] ?? patterns.filter { layer.hasSuffix(".\($0.key)") }.max { $0.key < $1.key }?.value
    }
    let rank = Double(rank ?? value(ranks) ?? self.rank)
    return (value(alphas) ?? alpha) / (usesRootOfRank ? rank.squareRoot() : rank)
  }
}
