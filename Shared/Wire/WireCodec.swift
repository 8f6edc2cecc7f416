import CWire
import CZlib
import TensorCore

/// Turns messages into frames and frames into messages: pure functions without sockets.
public enum WireCodec {
  /// What is known of a message that is not understood, so that its sender gets an answer.
  public struct Header: Sendable, Equatable {
    /// The version that the sender speaks; 0: absent.
    public var protocolVersion: UInt32 = 0
    /// The message's number; 0: absent.
    public var messageID: UInt64 = 0
    /// The task it is about.
    public var task: TaskReference?

    /// Tells nothing.
    public init() {}
  }

  /// The frames of `envelope`: frame 0 is the packed envelope, the others are its tensors' own buffers, not copied.
  ///
  /// - Throws: what `decode` would throw at the receiver: nothing is sent that the peer must refuse.
  public static func encode(_ envelope: Envelope, limits: WireLimits = WireLimits()) throws(WireError) -> [FrameBuffer]
  {
    try check(envelope, limits)
    let arena = CArena()
    var message = Qwenimage__V1__Envelope()
    qwenimage__v1__envelope__init(&message)
    message.protocol_version = Envelope.protocolVersion
    message.message_id = envelope.messageID
    message.in_reply_to = envelope.inReplyTo ?? 0
    message.task = envelope.task?.pointer(arena)
    message.deadline_unix_ms = envelope.deadlineUnixMs ?? 0
    if let traceparent = envelope.traceparent { message.traceparent = arena.text(traceparent) }
    message.n_tensors = envelope.tensors.count
    message.tensors = arena.array(envelope.tensors.map { descriptor(of: $0, arena) })
    envelope.body.fill(&message, arena)

    let byteCount = qwenimage__v1__envelope__get_packed_size(&message)
    guard byteCount <= limits.maxEnvelopeBytes else {
      throw .tooLarge(field: "envelope", bytes: byteCount, limit: limits.maxEnvelopeBytes)
    }
    let packed = FrameBuffer(byteCount: byteCount) { bytes in
      _ = qwenimage__v1__envelope__pack(&message, bytes.bindMemory(to: UInt8.self).baseAddress)
    }
    return [packed] + envelope.tensors.map(\.bytes)
  }

  /// The message that `frames` hold. The tensors keep the frames' buffers.
  public static func decode(_ frames: [FrameBuffer], limits: WireLimits = WireLimits()) throws(WireError) -> Envelope {
    guard let first = frames.first else { throw .frameCount(expected: 1, found: 0) }
    guard frames.count <= limits.maxFrames else {
      throw .tooMany(field: "message: frames", count: frames.count, limit: limits.maxFrames)
    }
    guard first.count <= limits.maxEnvelopeBytes else {
      throw .tooLarge(field: "envelope", bytes: first.count, limit: limits.maxEnvelopeBytes)
    }
    let envelope: Envelope = try first.withUnsafeBytes { bytes throws(WireError) in
      // The version comes first: the rest may mean something else in another one. A broken message is left to the
      // scanner.
      let (header, isComplete, body) = scanHeader(bytes)
      guard header.protocolVersion == Envelope.protocolVersion || header.protocolVersion == 0 && !isComplete else {
        throw .unsupportedVersion(found: header.protocolVersion, supported: Envelope.protocolVersion)
      }
      try ProtobufScanner(limits: limits).scan(bytes, as: qwenimage__v1__envelope__descriptor)
      guard
        let message = qwenimage__v1__envelope__unpack(nil, bytes.count, bytes.bindMemory(to: UInt8.self).baseAddress)
      else {
        throw .malformed(field: "envelope", reason: "protobuf-c cannot unpack it")
      }
      defer { qwenimage__v1__envelope__free_unpacked(message, nil) }
      if message.pointee.body_case == QWENIMAGE__V1__ENVELOPE__BODY__NOT_SET, let body {
        throw .unknownBody(number: body)
      }
      return try read(message.pointee, frames: frames, limits: limits)
    }
    try check(envelope, limits)
    return envelope
  }

