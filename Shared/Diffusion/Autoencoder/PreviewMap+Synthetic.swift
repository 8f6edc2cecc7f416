import ClusterCore
import ImageCodec

extension PreviewMap {
  /// Edge of the images that a codec is fitted to.
  private static let syntheticEdgePx = 256
  /// How many they are: each has at least 256 latent elements, of which the map has at most 65 numbers for an output.
  private static let syntheticCount = 6

  /// Fits a codec to synthetic images: gradients between random colours, and shapes of one colour on them. A map from
  /// photographs would show skin and foliage better; this one needs none, and takes seconds.
  ///
  /// - Parameters:
  ///   - codec: loaded with its encoder.
  ///   - geometry: the shape of its latents.
  /// - Returns: nil when the images do not determine a map, as with a codec of random weights that ignores them.
  public init?(fitting codec: any LatentCodec, _ geometry: LatentGeometry) {
    let multiple = geometry.tokenEdgePx, edge = max(Self.syntheticEdgePx / multiple, 1) * multiple
    var random = MersenneTwister(seed: 1)
    let images = (0..<Self.syntheticCount).map { _ in Self.syntheticImage(edge, &random) }
    self.init(fitting: codec, geometry, to: images)
  }

  private static func syntheticImage(_ edge: Int, _ random: inout MersenneTwister) -> RasterImage {
    let corners = (0..<4).map { _ in random.colour() }
    var pixels: [UInt8] = []
    pixels.reserveCapacity(edge * edge * 3)
    for y in 0..<edge {
      for x in 0..<edge {
        let (u, v) = (Double(x) / Double(edge), Double(y) / Double(edge))
        for channel in 0..<3 {
          let top = corners[0][channel] * (1 - u) + corners[1][channel] * u
          let bottom = corners[2][channel] * (1 - u) + corners[3][channel] * u
          pixels.append(UInt8(top * (1 - v) + bottom * v))
        }
      }
    }
    for number in 0..<12 {
      let colour = random.colour(), radius = edge / 16 + random.below(edge / 6)
      let (left, top) = (random.below(edge), random.below(edge))
      for y in max(top - radius, 0)..<min(top + radius, edge) {
        for x in max(left - radius, 0)..<min(left + radius, edge) {
          let (dx, dy) = (x - left, y - top)
          guard number % 2 == 0 || dx * dx + dy * dy < radius * radius else { continue }
          for channel in 0..<3 { pixels[(y * edge + x) * 3 + channel] = UInt8(colour[channel]) }
        }
      }
    }
    return RasterImage(width: edge, height: edge, pixels: pixels)
  }
}

extension MersenneTwister {
  fileprivate mutating func below(_ limit: Int) -> Int { Int(next() % UInt32(limit)) }

  /// Red, green and blue, from 0 to 255; one in four is a grey.
  fileprivate mutating func colour() -> [Double] {
    if below(4) == 0 { return [Double](repeating: Double(below(256)), count: 3) }
    return (0..<3).map { _ in Double(below(256)) }
  }
}
