import CZlib
import Foundation
import ImageCodec
import TensorCore
import Testing
import Weights

private let golden = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().appending(
  path: "Golden")

/// A generator whose sequence is the same in every run (SplitMix64).
private struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

private func randomImage(width: Int, height: Int, channels: Int, using generator: inout SeededGenerator) -> RasterImage
{
  let pixels = (0..<(width * height * channels)).map { _ in UInt8.random(in: 0...255, using: &generator) }
  return RasterImage(width: width, height: height, channels: channels, pixels: pixels)
}

private let texts = [
  PNG.Text("Software", "qwen-image"), PNG.Text("parameters", "{\"prompt\": \"山间的清晨 🦊\", \"seed\": 42}\nsecond line"),
  PNG.Text("empty", ""),
  PNG.Text("a b", "caf\u{e9} \u{7f}"), PNG.Text("latin", "na\u{ef}ve\u{a0}\u{ff}"),
]

@Suite struct PNGEncodingTests {
  @Test(arguments: [(1, 1), (1, 9), (9, 1), (64, 64), (101, 37)], [3, 4])
  func roundTrips(size: (Int, Int), channels: Int) throws {
    var generator = SeededGenerator(state: UInt64(size.0 * channels))
    let image = randomImage(width: size.0, height: size.1, channels: channels, using: &generator)
    let file = try PNG.encode(image, texts: texts)
    let decoded = try PNG.decode(file)
    #expect(decoded.image == image)
    #expect(decoded.texts == texts)
    #expect(try PNG.encode(image, texts: texts) == file, "bytes must be reproducible")
  }

  /// The file taken apart by hand: signature, checksums, header, and pixels inflated and unfiltered as the standard
  /// says.
  @Test func writesWhatTheStandardSays() throws {
    var generator = SeededGenerator(state: 6)
    let image = randomImage(width: 13, height: 5, channels: 3, using: &generator)
    let file = try PNG.encode(image, texts: texts)
    #expect(Array(file.prefix(8)) == [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])
    let chunks = try chunks(of: file)
    #expect(chunks.map(\.kind) == ["IHDR", "tEXt", "iTXt", "tEXt", "iTXt", "tEXt", "IDAT", "IEND"])
    #expect(chunks[0].data == [0, 0, 0, 13, 0, 0, 0, 5, 8, 2, 0, 0, 0])
    #expect(chunks[1].data == Array("Software\0qwen-image".utf8))
    #expect(chunks[2].data == Array("parameters\0\0\0\0\0".utf8) + Array(texts[1].text.utf8))
    #expect(chunks[5].data == Array("latin\0na".utf8) + [0xef, 0x76, 0x65, 0xa0, 0xff])
    let filtered = try inflated(chunks[6].data, count: 5 * (13 * 3 + 1))
    #expect(unfiltered(filtered, rowBytes: 13 * 3, pixelBytes: 3) == image.pixels)
  }

  private func chunks(of file: [UInt8]) throws -> [(kind: String, data: [UInt8])] {
    func word(_ offset: Int) -> UInt32 { file[offset..<(offset + 4)].reduce(0) { $0 << 8 | UInt32($1) } }
    var chunks: [(kind: String, data: [UInt8])] = []
    var offset = 8
    while offset < file.count {
      let end = offset + 8 + Int(word(offset))
      let body = Array(file[(offset + 4)..<end])
      #expect(crc32(0, body, UInt32(body.count)) == UInt(word(end)))
      chunks.append((String(decoding: body.prefix(4), as: UTF8.self), Array(body.dropFirst(4))))
      offset = end + 4
    }
    return chunks
  }

  private func inflated(_ data: [UInt8], count: Int) throws -> [UInt8] {
    var result = [UInt8](repeating: 0, count: count)
    var length = UInt(count)
    #expect(uncompress(&result, &length, data, UInt(data.count)) == Z_OK && length == count)
    return result
  }

  private func unfiltered(_ bytes: [UInt8], rowBytes: Int, pixelBytes: Int) -> [UInt8] {
    var result: [UInt8] = []
    for row in stride(from: 0, to: bytes.count, by: rowBytes + 1) {
      let above = row == 0 ? [UInt8](repeating: 0, count: rowBytes) : Array(result.suffix(rowBytes))
      var line: [UInt8] = []
      for i in 0..<rowBytes {
        let a = i < pixelBytes ? 0 : Int(line[i - pixelBytes])
        let b = Int(above[i])
        let c = i < pixelBytes ? 0 : Int(above[i - pixelBytes])
        let predictor: Int
        switch bytes[row] {
        case 0: predictor = 0
        case 1: predictor = a
        case 2: predictor = b
        case 3: predictor = (a + b) / 2
        default:
          let distances = (abs(b - c), abs(a - c), abs(a + b - 2 * c))
          predictor = distances.0 <= distances.1 && distances.0 <= distances.2 ? a : distances.1 <= distances.2 ? b : c
        }
        line.append(bytes[row + 1 + i] &+ UInt8(predictor))
      }
      result += line
    }
    return result
  }