  /// What frame 0 tells of a message that `decode` refuses; fields that cannot be read are absent.
  public static func header(of envelope: FrameBuffer, limits: WireLimits = WireLimits()) -> Header {
    guard envelope.count <= limits.maxEnvelopeBytes else { return Header() }
    return envelope.withUnsafeBytes { scanHeader($0).header }
  }

  /// CRC-32 (ISO-HDLC) of `buffer`.
  public static func crc32(of buffer: FrameBuffer) -> UInt32 {
    buffer.withUnsafeBytes {
      UInt32(truncatingIfNeeded: crc32_z(0, $0.bindMemory(to: UInt8.self).baseAddress, $0.count))
    }
  }
}

extension WireCodec {
  /// Checks everything but the tensors' checksums.
  private static func check(_ envelope: Envelope, _ limits: WireLimits) throws(WireError) {
    let fields = FieldCheck(limits: limits)
    try fields.range("message_id", envelope.messageID, 1...UInt64.max)
    if let inReplyTo = envelope.inReplyTo { try fields.range("in_reply_to", inReplyTo, 1...UInt64.max) }
    try envelope.task?.check(fields.inside("task"))
    if let deadline = envelope.deadlineUnixMs { try fields.range("deadline_unix_ms", deadline, 1...UInt64.max) }
    if let traceparent = envelope.traceparent { try fields.identifier("traceparent", traceparent) }
    try envelope.body.check(fields)

    guard envelope.tensors.count <= limits.maxTensors else {
      throw .tooMany(field: "tensors", count: envelope.tensors.count, limit: limits.maxTensors)
    }
    var names: Set<String> = []
    var messageBytes = 0
    for (index, tensor) in envelope.tensors.enumerated() {
      try check(tensor, fields.inside("tensors[\(index)]"))
      guard names.insert(tensor.name).inserted else {
        throw .malformed(field: "tensors[\(index)].name", reason: "\(tensor.name) comes twice")
      }
      messageBytes += tensor.bytes.count
      guard messageBytes <= limits.maxMessageBytes else {
        throw .tooLarge(field: "message", bytes: messageBytes, limit: limits.maxMessageBytes)
      }
    }
  }

  private static func check(_ tensor: WireTensor, _ fields: FieldCheck) throws(WireError) {
    try fields.identifier("name", tensor.name)
    guard tensor.shape.count <= fields.limits.maxDimensions else {
      throw .tooMany(field: fields.name("shape"), count: tensor.shape.count, limit: fields.limits.maxDimensions)
    }
    guard let byteCount = WireTensor.byteCount(shape: tensor.shape, dtype: tensor.dtype) else {
      throw .outOfRange(
        field: fields.name("shape"), value: "\(tensor.shape)", allowed: "a product that fits into memory")
    }
    guard byteCount <= fields.limits.maxTensorBytes else {
      throw .tooLarge(field: "tensor \(tensor.name)", bytes: byteCount, limit: fields.limits.maxTensorBytes)
    }
    guard byteCount == tensor.bytes.count else {
      throw .sizeMismatch(tensor: tensor.name, expected: byteCount, found: tensor.bytes.count)
    }
  }

  private static func descriptor(of tensor: WireTensor, _ arena: CArena) -> UnsafeMutablePointer<
    Qwenimage__V1__TensorDescriptor
  > {
    let pointer: UnsafeMutablePointer<Qwenimage__V1__TensorDescriptor> = arena.message {
      qwenimage__v1__tensor_descriptor__init($0)
    }
    pointer.pointee.name = arena.text(tensor.name)
    pointer.pointee.dtype = Qwenimage__V1__DType(rawValue: tensor.dtype.wireNumber)
    pointer.pointee.n_shape = tensor.shape.count
    pointer.pointee.shape = arena.array(tensor.shape.map(UInt64.init))
    pointer.pointee.byte_count = UInt64(tensor.bytes.count)
    pointer.pointee.crc32 = crc32(of: tensor.bytes)
    return pointer
  }

