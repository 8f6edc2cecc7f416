import CZlib
import Foundation
import ImageCodec
import Testing

/// What the scripts in Golden recorded with Pillow.
enum Golden {
  static let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Golden")

  /// An image as Pillow has it.
  struct Image: Decodable {
    var width: Int
    var height: Int
    var channels: Int
    /// Compressed by zlib.
    var pixels: Data
    /// By how much a value may differ.
    var tolerance: Int?

    var image: RasterImage {
      var bytes = [UInt8](repeating: 0, count: width * height * channels)
      var count = UInt(bytes.count)
      let status = uncompress(&bytes, &count, [UInt8](pixels), UInt(pixels.count))
      precondition(status == Z_OK && count == bytes.count, "a golden image of another size")
      return RasterImage(width: width, height: height, channels: channels, pixels: bytes)
    }
  }

  static func json<Value: Decodable>(_ name: String, as type: Value.Type = Value.self) throws -> Value {
    try JSONDecoder().decode(type, from: Data(contentsOf: folder.appending(path: name)))
  }

  static func file(_ name: String) throws -> [UInt8] {
    [UInt8](try Data(contentsOf: folder.appending(path: "files/\(name)")))
  }
}

extension RasterImage {
  /// The largest difference of two values; nil: the images differ in size or channels.
  func difference(from other: RasterImage) -> Int? {
    guard width == other.width, height == other.height, channels == other.channels else { return nil }
    return zip(pixels, other.pixels).map { abs(Int($0) - Int($1)) }.max()
  }
}

/// Numbers that are the same in every run (SplitMix64).
struct SeededNumbers: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }

  mutating func image(_ width: Int, _ height: Int, _ channels: Int) -> RasterImage {
    let pixels = (0..<(width * height * channels)).map { _ in UInt8.random(in: 0...255, using: &self) }
    return RasterImage(width: width, height: height, channels: channels, pixels: pixels)
  }
}
