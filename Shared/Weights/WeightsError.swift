import TensorCore

/// Why weights could not be read or written. Every case names the file and, where there is one, the tensor.
public enum WeightsError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The operating system refused to open, read or map a file.
  case cannotRead(file: String, reason: String)
  /// The operating system refused to create, write or rename a file, or the writer was used wrongly.
  case cannotWrite(file: String, reason: String)
  /// The file ends before its header says.
  case truncated(file: String, expectedBytes: UInt64, foundBytes: UInt64)
  /// The file is something else than its name says; `expected` is what it should be, such as "a safetensors file".
  case foreignFile(file: String, expected: String, kind: FileKind)
  /// The header as a whole breaks the format's rules.
  case malformedHeader(file: String, reason: String)
  /// The header's entry for one tensor breaks the format's rules.
  case malformedEntry(file: String, tensor: String, reason: String)
  /// A shard index is not what it should be.
  case malformedIndex(file: String, reason: String)
  /// A shard named by an index does not exist; `single` is a single file beside the index, which may hold everything.
  case missingShard(index: String, shard: String, single: String? = nil)
  /// A component directory has none of the file names that hold weights; `others` are files that might be meant.
  case noWeights(directory: String, baseName: String, others: [String] = [])
  /// A component directory has several variants and nothing says which one to take.
  case ambiguousWeights(directory: String, candidates: [String])
  /// A tensor is of another program's or format's checkpoint; `meaning` says of which, and what to do.
  case foreignTensor(file: String, tensor: String, meaning: String)
  /// A model asks for a tensor that its component, named by its file or index, does not have.
  case missingTensor(component: String, tensor: String, expected: Shape?)
  /// A tensor has another shape than the model's configuration implies.
  case misshapenTensor(file: String, tensor: String, expected: Shape, found: Shape)
  /// A tensor's element type cannot be used here.
  case unsupportedDType(file: String, tensor: String, found: String, supported: [String])
  /// A component, named by its file or index, holds tensors that its model does not have: another architecture, or
  /// another version of it.
  case unexpectedTensors(component: String, first: [String], count: Int)
  /// A component's layers are packed for one compute mode and shall run in another.
  case packedForAnotherMode(component: String, packed: String, asked: String)
  /// A cached file was made from something else or is damaged.
  case staleCache(file: String, reason: String)

  /// The message for users and logs.
  public var description: String { printable(message, max: 8192) }

  private var message: String {
    func name(_ tensor: String) -> String { "\"\(printable(tensor, max: 200))\"" }
    return switch self {
    case .cannotRead(let file, let reason): "cannot read \(file): \(reason)"
    case .cannotWrite(let file, let reason): "cannot write \(file): \(reason)"
    case .truncated(let file, let expected, let found):
      "\(file) is truncated: \(expected) bytes expected, \(found) found"
    case .foreignFile(let file, let expected, let kind): "\(file) is not \(expected): it is \(kind)"
    case .malformedHeader(let file, let reason): "\(file): malformed \(Self.format(of: file)) header: \(reason)"
    case .malformedEntry(let file, let tensor, let reason): "\(file): tensor \(name(tensor)): \(reason)"
    case .malformedIndex(let file, let reason): "\(file): malformed shard index: \(reason)"
    case .missingShard(let index, let shard, let single):
      "\(index): shard \(shard) does not exist; download every shard that the index names"
        + (single.map { ", or remove the index if \($0) is complete" } ?? "")
    case .noWeights(let directory, let baseName, let others):
      "\(directory) has neither \(baseName).safetensors nor \(baseName).safetensors.index.json nor a variant of them"
        + Self.hint(baseName: baseName, others: others)
    case .ambiguousWeights(let directory, let candidates):
      "\(directory) has several variants of its weights, keep one: \(candidates.joined(separator: ", "))"
    case .missingTensor(let component, let tensor, let expected):
      "\(component): tensor \(name(tensor))\(expected.map { " of shape \($0)" } ?? "") is missing"
    case .foreignTensor(let file, let tensor, let meaning): "\(file): tensor \(name(tensor)) \(meaning)"
    case .misshapenTensor(let file, let tensor, let expected, let found):
      "\(file): tensor \(name(tensor)) has shape \(found), expected \(expected)"
    case .unsupportedDType(let file, let tensor, let found, let supported):
      "\(file): tensor \(name(tensor)) has element type \(found), supported are \(supported.joined(separator: ", "))"
        + (dtypeHints.contains { found.hasPrefix($0) }
          ? "; take the checkpoint in bf16, of which `qwen-image quantize` makes int8 or q4" : "")
    case .unexpectedTensors(let component, let first, let count):
      "\(component): \(count) tensor\(count == 1 ? "" : "s") that the model does not have: "
        + first.map { printable($0, max: 200) }.joined(separator: ", ") + (count > first.count ? ", …" : "")
    case .packedForAnotherMode(let component, let packed, let asked):
      "\(component) is packed for \(packed) and cannot run in \(asked); "
        + "ask for \(packed) or auto, or use the original checkpoint"
    case .staleCache(let file, let reason): "cached weights: \(file) \(reason)"
    }
  }

  /// How types begin that quantised checkpoints have.
  private var dtypeHints: [String] { ["F8", "IQ", "Q", "TQ", "MXFP", "NVFP"] }

  private static func format(of file: String) -> String {
    file.lowercased().hasSuffix(".gguf") ? "GGUF" : "safetensors"
  }

  /// What to do with the files that a directory has instead of weights.
  private static func hint(baseName: String, others: [String]) -> String {
    guard let first = others.first else { return "" }
    let found = "; it has " + others.joined(separator: ", ")
    let isPickle = [".bin", ".pt", ".pth", ".ckpt"].contains { first.hasSuffix($0) }
    if isPickle { return found + ": pickles are not read, convert them to safetensors" }
    if first.hasSuffix(".gguf") { return found + ": GGUF is not read here, take safetensors" }
    if first.hasPrefix("\(baseName)-") { return found + ": shards need their index, download it too" }
    return found
  }
}
