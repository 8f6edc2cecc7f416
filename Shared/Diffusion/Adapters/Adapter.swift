import Foundation
import Hashing
import Kernels
import TensorCore
import Weights

/// An adapter: a safetensors file with what is added to the weights of a network's linear layers, LoRA, LoHa or LoKr.
///
/// A file that is read is mapped as long as the adapter is in use: it must be replaced, not rewritten.
public struct Adapter: Sendable {
  /// The file's name, without its extension; that of the directory where the file has a standard one.
  public let name: String
  /// SHA-256, in hexadecimal, of all tensors with their names and of what scales them: files with the same digest do
  /// the same.
  public let digest: String
  /// Tensors for text encoders, which are not used.
  public let textEncoderTensorCount: Int
  let file: SafetensorsFile
  let configuration: AdapterConfiguration?
  /// The tensors of each layer, by the file's name of it.
  let layers: [String: [AdapterPart: String]]

  /// Most tensors of a file: some ten times as many as the largest network needs.
  static let maxTensors = 1 << 16
  /// Most bytes of a file.
  static let maxBytes = 16 << 30
  /// Names of a file in a directory that PEFT or diffusers wrote.
  static let standardNames = ["adapter_model.safetensors", "pytorch_lora_weights.safetensors"]

  /// Reads the header of a file, or of the one in a directory, and checks what can be checked without a network.
  ///
  /// - Throws: `WeightsError` naming the file, and the tensor that is of an unknown or unsupported kind or does not fit
  ///   to the others.
  public init(_ url: URL) throws(WeightsError) {
    let url = try Self.file(at: url)
    file = try SafetensorsFile(url)
    let path = file.path
    guard file.header.entries.count <= Self.maxTensors else {
      throw .malformedHeader(
        file: path, reason: "\(file.header.entries.count) tensors; the limit of adapters is \(Self.maxTensors)")
    }
    guard file.fileByteCount <= Self.maxBytes else {
      throw .malformedHeader(file: path, reason: "\(file.fileByteCount) bytes; the limit is \(Self.maxBytes)")
    }
    let isStandard = Self.standardNames.contains(url.lastPathComponent)
    name = (isStandard ? url.deletingLastPathComponent() : url.deletingPathExtension()).lastPathComponent
    if let own = try AdapterConfiguration(metadata: file.header.metadata, file: path) {
      configuration = own
    } else {
      configuration = isStandard ? try AdapterConfiguration(beside: url) : nil
    }
    (layers, textEncoderTensorCount) = try Self.layers(of: file)
    digest = try Self.digest(of: file, configuration)
  }

  private static func file(at url: URL) throws(WeightsError) -> URL {
    var isDirectory: ObjCBool = false
    guard FileManager.default.fileExists(atPath: url.path, isDirectory: &isDirectory), isDirectory.boolValue else {
      return url
    }
    let found = standardNames.map { url.appending(path: $0) }.filter { isPresent($0.path) }
    guard let file = found.first else {
      throw .cannotRead(file: url.path, reason: "the directory has no \(standardNames.joined(separator: " and no "))")
    }
    guard found.count == 1 else {
      throw .ambiguousWeights(directory: url.path, candidates: found.map(\.lastPathComponent))
    }
    return file
  }

  private static func layers(
    of file: SafetensorsFile
  ) throws(WeightsError) -> (layers: [String: [AdapterPart: String]], textEncoderTensorCount: Int) {
    var layers: [String: [AdapterPart: String]] = [:], textEncoderTensorCount = 0
    for name in file.names {
      if AdapterTargets.isOfTextEncoder(name) {
        textEncoderTensorCount += 1
        continue
      }
      switch AdapterTensorName(name) {
      case .part(let part, let layer):
        if let other = layers[layer, default: [:]].updateValue(name, forKey: part) {
          throw .malformedEntry(
            file: file.path, tensor: name,
            reason: "and \"\(printable(other, max: 200))\" are the same part of one layer")
        }
      case .unsupported(let meaning): throw .foreignTensor(file: file.path, tensor: name, meaning: meaning)
      case .unknown:
        throw .foreignTensor(
          file: file.path, tensor: name,
          meaning:
            "has a name of no adapter that is known: LoRA, LoHa, LoKr as PEFT, kohya's scripts, ComfyUI, DiffSynth "
            + "and LyCORIS write them")
      }
    }
    guard !layers.isEmpty else {
      throw .malformedHeader(
        file: file.path,
        reason: textEncoderTensorCount > 0
          ? "all \(textEncoderTensorCount) tensors are for a text encoder, to which adapters cannot be added here"
          : "no tensors")
    }
    return (layers, textEncoderTensorCount)
  }

  private static func digest(
    of file: SafetensorsFile, _ configuration: AdapterConfiguration?
  ) throws(WeightsError) -> String {
    var hash = LabelledHash()
    for name in file.names {
      guard let entry = file.header.entries[name] else { continue }
      hash.update(name, Data("\(entry.dtypeName) \(entry.shape)".utf8))
      try file.withBytes(of: name) { hash.update("bytes", $0) }
    }
    hash.update("configuration", Data((configuration?.summary ?? "").utf8))
    return hash.hexDigest()
  }
}

extension Adapter: Equatable {
  /// Whether two adapters do the same.
  public static func == (a: Adapter, b: Adapter) -> Bool { a.digest == b.digest }
}
