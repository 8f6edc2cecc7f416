import TensorCore

/// What the names of stored tensors stand for in a model.
public struct TensorNaming {
  /// A part of a model's tensor that files hold in several.
  public struct Part: Sendable, Equatable {
    /// How the parts make one tensor.
    public enum Axis: Sendable, Equatable {
      /// Their rows, one after the other.
      case rows
      /// They are the taps in time [out, in, height, width] of a convolution [out, in, taps, height, width].
      case taps
    }
    /// The model's name of the whole.
    public let name: String
    /// Which of how many parts it is, from 0.
    public let index: Int
    /// See `index`.
    public let count: Int
    /// How the parts make one tensor.
    public let axis: Axis

    /// See the properties.
    public init(_ name: String, _ index: Int, of count: Int, _ axis: Axis = .rows) {
      self.name = name
      self.index = index
      self.count = count
      self.axis = axis
    }
  }

  let rename: (String) -> String
  let divide: (String) -> [String]?
  let join: (String) -> Part?

  /// Rules that are asked in this order.
  ///
  /// - Parameters:
  ///   - join: the part that a stored tensor is; nil: it is none.
  ///   - rename: maps a stored name to the name that the model asks for; must not map two names to one.
  ///   - divide: the names of the equal parts that the rows of a tensor are divided into, by the name that `rename`
  ///     gives; nil: the tensor is one.
  public init(
    joining join: @escaping (String) -> Part? = { _ in nil }, rename: @escaping (String) -> String = { $0 },
    dividing divide: @escaping (String) -> [String]? = { _ in nil }
  ) {
    self.rename = rename
    self.divide = divide
    self.join = join
  }

  /// Names are the model's.
  public static var published: TensorNaming { TensorNaming() }
}

/// Where a model's tensor is.
struct TensorLocation: Sendable {
  struct Piece: Sendable {
    let file: Int
    let storedName: String
  }
  /// The stored tensor, or those that are joined.
  var pieces: [Piece]
  /// Which of how many equal parts of the stored tensor's rows.
  var part = 0, partCount = 1
  /// How several pieces make one tensor.
  var axis = TensorNaming.Part.Axis.rows

  var storedName: String { pieces[0].storedName }
  var file: Int { pieces[0].file }

  /// The entry of the part; that of the whole tensor where its rows cannot be divided.
  func entry(in stored: SafetensorsHeader.Entry) -> SafetensorsHeader.Entry {
    guard partCount > 1, stored.shape.rank > 0, stored.shape[0] % partCount == 0 else { return stored }
    let byteCount = stored.byteCount / partCount
    return SafetensorsHeader.Entry(
      dtypeName: stored.dtypeName,
      shape: Shape([stored.shape[0] / partCount] + stored.shape.dimensions.dropFirst()),
      begin: stored.begin + part * byteCount, byteCount: byteCount)
  }

  /// What the pieces' entries are together; nil: they do not fit together.
  func joined(_ entries: [SafetensorsHeader.Entry]) -> SafetensorsHeader.Entry? {
    guard let first = entries.first, first.shape.rank > 0 else { return nil }
    let dimensions = first.shape.dimensions, byteCount = entries.reduce(0) { $0 + $1.byteCount }
    let dtypeName = entries.allSatisfy { $0.dtypeName == first.dtypeName } ? first.dtypeName : "F32"
    switch axis {
    case .rows:
      guard entries.allSatisfy({ $0.shape.dimensions.dropFirst() == dimensions.dropFirst() }) else { return nil }
      let shape = Shape([entries.reduce(0) { $0 + $1.shape[0] }] + dimensions.dropFirst())
      return SafetensorsHeader.Entry(dtypeName: dtypeName, shape: shape, begin: first.begin, byteCount: byteCount)
    case .taps:
      guard dimensions.count >= 2, entries.allSatisfy({ $0.shape == first.shape }) else { return nil }
      let shape = Shape(dimensions.prefix(2) + [entries.count] + dimensions.dropFirst(2))
      return SafetensorsHeader.Entry(dtypeName: dtypeName, shape: shape, begin: first.begin, byteCount: byteCount)
    }
  }
}

extension ComponentFiles {
  /// Where the model's tensors are.
  ///
  /// - Throws: ``WeightsError/malformedEntry(file:tensor:reason:)`` for tensors that stand for the same one, and
  ///   ``WeightsError/missingTensor(component:tensor:expected:)`` for one of which a part is missing.
  func locations(_ naming: TensorNaming) throws(WeightsError) -> [String: TensorLocation] {
    var locations: [String: TensorLocation] = [:]
    var parts: [String: (axis: TensorNaming.Part.Axis, pieces: [TensorLocation.Piece?])] = [:]
    func clash(_ stored: (name: String, file: Int), _ other: String, _ name: String) -> WeightsError {
      let reason = "and \"\(other)\" both stand for \"\(name)\""
      return .malformedEntry(file: index ?? files[stored.file].path, tensor: stored.name, reason: reason)
    }
    for stored in tensors {
      let piece = TensorLocation.Piece(file: stored.file, storedName: stored.name)
      if let part = naming.join(stored.name) {
        var whole = parts[part.name] ?? (part.axis, Array(repeating: nil, count: part.count))
        if let other = whole.pieces[part.index] { throw clash(stored, other.storedName, part.name) }
        whole.pieces[part.index] = piece
        parts[part.name] = whole
        continue
      }
      let name = naming.rename(stored.name), names = naming.divide(name) ?? [name]
      for (part, name) in names.enumerated() {
        let location = TensorLocation(pieces: [piece], part: part, partCount: names.count)
        if let other = locations.updateValue(location, forKey: name) { throw clash(stored, other.storedName, name) }
      }
    }
    for (name, whole) in parts {
      guard let missing = whole.pieces.firstIndex(where: { $0 == nil }) else {
        let location = TensorLocation(pieces: whole.pieces.compactMap { $0 }, axis: whole.axis)
        if let other = locations.updateValue(location, forKey: name) {
          throw clash((location.storedName, location.file), other.storedName, name)
        }
        continue
      }
      let part = "\(name) (part \(missing + 1) of \(whole.pieces.count))"
      throw .missingTensor(component: root, tensor: part, expected: nil)
    }
    return locations
  }
}
