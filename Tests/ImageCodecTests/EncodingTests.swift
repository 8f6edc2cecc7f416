import Foundation
import Hashing
import ImageCodec
import Testing

@Suite("Encoding") struct EncodingTests {
  private func image(_ width: Int, _ height: Int, _ channels: Int, seed: UInt64 = 1) -> RasterImage {
    var numbers = SeededNumbers(state: seed)
    // Small blocks of noise enlarged: smooth enough for lossy formats.
    return numbers.image(width / 8 + 1, height / 8 + 1, channels)
      .resized(width: width, height: height, filter: .bicubic)
  }

  private func meanDifference(_ one: RasterImage, _ other: RasterImage) -> Double {
    let sum = zip(one.pixels, other.pixels).reduce(0) { $0 + abs(Int($1.0) - Int($1.1)) }
    return Double(sum) / Double(one.pixels.count)
  }

  // MARK: - PNG

  @Test("PNG keeps every pixel and text", arguments: [1, 3, 4], [(1, 1), (1, 40), (64, 48), (101, 37)])
  func png(channels: Int, size: (Int, Int)) throws {
    var numbers = SeededNumbers(state: 9)
    let image = numbers.image(size.0, size.1, channels)
    let texts = [PNG.Text("parameters", "a cat 猫"), PNG.Text("Software", "qwen-image-cluster")]
    let file = try PNG.encode(image, texts: texts)
    #expect(try PNG.encode(image, texts: texts) == file)
    #expect(try PNG.decode(file).texts == texts)
    #expect(try ImageFile.decode(file) == (channels == 1 ? image.rgb : image))
  }

  // MARK: - JPEG

  @Test("JPEG comes close, closer with quality, and has the same bytes every time", arguments: [1, 3, 4])
  func jpeg(channels: Int) throws {
    let image = image(61, 47, channels)
    let seen = image.channels == 4 ? image.overWhite : image.rgb
    var last = (bytes: 0, difference: 256.0)
    for quality in [1, 30, 89, 90, 100] {
      let file = try JPEG.encode(image, quality: quality)
      #expect(try JPEG.encode(image, quality: quality) == file)
      #expect(file.prefix(4) == [0xff, 0xd8, 0xff, 0xe0])
      let decoded = try ImageFile.decode(file)
      #expect(decoded.channels == 3 && decoded.width == 61 && decoded.height == 47)
      let difference = meanDifference(decoded, seen)
      #expect(file.count > last.bytes && difference < last.difference, "\(quality)")
      last = (file.count, difference)
    }
    #expect(last.difference < 1)
  }

  /// Sampling factors of the frame header: half-resolution colour below 90.
  @Test("JPEG has colour at full resolution from quality 90 on")
  func chroma() throws {
    for (quality, factors) in [(89, 0x22), (90, 0x11)] {
      let file = try JPEG.encode(image(32, 32, 3), quality: quality)
      let frame = try #require(file.indices.first { file[$0] == 0xff && file[$0 + 1] == 0xc0 })
      #expect(Int(file[frame + 11]) == factors)
    }
  }

  // MARK: - WebP

  @Test(
    "lossless WebP keeps every pixel, under alpha 0 too", arguments: [1, 3, 4], [(1, 1), (1, 40), (64, 48), (101, 37)])
  func losslessWebP(channels: Int, size: (Int, Int)) throws {
    var numbers = SeededNumbers(state: 10)
    var image = numbers.image(size.0, size.1, channels)
    if channels == 4 {
      image = image.pasting(
        RasterImage(width: size.0, height: 1, filledWith: [9, 8, 7, 0]), left: 0, top: size.1 / 2)
    }
    let file = try WebP.encode(image, .lossless)
    #expect(try WebP.encode(image, .lossless) == file)
    #expect(try ImageFile.decode(file) == (channels == 1 ? image.rgb : image))
  }

  @Test("lossy WebP comes close, closer with quality, and keeps alpha", arguments: [1, 3, 4])
  func lossyWebP(channels: Int) throws {
    // Without alpha 0, under which colours are the encoder's.
    var image = image(61, 47, channels)
    if channels == 4 {
      let pixels = image.pixels.enumerated().map { $0 % 4 == 3 ? $1 / 2 + 128 : $1 }
      image = RasterImage(width: 61, height: 47, channels: 4, pixels: pixels)
    }
    var last = (bytes: 0, difference: 256.0)
    for quality in [0, 50, 100] {
      let file = try WebP.encode(image, .lossy(quality: quality))
      #expect(try WebP.encode(image, .lossy(quality: quality)) == file)
      let decoded = try ImageFile.decode(file)
      #expect(decoded.channels == max(channels, 3) && decoded.alpha == image.alpha)
      let difference = meanDifference(decoded, channels == 1 ? image.rgb : image)
      #expect(file.count > last.bytes && difference < last.difference, "\(quality)")
      last = (file.count, difference)
    }
    // Colour has half the resolution at every quality.
    #expect(last.difference < (channels == 1 ? 1 : 3))
  }

  // MARK: - Refusals

  @Test("refuses what the formats do not have")
  func refusals() {
    let pixel = RasterImage(width: 1, height: 1, filledWith: [1, 2, 3])
    for quality in [-1, 0, 101] {
      #expect(throws: ImageEncodingError.qualityOutOfRange(.jpeg, found: quality, range: 1...100)) {
        try JPEG.encode(pixel, quality: quality)
      }
    }
    for quality in [-1, 101] {
      #expect(throws: ImageEncodingError.qualityOutOfRange(.webp, found: quality, range: 0...100)) {
        try WebP.encode(pixel, .lossy(quality: quality))
      }
    }
    let wide = RasterImage(width: 65501, height: 1, filledWith: [1])
    #expect(throws: ImageEncodingError.sideTooLong(.jpeg, width: 65501, height: 1, limit: 65500)) {
      try JPEG.encode(wide, quality: 50)
    }
    #expect(throws: ImageEncodingError.sideTooLong(.webp, width: 65501, height: 1, limit: 16383)) {
      try WebP.encode(wide, .lossless)
    }
  }

  // MARK: - Identity

  @Test("the digest is of what is seen, whatever the file")
  func digests() throws {
    let image = image(20, 15, 4)
    let files = [
      try PNG.encode(image), try PNG.encode(image, texts: [PNG.Text("Title", "x")]), try WebP.encode(image, .lossless),
    ]
    #expect(Set(files).count == 3)
    for file in files { #expect(try ImageFile.decode(file).contentDigest == image.contentDigest) }

    // By the rule in words.
    let header = Array("qwen-image raster 1\n".utf8) + [20, 15, 4].flatMap { [0, 0, 0, 0, 0, 0, 0, $0] as [UInt8] }
    #expect(image.contentDigest == SHA256.hash(header + image.pixels))
  }

  @Test("the digest changes with every part of what is seen")
  func differentDigests() {
    let pixels = [UInt8](0..<24)
    let images = [
      RasterImage(width: 4, height: 2, channels: 3, pixels: pixels),
      RasterImage(width: 2, height: 4, channels: 3, pixels: pixels),
      RasterImage(width: 3, height: 2, channels: 4, pixels: pixels),
      RasterImage(width: 24, height: 1, channels: 1, pixels: pixels),
      RasterImage(width: 4, height: 2, channels: 3, pixels: pixels.reversed()),
    ]
    #expect(Set(images.map(\.contentDigest)).count == images.count)
    #expect(images.allSatisfy { $0.contentDigest.count == 32 })
  }
}
