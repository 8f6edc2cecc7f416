import ClusterCore
import TensorCore
import Testing
import Wire

/// Writes protobuf tokens by hand, independently of protobuf-c.
struct Bytes {
  var bytes: [UInt8] = []

  static func varint(_ value: UInt64) -> [UInt8] {
    var rest = value
    var bytes: [UInt8] = []
    while rest >= 0x80 {
      bytes.append(UInt8(rest & 0x7F) | 0x80)
      rest >>= 7
    }
    return bytes + [UInt8(rest)]
  }

  func number(_ field: UInt64, _ value: UInt64) -> Bytes {
    Bytes(bytes: bytes + Self.varint(field << 3) + Self.varint(value))
  }
  func nested(_ field: UInt64, _ value: Bytes) -> Bytes { blob(field, value.bytes) }
  func text(_ field: UInt64, _ value: String) -> Bytes { blob(field, Array(value.utf8)) }
  func blob(_ field: UInt64, _ value: [UInt8]) -> Bytes {
    Bytes(bytes: bytes + Self.varint(field << 3 | 2) + Self.varint(UInt64(value.count)) + value)
  }
  func double(_ field: UInt64, _ value: Double) -> Bytes {
    Bytes(bytes: bytes + Self.varint(field << 3 | 1) + withUnsafeBytes(of: value.bitPattern.littleEndian) { Array($0) })
  }
  func raw(_ value: [UInt8]) -> Bytes { Bytes(bytes: bytes + value) }

  /// An envelope's first fields.
  static var envelope: Bytes { Bytes().number(1, 1).number(2, 7) }

  var error: WireError? { failure([FrameBuffer(copying: bytes)]) }
}

@Suite("What a receiver refuses")
struct RefusalTests {
  private let accepted = Bytes.envelope.nested(20, Bytes())

  @Test("the hand-written envelope is good to begin with")
  func good() throws {
    #expect(try WireCodec.decode([FrameBuffer(copying: accepted.bytes)]) == Envelope(messageID: 7, body: .accepted))
  }

  @Test("no frame, too many frames, frames without a descriptor")
  func frames() throws {
    let frame = FrameBuffer(copying: accepted.bytes)
    #expect(failure([]) == .frameCount(expected: 1, found: 0))
    #expect(failure([frame, frame]) == .frameCount(expected: 1, found: 2))
    #expect(failure(Array(repeating: frame, count: 26)) == .tooMany(field: "message: frames", count: 26, limit: 25))
  }

  @Test("another protocol version, or none")
  func version() {
    #expect(Bytes().number(1, 2).number(2, 7).nested(20, Bytes()).error == .unsupportedVersion(found: 2, supported: 1))
    #expect(Bytes().number(2, 7).nested(20, Bytes()).error == .unsupportedVersion(found: 0, supported: 1))
    #expect(Bytes().error == .unsupportedVersion(found: 0, supported: 1))
  }

  @Test("no message number, no body")
  func missing() {
    #expect(Bytes().number(1, 1).nested(20, Bytes()).error?.field == "message_id")
    #expect(Bytes.envelope.error == .missing(field: "body"))
    #expect(Bytes.envelope.nested(16, Bytes()).error == .missing(field: "registration.stage_name"))
    #expect(Bytes.envelope.nested(25, Bytes()).error == .missing(field: "failed.status"))
    #expect(Bytes.envelope.nested(25, Bytes().nested(1, Bytes().text(2, "m"))).error?.field == "failed.status.code")
    #expect(accepted.nested(4, Bytes().text(1, "job").number(3, 1)).error == .missing(field: "task.task_id"))
    #expect(accepted.nested(4, Bytes().text(1, "job").text(2, "task")).error?.field == "task.attempt")
  }

