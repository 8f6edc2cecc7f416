import Foundation
import ImageCodec
import Testing

@Suite("Files with texts") struct ImageEncodingTests {
  private static let encodings = [
    ImageEncoding.png, ImageEncoding(format: .webp), ImageEncoding(format: .webp, quality: 60),
    ImageEncoding(format: .webp, quality: 0), ImageEncoding(format: .jpeg), ImageEncoding(format: .jpeg, quality: 60),
    ImageEncoding(format: .jpeg, quality: 0),
  ]

  private func metadata(_ prompt: String, negativePrompt: String? = "blurry, 模糊") -> ImageMetadata {
    ImageMetadata(
      model: "m", fingerprint: "f", prompt: prompt, negativePrompt: negativePrompt, trueCFGScale: 2.5, steps: 8,
      width: 33, height: 17, seed: 7, softwareVersion: "1.2")
  }

  private func image(channels: Int) -> RasterImage {
    var numbers = SeededNumbers(state: 3)
    return numbers.image(5, 4, channels).resized(width: 33, height: 17, filter: .bicubic)
  }

  @Test("texts come back from every format, whatever the pixels", arguments: encodings, [3, 4])
  func roundTrip(encoding: ImageEncoding, channels: Int) throws {
    let metadata = metadata("a cat 猫 😀,\na \"dog\""), image = image(channels: channels)
    let file = try encoding.file(of: image, texts: metadata.texts)
    #expect(try encoding.file(of: image, texts: metadata.texts) == file)
    #expect(ImageFileFormat(signatureOf: file) == encoding.format)
    let read = try ImageFile.texts(of: file)
    #expect(read.texts == metadata.texts)
    #expect(read.header.format == encoding.format && read.header.width == 33 && read.header.height == 17)
    #expect(try ImageMetadata(texts: read.texts) == metadata)
    // Texts change no pixel, and nothing else than what they are.
    let plain = try encoding.file(of: image)
    #expect(try ImageFile.texts(of: plain).texts == [])
    #expect(try ImageFile.decode(file) == ImageFile.decode(plain))
  }

  @Test("100 is lossless in WebP, and transparency stays but in JPEG")
  func pixels() throws {
    let image = image(channels: 4), texts = metadata("x").texts
    #expect(try ImageFile.decode(ImageEncoding(format: .webp).file(of: image, texts: texts)) == image)
    #expect(try ImageFile.decode(ImageEncoding.png.file(of: image, texts: texts)) == image)
    let lossy = try ImageFile.decode(ImageEncoding(format: .webp, quality: 90).file(of: image, texts: texts))
    #expect(lossy.alpha == image.alpha)
    let jpeg = ImageEncoding(format: .jpeg, quality: 80)
    #expect(!jpeg.keepsTransparency)
    #expect(try jpeg.file(of: image, texts: texts) == jpeg.file(of: image.overWhite, texts: texts))
  }

  /// By the rules of RIFF and of WebP's extended format.
  @Test("WebP files have the chunks that the format wants", arguments: [3, 4], [50, 100])
  func webP(channels: Int, quality: Int) throws {
    let image = image(channels: channels)
    let file = try ImageEncoding(format: .webp, quality: quality).file(of: image, texts: metadata("x").texts)
    func number(_ place: Int) -> Int { file[place..<(place + 4)].reversed().reduce(0) { $0 << 8 | Int($1) } }
    #expect(file.starts(with: "RIFF".utf8) && number(4) == file.count - 8)
    var kinds: [String] = [], place = 12
    while place < file.count {
      kinds.append(String(decoding: file[place..<(place + 4)], as: UTF8.self))
      place += 8 + (number(place + 4) + 1) / 2 * 2
    }
    #expect(place == file.count)
    #expect(kinds == ["VP8X"] + (quality == 100 ? ["VP8L"] : (channels == 4 ? ["ALPH"] : []) + ["VP8 "]) + ["EXIF"])
    #expect(file[20] == 0x08 | (channels == 4 ? 0x10 : 0))
    #expect(Array(file[24..<30]) == [32, 0, 0, 16, 0, 0])
    #expect(try ImageFile.decode(file).channels == channels)
  }

  @Test("what JPEG has no space for is cut before the last line of the comment, and the record is whole")
  func longTexts() throws {
    let image = image(channels: 3), prompt = String(repeating: "猫 cat ", count: 6000)
    let metadata = metadata(prompt, negativePrompt: String(repeating: "x", count: 6000))
    let whole = metadata.texts
    #expect(try ImageFile.texts(of: ImageEncoding(format: .webp).file(of: image, texts: whole)).texts == whole)
    let file = try ImageEncoding(format: .jpeg).file(of: image, texts: whole)
    let read = try ImageFile.texts(of: file).texts
    #expect(read.map(\.keyword) == whole.map(\.keyword) && read[0] == whole[0] && read[2] == whole[2])
    let lines = read[1].text.split(separator: "\n"), wholeLines = whole[1].text.split(separator: "\n")
    #expect(lines.count == 2 && lines[1] == wholeLines.last)
    #expect(lines[0].hasSuffix("…") && wholeLines[0].hasPrefix(lines[0].dropLast()) && lines[0].count > 1000)
    // The longest that there are.
    let longest = self.metadata(String(repeating: "y", count: 70_000), negativePrompt: nil)
    let texts = try ImageFile.texts(of: ImageEncoding(format: .jpeg).file(of: image, texts: longest.texts)).texts
    #expect(texts[2] == longest.texts[2] && texts[1].text.contains("Steps: 8"))
  }

  @Test("refuses texts that EXIF has no place for, and qualities that there are not")
  func refusals() {
    let image = image(channels: 3)
    for format in [ImageFileFormat.webp, .jpeg] {
      #expect(throws: ImageEncodingError.self) {
        try ImageEncoding(format: format).file(of: image, texts: [PNG.Text("Title", "x")])
      }
      for quality in [-1, 101] {
        #expect(throws: ImageEncodingError.qualityOutOfRange(format, found: quality, range: 0...100)) {
          try ImageEncoding(format: format, quality: quality).file(of: image)
        }
      }
    }
    #expect(throws: ImageEncodingError.self) {
      let record = PNG.Text(ImageMetadata.keyword, String(repeating: "x", count: 66_000))
      return try ImageEncoding(format: .jpeg).file(of: image, texts: [record])
    }
  }

  /// Every prefix and every changed byte of EXIF data is read without a trap.
  @Test("damaged EXIF data give fewer texts")
  func damaged() throws {
    let texts = metadata("a cat").texts
    let file = try ImageEncoding(format: .webp).file(of: image(channels: 3), texts: texts)
    let start = try #require(file.indices.first { file[$0...].starts(with: "MM\0*".utf8) })
    var changed = 0
    for place in start..<file.count {
      for value in [0, 1, 0x7f, 0xff] as [UInt8] {
        var copy = file
        copy[place] = value
        let read = try? ImageFile.texts(of: copy).texts
        if read != texts { changed += 1 }
        #expect((read ?? []).count <= 3)
      }
    }
    #expect(changed > 100)
  }
}
