import Synchronization
import TensorCore
import Testing
import Wire

@Suite("Envelopes survive the wire")
struct RoundTripTests {
  @Test("2,000 random envelopes of every kind come back equal", arguments: 0..<20)
  func roundTrip(seed: Int) throws {
    var generator = EnvelopeGenerator(seed: UInt64(seed))
    for index in 0..<100 {
      let envelope = generator.envelope(kind: index < EnvelopeGenerator.bodyKinds ? index : nil)
      #expect(try WireCodec.decode(try WireCodec.encode(envelope)) == envelope)
    }
  }

  @Test("encoding is deterministic")
  func deterministic() throws {
    var generator = EnvelopeGenerator(seed: 77)
    for _ in 0..<100 {
      let envelope = generator.envelope()
      #expect(try WireCodec.encode(envelope) == WireCodec.encode(envelope))
    }
  }

  @Test("tensors are passed on, not copied")
  func tensorsAreNotCopied() throws {
    let bytes = FrameBuffer(copying: [Float](repeating: 1.5, count: 6))
    let envelope = Envelope(
      messageID: 1, body: .accepted, tensors: [WireTensor(name: "latents", dtype: .fp32, shape: [2, 3], bytes: bytes)])
    let frames = try WireCodec.encode(envelope)
    #expect(frames.count == 2)
    #expect(frames[1] === bytes)
    #expect(try WireCodec.decode(frames).tensor("latents")?.bytes === bytes)
  }

  @Test("the header of a message tells its number and its task")
  func header() throws {
    var generator = EnvelopeGenerator(seed: 5)
    for _ in 0..<200 {
      let envelope = generator.envelope()
      let header = WireCodec.header(of: try WireCodec.encode(envelope)[0])
      #expect(header.protocolVersion == 1 && header.messageID == envelope.messageID && header.task == envelope.task)
    }
  }

  @Test("a message that is refused still tells its number and its task")
  func headerOfRefused() {
    let task = Bytes().text(1, "job").text(2, "encode").number(3, 2)
    let refused = Bytes.envelope.nested(4, task).nested(32, Bytes().blob(2, [0xFF]))
    #expect(refused.error?.field == "encode_request.prompt")
    let header = WireCodec.header(of: FrameBuffer(copying: refused.bytes))
    #expect(header.messageID == 7 && header.task == TaskReference(jobID: "job", taskID: "encode", attempt: 2))
    let truncated = WireCodec.header(of: FrameBuffer(copying: Array(refused.bytes.dropLast())))
    #expect(truncated == header)
    #expect(WireCodec.header(of: FrameBuffer(copying: [0xFF])).messageID == 0)
  }

  @Test("a frame buffer releases what it took over, once, when the last user is gone")
  func release() {
    final class Owner: Sendable {
      let onDeinit: @Sendable () -> Void
      init(_ onDeinit: @escaping @Sendable () -> Void) { self.onDeinit = onDeinit }
      deinit { onDeinit() }
    }
    let released = Atomic(0)
    let storage = UnsafeMutableRawBufferPointer.allocate(byteCount: 4, alignment: 1)
    defer { storage.deallocate() }
    do {
      let owner = Owner { released.add(1, ordering: .relaxed) }
      let buffer = FrameBuffer(UnsafeRawBufferPointer(storage), keepingAlive: owner)
      var copies = [buffer, buffer]
      copies.removeAll()
      #expect(released.load(ordering: .relaxed) == 0)
      #expect(buffer.count == 4)
    }
    #expect(released.load(ordering: .relaxed) == 1)
  }

  @Test("CRC-32 is zlib's")
  func crc() {
    #expect(WireCodec.crc32(of: FrameBuffer(copying: Array("123456789".utf8))) == 0xCBF4_3926)
    #expect(WireCodec.crc32(of: FrameBuffer(copying: [UInt8]())) == 0)
  }
}
