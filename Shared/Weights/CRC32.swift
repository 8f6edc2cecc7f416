import CZlib

/// The checksum of zlib and PNG: finds damage, not tampering.
struct CRC32: Sendable {
  /// The checksum of the bytes so far.
  private(set) var value: UInt32 = 0

  mutating func update(_ bytes: RawSpan) {
    guard !bytes.isEmpty else { return }  // zlib takes a null pointer for a wish to start again
    // zlib is a C library: it reads `count` bytes at the address.
    value = bytes.withUnsafeBytes {
      UInt32(truncatingIfNeeded: crc32_z(UInt(value), $0.assumingMemoryBound(to: UInt8.self).baseAddress, $0.count))
    }
  }

  static func of(_ bytes: [UInt8]) -> UInt32 {
    var checksum = CRC32()
    bytes.withUnsafeBytes { checksum.update($0.bytes) }
    return checksum.value
  }
}