  private static func read(
    _ message: Qwenimage__V1__Envelope, frames: [FrameBuffer], limits: WireLimits
  ) throws(WireError) -> Envelope {
    let fields = FieldCheck(limits: limits)
    guard message.n_tensors <= limits.maxTensors else {
      throw .tooMany(field: "tensors", count: message.n_tensors, limit: limits.maxTensors)
    }
    guard frames.count == 1 + message.n_tensors else {
      throw .frameCount(expected: 1 + message.n_tensors, found: frames.count)
    }
    var tensors: [WireTensor] = []
    for index in 0..<message.n_tensors {
      guard let descriptor = message.tensors[index] else { throw .missing(field: "tensors[\(index)]") }
      tensors.append(try read(descriptor.pointee, frame: frames[index + 1], fields.inside("tensors[\(index)]")))
    }
    let traceparent = String(field: message.traceparent)
    return Envelope(
      messageID: message.message_id, inReplyTo: message.in_reply_to == 0 ? nil : message.in_reply_to,
      task: message.task.map { TaskReference($0.pointee, fields.inside("task")) },
      deadlineUnixMs: message.deadline_unix_ms == 0 ? nil : message.deadline_unix_ms,
      traceparent: traceparent.isEmpty ? nil : traceparent, body: try Body(message, fields), tensors: tensors)
  }

  private static func read(
    _ message: Qwenimage__V1__TensorDescriptor, frame: FrameBuffer, _ fields: FieldCheck
  ) throws(WireError) -> WireTensor {
    var shape: [Int] = []
    for index in 0..<message.n_shape {
      guard let dimension = Int(exactly: message.shape[index]) else {
        throw .outOfRange(
          field: fields.name("shape[\(index)]"), value: "\(message.shape[index])", allowed: "at most \(Int.max)")
      }
      shape.append(dimension)
    }
    let name = String(field: message.name)
    // The scanner has passed known numbers only; 0 means that the field is absent.
    guard let dtype = DType(wireNumber: message.dtype.rawValue) else { throw .missing(field: fields.name("dtype")) }
    let tensor = WireTensor(name: name, dtype: dtype, shape: shape, bytes: frame)
    try check(tensor, fields)
    guard message.byte_count == UInt64(frame.count) else {
      throw .sizeMismatch(tensor: name, expected: Int(clamping: message.byte_count), found: frame.count)
    }
    let computed = crc32(of: frame)
    guard computed == message.crc32 else {
      throw .checksumMismatch(tensor: name, described: message.crc32, computed: computed)
    }
    return tensor
  }

  /// Bodies have numbers from this on.
  private static let firstBody: UInt32 = 16

  /// Walks the outermost fields only, as far as they can be read. `body` is the number of the last one that may be a
  /// body, known or not.
  private static func scanHeader(
    _ bytes: UnsafeRawBufferPointer
  ) -> (header: Header, isComplete: Bool, body: UInt32?) {
    var header = Header()
    var body: UInt32?
    var reader = ProtobufReader(bytes)
    do {
      while !reader.isAtEnd {
        switch try reader.tag("") {
        case (1, .varint): header.protocolVersion = UInt32(clamping: try reader.varint(""))
        case (2, .varint): header.messageID = try reader.varint("")
        case (4, .lengthDelimited): header.task = taskReference(try reader.lengthDelimited(""))
        case (let number, let wireType):
          if number >= firstBody, wireType == .lengthDelimited { body = number }
          _ = try reader.skip(wireType, "")
        }
      }
      return (header, true, body)
    } catch {
      return (header, false, body)
    }
  }

  private static func taskReference(_ bytes: UnsafeRawBufferPointer) -> TaskReference? {
    let limits = WireLimits()
    guard
      (try? ProtobufScanner(limits: limits).scan(bytes, as: qwenimage__v1__task_reference__descriptor, path: "task"))
        != nil,
      let message = qwenimage__v1__task_reference__unpack(
        nil, bytes.count, bytes.bindMemory(to: UInt8.self).baseAddress)
    else { return nil }
    defer { qwenimage__v1__task_reference__free_unpacked(message, nil) }
    let task = TaskReference(message.pointee, FieldCheck(limits: limits))
    return (try? task.check(FieldCheck(limits: limits))) == nil ? nil : task
  }
}