  @Test("text that is not UTF-8, or holds a NUL, or is too long")
  func text() {
    let prompt = { (bytes: [UInt8]) in Bytes.envelope.nested(32, Bytes().text(1, "m").blob(2, bytes)).error }
    #expect(prompt(Array("naïve 图".utf8)) == nil)
    let bad: [[UInt8]] = [
      [0xFF], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xE5, 0x9B], [0xF4, 0x90, 0x80, 0x80], [0x61, 0x80],
    ]
    for bytes in bad {
      #expect(prompt(bytes) == .invalidText(field: "encode_request.prompt", reason: "is not valid UTF-8"))
    }
    #expect(prompt([0x61, 0, 0x62]) == .invalidText(field: "encode_request.prompt", reason: "holds a NUL character"))
    #expect(prompt(Array(repeating: 0x61, count: 65_536)) == nil)
    #expect(
      prompt(Array(repeating: 0x61, count: 65_537))
        == .tooLarge(field: "encode_request.prompt", bytes: 65_537, limit: 65_536))
    #expect(
      Bytes.envelope.nested(32, Bytes().text(1, String(repeating: "m", count: 257))).error
        == .tooLarge(field: "encode_request.model_id", bytes: 257, limit: 256))
    #expect(Bytes.envelope.nested(21, Bytes().blob(1, [0xFF])).error?.field == "cancel.reason")
  }

  @Test("undefined enumeration values")
  func enumerations() {
    let request = Bytes().text(1, "m").number(2, 64).number(3, 64).number(4, 4)
    #expect(Bytes.envelope.nested(48, request.number(7, 1)).error == nil)
    #expect(Bytes.envelope.nested(48, request).error == .missing(field: "denoise_request.noise"))
    #expect(
      Bytes.envelope.nested(48, request.number(7, 4)).error == .unknownValue(field: "denoise_request.noise", value: 4))
    // Noise levels and the value that makes older denoisers refuse them go together.
    let sigmas = [1, 0.5, 0.25, 0.125].flatMap { (sigma: Double) in
      (0..<8).map { UInt8(truncatingIfNeeded: sigma.bitPattern >> (8 * $0)) }
    }
    #expect(Bytes.envelope.nested(48, request.number(7, 2).blob(18, sigmas)).error == nil)
    for wrong in [request.number(7, 2), request.number(7, 1).blob(18, sigmas)] {
      guard case .outOfRange("denoise_request.noise", _, _) = Bytes.envelope.nested(48, wrong).error else {
        Issue.record("\(String(describing: Bytes.envelope.nested(48, wrong).error))")
        continue
      }
    }
    #expect(
      Bytes.envelope.nested(48, request.number(7, 2).blob(18, Array(sigmas.dropLast(8)))).error?.field
        == "denoise_request.sigmas")
    // So do options, and their value.
    let sampling = Bytes().text(1, "heun").text(2, "beta").number(3, 1).number(4, 4)
    #expect(Bytes.envelope.nested(48, request.number(7, 3).nested(20, sampling)).error == nil)
    for wrong in [
      request.number(7, 3), request.number(7, 1).nested(20, sampling), request.number(7, 3).blob(18, sigmas),
    ] {
      #expect(Bytes.envelope.nested(48, wrong).error?.field == "denoise_request.noise")
    }
    for (field, wrong) in [
      ("sampler", Bytes().text(1, "rk4")), ("sampler", Bytes().text(2, "beta")),
      ("schedule", Bytes().text(1, "euler").text(2, "karras")),
      ("cfg_steps", Bytes().text(1, "heun").number(3, 1).number(4, 5)),
    ] {
      let error = Bytes.envelope.nested(48, request.number(7, 3).nested(20, wrong)).error
      #expect(error?.field == "denoise_request.sampling.\(field)", "\(String(describing: error))")
    }
    #expect(
      Bytes.envelope.nested(48, request.number(7, 3).blob(18, sigmas).nested(20, sampling)).error?.field
        == "denoise_request.sampling.schedule")
    // A step cache, too, is hidden from denoisers that do not know it; its settings are checked.
    let cache = Bytes().number(1, 3).number(5, 3).number(6, 1).number(8, 4).number(9, 1)
    #expect(Bytes.envelope.nested(48, request.number(7, 3).nested(21, cache)).error == nil)
    #expect(Bytes.envelope.nested(48, request.number(7, 1).nested(21, cache)).error?.field == "denoise_request.noise")
    #expect(Bytes.envelope.nested(48, request.number(7, 3)).error?.field == "denoise_request.noise")
    for (wrong, field) in [
      (Bytes().number(1, 9), "method"), (Bytes(), "method"), (cache.number(9, 3), "order"),
      (cache.number(3, 1), "method"),
      (cache.number(8, 1), "interval"), (cache.number(7, 1), "method"), (Bytes().number(1, 4).number(9, 1), "skip"),
    ] {
      let found = Bytes.envelope.nested(48, request.number(7, 3).nested(21, wrong)).error?.field
      #expect(found == "denoise_request.cache.\(field)")
    }
    #expect(
      Bytes.envelope.nested(48, request.number(7, UInt64.max)).error
        == .unknownValue(field: "denoise_request.noise", value: -1))
    #expect(
      Bytes.envelope.nested(48, request.number(7, 1 << 32 | 1)).error
        == .unknownValue(field: "denoise_request.noise", value: 1 << 32 | 1))
    #expect(
      Bytes.envelope.nested(16, Bytes().number(2, 9)).error == .unknownValue(field: "registration.stage", value: 9))
    #expect(
      Bytes.envelope.nested(25, Bytes().nested(1, Bytes().number(1, 17))).error
        == .unknownValue(field: "failed.status.code", value: 17))
    #expect(
      accepted.nested(7, Bytes().text(1, "t").number(2, 8)).error == .unknownValue(field: "tensors[0].dtype", value: 8))
  }

  @Test("numbers outside their range, or not finite")
  func numbers() {
    let request = { (width: UInt64, steps: UInt64, first: UInt64, scale: Double) in
      Bytes.envelope.nested(
        48,
        Bytes().text(1, "m").number(2, width).number(3, 64).number(4, steps).double(5, scale).number(7, 1).number(
          8, first)
      ).error
    }
    #expect(request(64, 4, 3, 4) == nil)
    #expect(request(0, 4, 0, 4)?.field == "denoise_request.width_px")
    #expect(
      request(65_536, 4, 0, 4) == .outOfRange(field: "denoise_request.width_px", value: "65536", allowed: "1…65535"))
    #expect(request(1 << 32 | 64, 4, 0, 4)?.field == "denoise_request.width_px")
    #expect(request(64, 0, 0, 4)?.field == "denoise_request.steps")
    #expect(request(64, 4, 4, 4) == .outOfRange(field: "denoise_request.first_step", value: "4", allowed: "0…3"))
    for scale in [Double.nan, .infinity, -.infinity] {
      #expect(request(64, 4, 0, scale)?.field == "denoise_request.true_cfg_scale")
    }
    let progress = { (done: UInt64, seconds: Double) in
      Bytes.envelope.nested(49, Bytes().number(1, done).number(2, 4).double(3, seconds)).error
    }
    #expect(progress(4, 0.5) == nil)
    #expect(progress(5, 0.5)?.field == "progress.completed_steps")
    #expect(progress(0, 0.5)?.field == "progress.completed_steps")
    #expect(progress(1, -1)?.field == "progress.step_seconds")
    #expect(progress(1, .nan)?.field == "progress.step_seconds")
  }

  @Test("a parameter without a value, or with two")
  func parameters() {
    let request = { (parameter: Bytes) in Bytes.envelope.nested(32, Bytes().text(1, "m").nested(3, parameter)).error }
    #expect(request(Bytes().text(1, "p").number(5, 1)) == nil)
    #expect(request(Bytes().text(1, "p")) == .missing(field: "encode_request.parameters[0].value"))
    #expect(request(Bytes().text(1, "p").double(2, .nan))?.field == "encode_request.parameters[0].number")
    #expect(request(Bytes().text(1, "p").number(5, 2))?.field == "encode_request.parameters[0].flag")
    #expect(
      request(Bytes().text(1, "p").number(5, 1).text(4, "x"))
        == .malformed(
          field: "encode_request.parameters[0].text", reason: "comes beside another member of the same oneof"))
  }

  @Test("a body twice, a field twice, a wrong wire type, a field number 0, groups, endless numbers")
  func structure() {
    #expect(accepted.nested(20, Bytes()).error == .malformed(field: "accepted", reason: "comes twice"))
    #expect(
      accepted.nested(24, Bytes()).error
        == .malformed(field: "goodbye", reason: "comes beside another member of the same oneof"))
    #expect(accepted.number(2, 8).error == .malformed(field: "message_id", reason: "comes twice"))
    #expect(
      accepted.text(3, "x").error == .malformed(field: "in_reply_to", reason: "wire type 2 does not fit the field"))
    #expect(accepted.number(6, 1).error?.field == "traceparent")
    #expect(accepted.raw([0x00, 0x00]).error?.field == "envelope")
    #expect(accepted.raw([0x1B]).error == .malformed(field: "envelope", reason: "field 3 has the wire type 3"))
    #expect(accepted.raw([0x18] + Array(repeating: 0xFF, count: 10)).error?.field == "in_reply_to")
    #expect(
      accepted.raw([0x22, 0x05, 0x00]).error == .malformed(field: "task", reason: "announces 5 bytes, but 1 are left"))
    #expect(accepted.raw([0x22] + Bytes.varint(.max)).error?.field == "task")
  }

  @Test("unknown fields are skipped, up to a limit")
  func unknownFields() {
    var some = accepted
    for index in 0..<60 { some = some.number(1000 + UInt64(index), 5) }
    some = some.text(2000, "later").double(2001, 1).raw(Bytes.varint(2002 << 3 | 5) + [1, 2, 3, 4])
    #expect(some.error == nil)
    for index in 0..<10 { some = some.number(3000 + UInt64(index), 5) }
    #expect(some.error == .tooMany(field: "unknown fields", count: 65, limit: 64))
  }

  @Test("a message of a later version is not taken for one without a body, and still names its task")
  func unknownBody() {
    let task = Bytes().text(1, "job").text(2, "1").number(3, 2)
    let later = Bytes.envelope.nested(4, task).nested(99, Bytes().text(1, "x"))
    #expect(later.error == .unknownBody(number: 99))
    #expect(later.error?.status == Status(.unimplemented, "body: field 99, which is not known", field: "body"))
    #expect(WireCodec.header(of: FrameBuffer(copying: later.bytes)).task?.jobID == "job")
    // Fields that are no messages, or that a known body has come with, are skipped.
    #expect(Bytes.envelope.number(99, 1).error == .missing(field: "body"))
    #expect(accepted.nested(99, Bytes()).error == nil)
  }

  @Test("lists and envelopes beyond the limits")
  func lists() {
    let descriptors = Bytes(bytes: accepted.bytes + Array(repeating: [0x3A, 0x00], count: 100_000).flatMap { $0 })
    #expect(descriptors.error == .tooMany(field: "tensors", count: 257, limit: 256))
    let shape = accepted.nested(7, Bytes().text(1, "t").number(2, 1).blob(3, Array(repeating: 1, count: 9)))
    #expect(
      failure([FrameBuffer(copying: shape.bytes), FrameBuffer(copying: [Float(1)])])?.field == "tensors[0].shape")
    #expect(
      Bytes(bytes: Array(repeating: 0, count: 262_145)).error
        == .tooLarge(field: "envelope", bytes: 262_145, limit: 262_144))
    var tensors = accepted
    for _ in 0..<25 { tensors = tensors.nested(7, Bytes()) }
    #expect(tensors.error == .tooMany(field: "tensors", count: 25, limit: 24))
  }

  @Test("tensors whose parts contradict each other")
  func tensors() throws {
    let bytes = FrameBuffer(copying: [Float](repeating: 2, count: 6))
    let crc = UInt64(WireCodec.crc32(of: bytes))
    let tensor = { (dtype: UInt64, shape: [UInt64], count: UInt64, crc: UInt64) in
      let descriptor = Bytes().text(1, "t").number(2, dtype).blob(3, shape.flatMap(Bytes.varint)).number(4, count)
        .number(5, crc)
      return failure([FrameBuffer(copying: self.accepted.nested(7, descriptor).bytes), bytes])
    }
    #expect(tensor(1, [2, 3], 24, crc) == nil)
    #expect(tensor(1, [2, 4], 32, crc) == .sizeMismatch(tensor: "t", expected: 32, found: 24))
    #expect(tensor(1, [2, 3], 23, crc) == .sizeMismatch(tensor: "t", expected: 23, found: 24))
    #expect(tensor(4, [2, 3], 24, crc) == .sizeMismatch(tensor: "t", expected: 48, found: 24))
    #expect(tensor(0, [2, 3], 24, crc) == .missing(field: "tensors[0].dtype"))
    #expect(tensor(1, [1 << 62, 4], 24, crc)?.field == "tensors[0].shape")
    #expect(tensor(1, [.max], 24, crc)?.field == "tensors[0].shape[0]")
    #expect(tensor(1, [1 << 40], 24, crc) == .tooLarge(field: "tensor t", bytes: 1 << 42, limit: 256 << 20))
    #expect(
      tensor(1, [2, 3], 24, crc ^ 1)
        == .checksumMismatch(tensor: "t", described: UInt32(crc ^ 1), computed: UInt32(crc)))
  }

  @Test("two tensors of one name")
  func twins() {
    let tensor = WireTensor(name: "latents", dtype: .uint8, shape: [1], bytes: FrameBuffer(copying: [UInt8(1)]))
    #expect(
      throws: WireError.malformed(field: "tensors[1].name", reason: "latents comes twice"),
      performing: { try WireCodec.encode(Envelope(messageID: 1, body: .accepted, tensors: [tensor, tensor])) })
  }

  @Test("a sender is stopped by the same checks")
  func sender() {
    let refused: [(Body, String)] = [
      (.encodeRequest(EncodeRequest(modelID: "m", prompt: "a\0b")), "encode_request.prompt"),
      (.encodeRequest(EncodeRequest(modelID: "", prompt: "")), "encode_request.model_id"),
      (.failed(Status(.ok, "")), "failed.status.code"),
      (.encodeResponse(EncodeResponse(promptTokens: -1)), "encode_response.prompt_tokens"),
      (.denoiseResponse(DenoiseResponse(steps: 4, computeSeconds: .infinity)), "denoise_response.compute_seconds"),
      (.cancel(reason: String(repeating: "r", count: 5000)), "cancel.reason"),
      (.switchModel(ModelIdentity(id: "", fingerprint: "f")), "switch_model.model_id"),
      (.claim([]), "claim.tasks"),
      (.claim([TaskReference(jobID: "j", taskID: "t", attempt: 0)]), "claim.tasks[0].attempt"),
      (.claim(Array(repeating: GoldenTests.task, count: 257)), "claim.tasks"),
      (.registered(Registered(sessionID: "s", heartbeatIntervalMs: 1000, leaseMs: 10)), "registered.lease_ms"),
    ]
    for (body, field) in refused {
      do throws(WireError) {
        _ = try WireCodec.encode(Envelope(messageID: 1, body: body))
        Issue.record("\(field) was accepted")
      } catch {
        #expect(error.field == field)
      }
    }
    #expect(throws: WireError.self) { try WireCodec.encode(Envelope(body: .accepted)) }
    #expect(throws: WireError.self) { try WireCodec.encode(Envelope(messageID: 1, traceparent: "", body: .accepted)) }
    let parameters = (0..<5).map { Parameter("p\($0)", .text(String(repeating: "x", count: 60_000))) }
    #expect(throws: WireError.self) {
      try WireCodec.encode(
        Envelope(messageID: 1, body: .encodeRequest(EncodeRequest(modelID: "m", prompt: "", parameters: parameters))))
    }
  }

  @Test("every error says what to answer")
  func statuses() {
    #expect(WireError.unsupportedVersion(found: 9, supported: 1).status.code == .unimplemented)
    #expect(WireError.checksumMismatch(tensor: "t", described: 1, computed: 2).status.code == .dataLoss)
    #expect(WireError.missing(field: "steps").status == Status(.invalidArgument, "steps: missing", field: "steps"))
  }
}
