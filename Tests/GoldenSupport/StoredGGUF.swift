/// The tensors of a GGUF file, in the order of their data, and how they are written.
package struct StoredGGUF {
  /// A metadata pair: the key, the format's number of the type, and the value's bytes.
  package typealias Pair = (key: String, type: Int, bytes: [UInt8])

  package struct Tensor {
    package var name: String
    /// Outermost first.
    package var shape: [Int]
    /// ggml's number of the type.
    package var type: Int
    package var bytes: [UInt8]

    package init(_ name: String, _ shape: [Int], type: Int, _ bytes: [UInt8]) {
      (self.name, self.shape, self.type, self.bytes) = (name, shape, type, bytes)
    }
  }

  package var version = 3
  package var pairs: [Pair]
  package var tensors: [Tensor]
  package var alignment = 32

  package init(architecture: String = "qwen_image", _ tensors: [Tensor]) {
    pairs = [Self.text("general.architecture", architecture)]
    self.tensors = tensors
  }

  /// The tensors of a safetensors file, of a type that both formats have.
  package init(architecture: String = "qwen_image", _ file: StoredFile) {
    self.init(
      architecture: architecture,
      file.tensors.map { Tensor($0.name, $0.tensor.shape, type: Self.types[$0.tensor.dtype] ?? -1, $0.tensor.bytes) })
  }

  /// ggml's numbers of types by the names of safetensors.
  package static let types = ["F32": 0, "F16": 1, "BF16": 30, "I8": 24, "I32": 26]

  package static func text(_ key: String, _ value: String) -> Pair { (key, 8, string(value)) }

  package static func number(_ key: String, _ value: Int) -> Pair { (key, 4, word(value, 4)) }

  package static func numbers(_ key: String, _ values: [Int]) -> Pair {
    (key, 9, word(5, 4) + word(values.count, 8) + values.flatMap { word($0, 4) })
  }

  /// A number, little-endian.
  package static func word(_ value: Int, _ byteCount: Int) -> [UInt8] {
    (0..<byteCount).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }

  package static func string(_ text: String) -> [UInt8] { word(text.utf8.count, 8) + Array(text.utf8) }

  /// The bytes before the tensors.
  ///
  /// - Parameter offset: what the header says of a tensor's beginning, by its name and true beginning.
  package func header(offset: (_ name: String, _ begin: Int) -> Int = { $1 }) -> [UInt8] {
    var header = Array("GGUF".utf8) + Self.word(version, 4) + Self.word(tensors.count, 8) + Self.word(pairs.count, 8)
    for (key, type, bytes) in pairs { header += Self.string(key) + Self.word(type, 4) + bytes }
    var begin = 0
    for tensor in tensors {
      header += Self.string(tensor.name) + Self.word(tensor.shape.count, 4)
      for extent in tensor.shape.reversed() { header += Self.word(extent, 8) }
      header += Self.word(tensor.type, 4) + Self.word(offset(tensor.name, begin), 8)
      begin += padded(tensor.bytes).count
    }
    return padded(header)
  }

  /// The file's bytes.
  package func bytes(offset: (_ name: String, _ begin: Int) -> Int = { $1 }) -> [UInt8] {
    header(offset: offset) + tensors.flatMap { padded($0.bytes) }
  }

  private func padded(_ bytes: [UInt8]) -> [UInt8] {
    bytes + [UInt8](repeating: 0, count: (alignment - bytes.count % alignment) % alignment)
  }
}
