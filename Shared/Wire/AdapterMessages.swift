import CWire
import ClusterCore

/// Worker → gateway, after `Registered` and whenever it changes: the adapters that it has now, or a part of them. The
/// list counts when it is complete.
public struct AdapterAnnouncement: Sendable, Equatable {
  /// From `Registered`.
  public var sessionID: String
  /// Adapters of the whole list.
  public var total: Int
  /// Adapters of the messages before; 0: a list begins.
  public var offset: Int
  /// Those of this message.
  public var adapters: [ServedAdapter]

  /// See the properties.
  public init(sessionID: String, total: Int, offset: Int = 0, adapters: [ServedAdapter]) {
    self.sessionID = sessionID
    self.total = total
    self.offset = offset
    self.adapters = adapters
  }

  /// The messages that a list takes, at least one.
  public static func parts(
    of list: [ServedAdapter], sessionID: String, limits: WireLimits = WireLimits()
  ) -> [AdapterAnnouncement] {
    stride(from: 0, to: max(list.count, 1), by: limits.maxListElements).map { offset in
      AdapterAnnouncement(
        sessionID: sessionID, total: list.count, offset: offset,
        adapters: Array(list.dropFirst(offset).prefix(limits.maxListElements)))
    }
  }

  /// Takes a part of a list.
  ///
  /// - Parameter list: the parts so far.
  /// - Returns: the list when it is complete.
  public func added(to list: inout [ServedAdapter]) -> [ServedAdapter]? {
    if offset == 0 { list = [] }
    // A part was lost: the worker sends the list again when it changes.
    guard offset == list.count, offset + adapters.count <= total else {
      list = []
      return nil
    }
    list += adapters
    guard list.count == total else { return nil }
    defer { list = [] }
    return list
  }
}

extension DenoiseRequest {
  /// Whether it has fields that denoisers before 0.2 would leave out.
  var hasOptions: Bool { !adapters.isEmpty || sampling != .standard || cache != nil }

  /// The kind of noise that such a request must name, so that a denoiser that does not know its fields refuses it.
  public var requiredNoise: NoiseKind {
    if hasOptions { return .torchCPUWithOptions }
    return sigmas.isEmpty ? .torchCPU : .torchCPUWithSigmas
  }
}

// MARK: - Conversion

extension FieldCheck {
  /// An adapter's name and the digest of its contents.
  func adapter(_ name: String, _ digest: String) throws(WireError) {
    guard AdapterName.isValid(name) else {
      throw .outOfRange(field: self.name("name"), value: "\(name.prefix(80))", allowed: AdapterName.rule)
    }
    guard AdapterDigest.isValid(digest) else {
      throw .outOfRange(
        field: self.name("digest"), value: "\(digest.prefix(80))", allowed: "a SHA-256 of 64 hexadecimal digits")
    }
  }
}

/// Of `DenoiseRequest`.
extension ChosenAdapter: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__Adapter>) {
    qwenimage__v1__adapter__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.adapter(name, digest)
    try fields.range("scale", scale, Self.scales)
  }

  func fill(_ message: inout Qwenimage__V1__Adapter, _ arena: CArena) {
    message.name = arena.text(name)
    message.digest = arena.text(digest)
    message.scale = scale
  }

  init(_ message: Qwenimage__V1__Adapter, _ fields: FieldCheck) {
    self.init(name: String(field: message.name), digest: String(field: message.digest), scale: message.scale)
  }
}

/// Of `AdapterAnnouncement`.
extension ServedAdapter: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__ServedAdapter>) {
    qwenimage__v1__served_adapter__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) { try fields.adapter(name, digest) }

  func fill(_ message: inout Qwenimage__V1__ServedAdapter, _ arena: CArena) {
    message.name = arena.text(name)
    message.digest = arena.text(digest)
    message.loaded = isLoaded ? 1 : 0
  }

  init(_ message: Qwenimage__V1__ServedAdapter, _ fields: FieldCheck) {
    self.init(
      name: String(field: message.name), digest: String(field: message.digest), isLoaded: message.loaded != 0)
  }
}

extension AdapterAnnouncement: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__ServedAdapters>) {
    qwenimage__v1__served_adapters__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("session_id", sessionID)
    try fields.range("total", total, 0...ServedAdapter.maxCount)
    try fields.range("offset", offset, 0...total)
    try fields.list("adapters", adapters) { (element, adapter) throws(WireError) in try adapter.check(element) }
    guard adapters.count <= total - offset else {
      throw .tooMany(field: fields.name("adapters"), count: adapters.count, limit: total - offset)
    }
  }

  func fill(_ message: inout Qwenimage__V1__ServedAdapters, _ arena: CArena) {
    message.session_id = arena.text(sessionID)
    message.total = UInt32(total)
    message.offset = UInt32(offset)
    message.n_adapters = adapters.count
    message.adapters = arena.array(adapters.map { $0.pointer(arena) })
  }

  init(_ message: Qwenimage__V1__ServedAdapters, _ fields: FieldCheck) throws(WireError) {
    self.init(
      sessionID: String(field: message.session_id), total: Int(message.total), offset: Int(message.offset),
      adapters: try ServedAdapter.list(message.adapters, message.n_adapters, "adapters", of: fields))
  }
}
