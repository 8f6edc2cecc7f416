import Foundation
import Kernels
import StrictJSON
import TensorCore

/// Writes a component as published ones are: one safetensors file, or shards of limited size behind an index.
///
/// Tensors are streamed. File names say how many shards there are, so nothing has its final name before ``finish()``;
/// write into a directory that is not in use yet and rename that.
public final class ShardedWriter {
  /// A finished file.
  public struct File: Sendable, Equatable {
    /// Its name in the directory.
    public let name: String
    /// Sizes and checksums.
    public let summary: SafetensorsWriter.Summary
  }

  /// Largest shard, as the published checkpoints are cut.
  public static let publishedShardBytesMax = 5_000_000_000

  private let directory: URL
  private let baseName: String
  private let shardBytesMax: Int
  private let metadata: [String: String]
  private let headerCapacity: Int
  private var shard: SafetensorsWriter?
  private var shardBytes = 0
  private var summaries: [SafetensorsWriter.Summary] = []
  private var shardOfTensor: [(name: String, shard: Int)] = []
  private var totalBytes = 0

  /// Prepares writing `<baseName>….safetensors` in `directory`, which must exist.
  /// - Parameters:
  ///   - precision: the mode that layers are packed for; nil for a component of plain tensors.
  ///   - tensorsMax: most tensors that will come; decides the space reserved for headers.
  public init(
    _ directory: URL, baseName: String, packedFor precision: Precision? = nil, tensorsMax: Int,
    shardBytesMax: Int = publishedShardBytesMax
  ) {
    // Up to four entries of about a hundred bytes and a long name each; data behind them begins at a multiple of 4096.
    headerCapacity = (8 + 1024 + tensorsMax * 4 * 200 + 4095) / 4096 * 4096 - 8
    self.directory = directory
    self.baseName = baseName
    self.shardBytesMax = shardBytesMax
    metadata = precision.map(PackedFormat.metadata) ?? ["format": "pt"]
  }

  /// Bytes of tensors written.
  public var byteCount: Int { totalBytes }

  /// Writes a tensor.
  public func append(_ name: String, _ tensor: Tensor) throws(WeightsError) {
    try shard(taking: tensor.byteCount).append(name, tensor)
    note(name, tensor.byteCount)
  }

  /// Writes a tensor piece by piece; see `SafetensorsWriter`.
  public func append(
    _ name: String, _ shape: Shape, _ dtype: DType, rowsAtATime: Int,
    _ rows: (Range<Int>) throws(WeightsError) -> Tensor
  ) throws(WeightsError) {
    let byteCount = shape.elementCount * dtype.byteWidth
    try shard(taking: byteCount).append(name, shape, dtype, rowsAtATime: rowsAtATime, rows)
    note(name, byteCount)
  }

  /// Writes the packed weight `name` of a layer, without its bias.
  /// - Returns: the bytes it takes.
  @discardableResult public func append(weight name: String, of layer: Linear) throws(WeightsError) -> Int {
    guard let parts = layer.parts else { preconditionFailure("a layer of OpenBLAS is not packed") }
    let named = PackedFormat.partNames.compactMap { part in parts[part].map { (name: "\(name).\(part)", tensor: $0) } }
    let byteCount = named.reduce(0) { $0 + $1.tensor.byteCount }
    let shard = try shard(taking: byteCount)
    for (name, tensor) in named {
      try shard.append(name, tensor)
      note(name, tensor.byteCount)
    }
    let layer = PackedFormat.Layer(
      precision: layer.precision, output: layer.outFeatures, input: layer.inFeatures, rotation: layer.rotation)
    try shard.setMetadata(PackedFormat.layerPrefix + name, layer.description)
    return byteCount
  }

  /// Closes the last shard, gives all of them their names and writes the index. At least one tensor must have been
  /// written.
  public func finish() throws(WeightsError) -> [File] {
    try closeShard()
    let count = summaries.count
    precondition(count > 0, "a component without tensors")
    let names = (1...count).map {
      count == 1 ? "\(baseName).safetensors" : "\(baseName)-\(Self.digits($0))-of-\(Self.digits(count)).safetensors"
    }
    for (index, name) in names.enumerated() {
      guard rename(temporaryURL(index + 1).path, directory.appending(path: name).path) == 0 else {
        throw .cannotWrite(file: directory.appending(path: name).path, reason: systemError())
      }
    }
    if count > 1 { try writeIndex(names) }
    return zip(names, summaries).map { File(name: $0, summary: $1) }
  }

  /// The shard that takes `byteCount` more bytes: a new one if the present one would grow too large.
  private func shard(taking byteCount: Int) throws(WeightsError) -> SafetensorsWriter {
    if shardBytes > 0, shardBytes + byteCount > shardBytesMax { try closeShard() }
    if let shard { return shard }
    let next = try SafetensorsWriter(
      temporaryURL(summaries.count + 1), metadata: metadata, headerCapacity: headerCapacity)
    shard = next
    return next
  }

  private func note(_ name: String, _ byteCount: Int) {
    shardOfTensor.append((name, summaries.count))
    shardBytes += byteCount
    totalBytes += byteCount
  }

  private func closeShard() throws(WeightsError) {
    guard let shard else { return }
    summaries.append(try shard.finish())
    self.shard = nil
    shardBytes = 0
  }

  private func temporaryURL(_ number: Int) -> URL { directory.appending(path: ".\(baseName)-\(number).safetensors") }

  private static func digits(_ number: Int) -> String {
    String(repeating: "0", count: max(0, 5 - "\(number)".count)) + "\(number)"
  }

  private func writeIndex(_ names: [String]) throws(WeightsError) {
    let map = Dictionary(uniqueKeysWithValues: shardOfTensor.map { ($0.name, names[$0.shard]) })
    try writeJSON(
      ShardIndex(metadata: .init(total_size: totalBytes), weight_map: map),
      to: directory.appending(path: "\(baseName).safetensors.index.json"))
  }

  private struct ShardIndex: Encodable {
    struct Metadata: Encodable { let total_size: Int }
    let metadata: Metadata
    let weight_map: [String: String]
  }
}

/// Writes `value` as indented JSON with sorted keys, atomically.
package func writeJSON(_ value: some Encodable, to url: URL) throws(WeightsError) {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
  do { try (encoder.encode(value) + Data("\n".utf8)).write(to: url, options: .atomic) } catch {
    throw .cannotWrite(file: url.path, reason: error.localizedDescription)
  }
}
