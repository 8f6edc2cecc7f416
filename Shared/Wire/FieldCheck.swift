import ClusterCore

/// Checks the values of one message against what its fields allow. The same checks guard sending and receiving.
struct FieldCheck {
  /// The greatest side of an image that any message may name.
  static let maxSidePx = 65_535
  /// The greatest number of steps that any message may name.
  static let maxSteps = 100_000

  /// The most draws that a generator may have made before.
  static let maxDraws = 64
  /// The most images that are made together.
  static let maxLayers = 64
  /// The most blocks of a network.
  static let maxBlocks = 100_000
  /// The best quality of a file.
  static let maxQuality = 100
  /// The greatest number of a control network.
  static let maxControlNetworks = 15

  let limits: WireLimits
  let path: String

  init(limits: WireLimits, path: String = "") {
    self.limits = limits
    self.path = path
  }

  func name(_ field: String) -> String { path.isEmpty ? field : "\(path).\(field)" }

  /// The checks of the message in `field`.
  func inside(_ field: String) -> FieldCheck { FieldCheck(limits: limits, path: name(field)) }

  /// A non-empty name of something.
  func identifier(_ field: String, _ value: String) throws(WireError) {
    guard !value.isEmpty else { throw .missing(field: name(field)) }
    try text(field, value, maxBytes: limits.maxIdentifierBytes)
  }

  /// A name that may be absent.
  func label(_ field: String, _ value: String) throws(WireError) {
    try text(field, value, maxBytes: limits.maxIdentifierBytes)
  }

  /// Words for people about what happened.
  func reason(_ field: String, _ value: String) throws(WireError) {
    try text(field, value, maxBytes: limits.maxReasonBytes)
  }

  /// Text of a user.
  func text(_ field: String, _ value: String) throws(WireError) {
    try text(field, value, maxBytes: limits.maxTextBytes)
  }

  func text(_ field: String, _ value: String, maxBytes: Int) throws(WireError) {
    let count = value.utf8.count
    guard count <= maxBytes else { throw .tooLarge(field: name(field), bytes: count, limit: maxBytes) }
    guard !value.utf8.contains(0) else { throw .invalidText(field: name(field), reason: "holds a NUL character") }
  }

  func range<Value: Comparable>(_ field: String, _ value: Value, _ allowed: ClosedRange<Value>) throws(WireError) {
    guard allowed.contains(value) else {
      throw .outOfRange(field: name(field), value: "\(value)", allowed: "\(allowed.lowerBound)…\(allowed.upperBound)")
    }
  }

  func finite(_ field: String, _ value: Double) throws(WireError) {
    guard value.isFinite else { throw .outOfRange(field: name(field), value: "\(value)", allowed: "a finite number") }
  }

  /// A duration: finite, not negative.
  func seconds(_ field: String, _ value: Double) throws(WireError) {
    guard value.isFinite, value >= 0 else {
      throw .outOfRange(field: name(field), value: "\(value)", allowed: "a finite number of at least 0")
    }
  }

  func size(_ size: ImageSize) throws(WireError) {
    try range("width_px", size.widthPx, 1...Self.maxSidePx)
    try range("height_px", size.heightPx, 1...Self.maxSidePx)
  }

  /// Every element of a list, whose length is bounded.
  func list<Element>(
    _ field: String, _ elements: [Element], _ check: (FieldCheck, Element) throws(WireError) -> Void
  ) throws(WireError) {
    guard elements.count <= limits.maxListElements else {
      throw .tooMany(field: name(field), count: elements.count, limit: limits.maxListElements)
    }
    for (index, element) in elements.enumerated() { try check(inside("\(field)[\(index)]"), element) }
  }
}
