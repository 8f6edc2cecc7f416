/// A grey or colour JPEG file of 8×8 pixels whose coefficients are all 0, scan by scan: for files that no encoder
/// writes.
struct HandmadeJPEG {
  /// One scan: the components in it, and for progressive files the coefficients and bits.
  struct Scan {
    var components: [UInt8]
    var first: UInt8 = 0
    var last: UInt8 = 63
    /// The bit before, or 0, and the bit after the scan.
    var bits: (UInt8, UInt8) = (0, 0)
  }

  var componentCount = 1
  var isProgressive = false
  var scans: [Scan]

  private func segment(_ marker: UInt8, _ data: [UInt8]) -> [UInt8] {
    [0xff, marker, UInt8((data.count + 2) >> 8), UInt8((data.count + 2) & 255)] + data
  }

  /// A Huffman table whose only code, one bit long, stands for `symbol`.
  private func table(_ kind: UInt8, symbol: UInt8) -> [UInt8] {
    [kind, 1] + [UInt8](repeating: 0, count: 15) + [symbol]
  }

  var file: [UInt8] {
    var file: [UInt8] = [0xff, 0xd8] + segment(0xdb, [0] + [UInt8](repeating: 1, count: 64))
    let components = (1...UInt8(componentCount)).flatMap { [$0, 0x11, 0] as [UInt8] }
    file += segment(isProgressive ? 0xc2 : 0xc0, [8, 0, 8, 0, 8, UInt8(componentCount)] + components)
    // Category 0, and the end of a block.
    file += segment(0xc4, table(0x00, symbol: 0) + table(0x10, symbol: 0))
    for scan in scans {
      let selectors = scan.components.flatMap { [$0, 0] as [UInt8] }
      let parameters = [scan.first, scan.last, scan.bits.0 << 4 | scan.bits.1]
      file += segment(0xda, [UInt8(scan.components.count)] + selectors + parameters)
      // For each block one bit of 0, or two where the scan has DC and AC; the rest of the byte is filled with 1.
      let bitCount = scan.components.count * (isProgressive ? 1 : 2)
      file.append(0xff >> UInt8(bitCount))
    }
    return file + [0xff, 0xd9]
  }
}
