import TensorCore
import Testing
import Wire

/// The error that decoding `frames` throws, or nil when it gives a message.
func failure(_ frames: [FrameBuffer], _ limits: WireLimits = WireLimits()) -> WireError? {
  do {
    _ = try WireCodec.decode(frames, limits: limits)
    return nil
  } catch {
    return error
  }
}

@Suite("Damaged messages give a typed error that names the field, never a crash")
struct MutationTests {
  @Test("an envelope of every kind, truncated at every byte", arguments: 0..<EnvelopeGenerator.bodyKinds)
  func truncated(kind: Int) throws {
    var generator = EnvelopeGenerator(seed: 100 + UInt64(kind))
    let frames = try WireCodec.encode(generator.envelope(kind: kind))
    let bytes = frames[0].array
    for length in 0..<bytes.count {
      let error = failure([FrameBuffer(copying: Array(bytes[..<length]))] + frames.dropFirst())
      #expect(error?.field.isEmpty == false, "\(length) of \(bytes.count) bytes")
    }
  }

  @Test("tensors truncated at every byte")
  func truncatedTensors() throws {
    let bytes = (0..<60).map { UInt8($0) }
    let envelope = Envelope(
      messageID: 1, body: .accepted,
      tensors: [WireTensor(name: "latents", dtype: .fp32, shape: [3, 5], bytes: FrameBuffer(copying: bytes))])
    let frames = try WireCodec.encode(envelope)
    for length in 0..<bytes.count {
      #expect(
        failure([frames[0], FrameBuffer(copying: Array(bytes[..<length]))])
          == .sizeMismatch(tensor: "latents", expected: 60, found: length))
    }
  }

  /// 18 kinds × 2,000 = 36,000 mutants.
  @Test("bits flipped in the envelope", arguments: 0..<EnvelopeGenerator.bodyKinds)
  func flippedBits(kind: Int) throws {
    var generator = EnvelopeGenerator(seed: 200 + UInt64(kind))
    var refused = 0
    for _ in 0..<40 {
      let frames = try WireCodec.encode(generator.envelope(kind: kind))
      let bytes = frames[0].array
      for _ in 0..<50 {
        var mutant = bytes
        for _ in 0..<generator.integer(1...3) {
          mutant[generator.integer(0...mutant.count - 1)] ^= 1 << UInt8(generator.integer(0...7))
        }
        refused += try outcome([FrameBuffer(copying: mutant)] + frames.dropFirst()) ? 1 : 0
      }
    }
    #expect(refused > 200, "most damage is noticed")
  }

  /// 20,000 mutants: pieces cut, doubled, moved and overwritten, so that lengths and tags go wrong together.
  @Test("pieces of the envelope cut, doubled and moved", arguments: 0..<20)
  func spliced(seed: Int) throws {
    var generator = EnvelopeGenerator(seed: 300 + UInt64(seed))
    for _ in 0..<50 {
      let frames = try WireCodec.encode(generator.envelope())
      let bytes = frames[0].array
      for _ in 0..<20 {
        var mutant = bytes
        let start = generator.integer(0...bytes.count - 1)
        let end = generator.integer(start...min(bytes.count - 1, start + 40))
        switch generator.integer(0...3) {
        case 0: mutant.removeSubrange(start...end)
        case 1: mutant.insert(contentsOf: bytes[start...end], at: generator.integer(0...bytes.count))
        case 2: mutant.insert(contentsOf: bytes[start...end], at: start)
        default: for index in start...end { mutant[index] = UInt8(truncatingIfNeeded: generator.random.next()) }
        }
        _ = try outcome([FrameBuffer(copying: mutant)] + frames.dropFirst())
      }
    }
  }

  @Test("20,000 frames of noise")
  func noise() throws {
    var generator = EnvelopeGenerator(seed: 400)
    for _ in 0..<20_000 {
      var bytes = (0..<generator.integer(0...80)).map { _ in UInt8(truncatingIfNeeded: generator.random.next()) }
      if generator.integer(0...1) == 0 { bytes = [0x08, 0x01] + bytes }
      #expect(failure([FrameBuffer(copying: bytes)])?.field.isEmpty == false)
    }
  }

  @Test("every flipped bit of a tensor is noticed")
  func flippedTensor() throws {
    let bytes = (0..<96).map { UInt8($0) }
    let envelope = Envelope(
      messageID: 1, body: .accepted,
      tensors: [WireTensor(name: "image", dtype: .uint8, shape: [96], bytes: FrameBuffer(copying: bytes))])
    let frames = try WireCodec.encode(envelope)
    for bit in 0..<bytes.count * 8 {
      var mutant = bytes
      mutant[bit / 8] ^= 1 << UInt8(bit % 8)
      guard case .checksumMismatch("image", _, _) = failure([frames[0], FrameBuffer(copying: mutant)]) else {
        Issue.record("bit \(bit) went unnoticed")
        continue
      }
    }
  }

  /// Whether the mutant is refused; one that is not must be a message that can be sent again.
  private func outcome(_ frames: [FrameBuffer]) throws -> Bool {
    _ = WireCodec.header(of: frames[0])
    do {
      let envelope = try WireCodec.decode(frames)
      #expect(try WireCodec.decode(WireCodec.encode(envelope)) == envelope)
      return false
    } catch {
      #expect(!error.field.isEmpty && !error.description.isEmpty)
      return true
    }
  }
}
