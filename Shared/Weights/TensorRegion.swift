import TensorCore

/// The tensors of a mapped file.
struct TensorRegion: Sendable {
  /// Path of the file, as errors name it.
  let path: String
  /// Where the tensors are, by their names.
  let entries: [String: SafetensorsHeader.Entry]
  let mapping: FileMapping
  /// Bytes before the tensors'.
  let dataOffset: Int

  /// The stored bytes of a tensor of any element type.
  func withBytes<Result>(
    of name: String, _ body: (RawSpan) throws(WeightsError) -> Result
  ) throws(WeightsError) -> Result {
    try mapping.withBytes(range(try entry(name)), body)
  }

  /// A part of a tensor's stored bytes, read from the file without touching the mapping.
  ///
  /// For samples here and there: touching a page of a mapping makes the kernel read megabytes around it, which took 15
  /// s instead of a fraction of one for a sample of every tensor of a 40 GB file.
  func readBytes(of name: String, in range: Range<Int>) throws(WeightsError) -> [UInt8] {
    let entry = try entry(name)
    precondition(range.lowerBound >= 0 && range.upperBound <= entry.byteCount, "bytes \(range) of \(entry.byteCount)")
    let file = try OpenFile(path)
    file.adviseRandomAccess()
    return try file.read(offset: dataOffset + entry.begin + range.lowerBound, count: range.count)
  }

  /// The tensor `name` as a view into the mapping, which lives as long as the view; a copy where its first element is
  /// not aligned to its width.
  func tensor(_ name: String) throws(WeightsError) -> Tensor {
    let entry = try entry(name)
    guard let dtype = entry.dtype else {
      throw .unsupportedDType(
        file: path, tensor: name, found: entry.dtypeName, supported: DType.allCases.map(\.rawValue))
    }
    return mapping.tensor(range(entry), shape: entry.shape, dtype: dtype)
  }

  /// The bytes of a tensor of any element type as a view into the mapping.
  func bytes(of name: String) throws(WeightsError) -> Tensor {
    let entry = try entry(name)
    return mapping.tensor(range(entry), shape: [entry.byteCount], dtype: .uint8)
  }

  func entry(_ name: String) throws(WeightsError) -> SafetensorsHeader.Entry {
    guard let entry = entries[name] else { throw .missingTensor(component: path, tensor: name, expected: nil) }
    return entry
  }

  /// Gives up the memory of a tensor that was read; reading it again takes it back from the file.
  func releasePages(of name: String) {
    if let range = range(of: name) { mapping.releasePages(range) }
  }

  /// Where the file holds the tensor.
  func range(of name: String) -> Range<Int>? { entries[name].map(range) }

  private func range(_ entry: SafetensorsHeader.Entry) -> Range<Int> {
    dataOffset + entry.begin..<dataOffset + entry.begin + entry.byteCount
  }
}