  @Test(arguments: ["", " a", "a ", "a  b", "ä", "a\0", "a\n", String(repeating: "k", count: 80)])
  func refusesBadKeywords(keyword: String) {
    let image = RasterImage(width: 1, height: 1, pixels: [1, 2, 3])
    #expect(throws: PNGError.self) { try PNG.encode(image, texts: [PNG.Text(keyword, "x")]) }
    #expect(throws: PNGError.invalidText(keyword: "k", reason: "the text contains NUL")) {
      try PNG.encode(image, texts: [PNG.Text("k", "x\0y")])
    }
  }

  @Test func filesThatFollowOneAnotherAreFound() throws {
    let sizes = [(3, 2), (64, 1), (1, 1)]
    let files = try sizes.map { width, height in
      try PNG.encode(
        RasterImage(width: width, height: height, pixels: [UInt8](repeating: 7, count: 3 * width * height)))
    }
    let all = files.flatMap { $0 }
    let found = all.withUnsafeBytes { PNG.files(in: $0) }
    #expect(found.map { Array(all[$0]) } == files)
    // Whatever is cut off or stands between them, there are no files.
    for count in 0..<all.count where !found.map(\.upperBound).contains(count) {
      #expect(all.prefix(count).withUnsafeBytes { PNG.files(in: $0) }.isEmpty, "\(count) bytes")
    }
    #expect((files[0] + [0] + files[1]).withUnsafeBytes { PNG.files(in: $0) }.isEmpty)
    var long = files[0]
    long.replaceSubrange(8..<12, with: [0xFF, 0xFF, 0xFF, 0xFF])
    #expect(long.withUnsafeBytes { PNG.files(in: $0) }.isEmpty)
  }

  @Test func keepsLongTexts() throws {
    let image = RasterImage(width: 1, height: 1, pixels: [1, 2, 3])
    let text = PNG.Text("prompt", String(repeating: "长", count: 32 << 10))
    #expect(try PNG.decode(PNG.encode(image, texts: [text])).texts == [text])
  }
}

