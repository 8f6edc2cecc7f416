/// The last frame of a message: the CRC-32 of frame 0, little-endian. Tensors have theirs in the envelope; with the
/// seal a bit that flips on the way is noticed wherever it is, on links without encryption too, and never becomes
/// another seed or step.
extension WireCodec {
  /// Bytes of the seal.
  static let sealByteCount = 4

  /// `frames` with their seal.
  public static func sealed(_ frames: [FrameBuffer]) -> [FrameBuffer] {
    guard let first = frames.first else { return frames }
    let checksum = crc32(of: first)
    let seal = FrameBuffer(byteCount: sealByteCount) { $0.storeBytes(of: checksum.littleEndian, as: UInt32.self) }
    return frames + [seal]
  }

  /// The frames before the seal.
  ///
  /// - Throws: ``WireError/brokenSeal(reason:)`` when it is missing or is not that of frame 0.
  public static func unsealed(_ frames: [FrameBuffer]) throws(WireError) -> [FrameBuffer] {
    guard frames.count >= 2, let first = frames.first, let seal = frames.last, seal.count == sealByteCount else {
      throw .brokenSeal(reason: "the last of \(frames.count) frames is no seal")
    }
    let described = seal.withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(as: UInt32.self)) }
    let computed = crc32(of: first)
    guard described == computed else {
      throw .brokenSeal(reason: "frame 0 has the CRC-32 \(computed), its seal says \(described)")
    }
    return Array(frames.dropLast())
  }
}