@Suite struct PNGDecodingTests {
  @Test func readsWhatPillowReads() throws {
    let directory = golden.appending(path: "png")
    let expected = try #require(
      try JSONSerialization.jsonObject(with: Data(contentsOf: directory.appending(path: "expected.json")))
        as? [String: [String: Any]])
    #expect(expected.count == 12)
    for (name, values) in expected {
      let (image, texts) = try PNG.decode(Array(Data(contentsOf: directory.appending(path: "\(name).png"))))
      #expect(image.width == values["width"] as? Int && image.height == values["height"] as? Int, "\(name)")
      #expect(image.channels == values["channels"] as? Int, "\(name)")
      let hex = image.pixels.map { String(format: "%02x", $0) }.joined()
      #expect(hex == values["pixels"] as? String, "\(name)")
      let pairs = try #require(values["texts"] as? [[String]])
      #expect(texts.map { [$0.keyword, $0.text] } == pairs, "\(name)")
    }
  }

  /// The recorded image of a run is the recorded output of its VAE.
  @Test(arguments: ["t2i_64x64", "t2i_80x112"]) func readsARecordedImage(name: String) throws {
    let image = try PNG.decode(Array(Data(contentsOf: golden.appending(path: "tiny/reference/\(name).png")))).image
    let file = try SafetensorsFile(golden.appending(path: "tiny/reference/\(name).safetensors"))
    let output = try file.tensor("vae.decode0.out")
    #expect(output.shape == [1, 3, 1, image.height, image.width])
    let plane = image.width * image.height
    let values = output.floats()
    let pixels = (0..<(3 * plane)).map { i -> UInt8 in
      let x = values[i % 3 * plane + i / 3]
      return UInt8((min(max(x / 2 + 0.5, 0), 1) * 255).rounded(.toNearestOrEven))
    }
    #expect(image.pixels == pixels)
  }

  @Test func enforcesLimits() throws {
    let file = try PNG.encode(RasterImage(width: 20, height: 10, pixels: [UInt8](repeating: 7, count: 600)))
    _ = try PNG.decode(file, limits: PNG.Limits(maxBytes: file.count, maxPixels: 200))
    #expect(throws: PNGError.tooManyPixels(width: 20, height: 10, limit: 199)) {
      try PNG.decode(file, limits: PNG.Limits(maxPixels: 199))
    }
    #expect(throws: PNGError.tooManyBytes(found: file.count, limit: file.count - 1)) {
      try PNG.decode(file, limits: PNG.Limits(maxBytes: file.count - 1))
    }
    #expect(throws: PNGError.notPNG) { try PNG.decode([]) }
    #expect(throws: PNGError.notPNG) { try PNG.decode(Array("\u{89}JPG file that is no PNG".utf8)) }
  }

  /// A header that announces 2³¹−1 squared pixels must not allocate anything.
  @Test func refusesHugeHeaders() throws {
    var file = try PNG.encode(RasterImage(width: 1, height: 1, pixels: [1, 2, 3]))
    for i in 16..<24 { file[i] = i % 4 == 0 ? 0x7f : 0xff }
    let crc = file[12..<29].withUnsafeBufferPointer { crc32(0, $0.baseAddress, UInt32($0.count)) }
    for i in 0..<4 { file[29 + i] = UInt8(truncatingIfNeeded: crc >> (24 - 8 * UInt(i))) }
    let error = #expect(throws: PNGError.self) { try PNG.decode(file) }
    #expect(error == .tooManyPixels(width: 0x7fff_ffff, height: 0x7fff_ffff, limit: 4096 * 4096))
  }

  /// Found by the fuzzer: libpng cleared a buffer of 1 GiB for a chunk that said to be that long.
  @Test func refusesChunksThatAreLongerThanTheFile() throws {
    var file = try PNG.encode(RasterImage(width: 1, height: 1, pixels: [1, 2, 3]), texts: [PNG.Text("Title", "cat")])
    let chunk = try #require(file.firstRange(of: Array("tEXt".utf8))).lowerBound - 4
    file[chunk] = 0x40
    let before = peakBytes()
    #expect(throws: PNGError.self) { try PNG.decode(file) }
    #expect(peakBytes() - before < 256 << 20)
  }

  private func peakBytes() -> Int {
    var usage = rusage()
    #if canImport(Glibc)
      getrusage(RUSAGE_SELF.rawValue, &usage)
      return usage.ru_maxrss << 10
    #else
      getrusage(RUSAGE_SELF, &usage)
      return usage.ru_maxrss
    #endif
  }

  @Test func everyTruncationIsAnError() throws {
    for name in ["texts", "interlaced", "palette_alpha"] {
      let file = Array(try Data(contentsOf: golden.appending(path: "png/\(name).png")))
      // The last chunk, IEND, may lose its checksum without harm to the image.
      for count in 0..<(file.count - 4) {
        #expect(throws: PNGError.self, "\(name) cut to \(count)") { try PNG.decode(Array(file.prefix(count))) }
      }
    }
  }

  /// Mutated files, with the checksums made right again in half of the cases so that the mutation gets past them.
  @Test func mutationsNeverCrash() throws {
    var generator = SeededGenerator(state: 7)
    var refused = 0
    for name in ["rgb", "rgba", "gray_alpha", "palette_alpha", "texts", "interlaced", "profile"] {
      let original = Array(try Data(contentsOf: golden.appending(path: "png/\(name).png")))
      for _ in 0..<700 {
        var file = original
        for _ in 0..<Int.random(in: 1...3, using: &generator) {
          file[Int.random(in: 8..<file.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
        }
        if Bool.random(using: &generator) { repairChecksums(&file) }
        do { _ = try PNG.decode(file, limits: PNG.Limits(maxPixels: 1 << 16)) } catch { refused += 1 }
      }
    }
    #expect(refused > 1000 && refused < 4900, "\(refused) of 4900")
  }

  private func repairChecksums(_ file: inout [UInt8]) {
    var offset = 8
    while offset + 12 <= file.count {
      let end = offset + 8 + file[offset..<(offset + 4)].reduce(0) { $0 << 8 | Int($1) }
      guard end + 4 <= file.count else { return }
      let crc = file[(offset + 4)..<end].withUnsafeBufferPointer { crc32(0, $0.baseAddress, UInt32($0.count)) }
      for i in 0..<4 { file[end + i] = UInt8(truncatingIfNeeded: crc >> (24 - 8 * UInt(i))) }
      offset = end + 4
    }
  }
}
