import Foundation
import ImageCodec
import Testing

@Suite("Files that are no images, too large, or damaged") struct RefusedFilesTests {
  private static let advice = "PNG, JPEG and WebP images are read"

  private func error(_ file: [UInt8], _ limits: ImageFile.Limits = .init()) throws -> ImageFileError {
    try #require(
      #expect(throws: ImageFileError.self, "\(file.prefix(40))") { try ImageFile.decode(file, limits: limits) })
  }

  // MARK: - Other kinds

  @Test(
    "say what they are",
    arguments: [
      ("gif", "a GIF image"), ("bmp", "a BMP image"), ("tiff", "a TIFF image"), ("ico", "an icon"),
      ("jpeg2000", "a JPEG 2000 image"), ("avif", "an AVIF image"), ("pdf", "a PDF document"), ("dds", "a DDS texture"),
    ])
  func kinds(name: String, kind: String) throws {
    #expect(try error(Golden.file("other.\(name)")) == .otherKind(kind, advice: Self.advice))
  }

  @Test(
    "say what they are when they are texts",
    arguments: [
      ("<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG image"),
      ("<?xml version='1.0'?>\n<!-- made -->\n<svg/>", "an SVG image"),
      ("<?xml version='1.0'?><rss/>", "an XML document"),
      ("<!DOCTYPE html>\n<html>", "an HTML page"), ("\u{feff} <HTML lang=en>", "an HTML page"),
      ("{\"error\": \"not found\"}", "a JSON document"), ("[1, 2, 3]", "a JSON document"),
      ("data:image/png;base64,iVBORw0KGgo=", "a data URL as text"),
      ("iVBORw0KGgoAAAANSUhEUg", "base64 text of an image"),
      ("/9j/4AAQSkZJRg", "base64 text of an image"), ("UklGRh4AAABXRUJQ", "base64 text of an image"),
      ("https://example.org/cat.png", "a URL as text"),
      ("version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"), ("Not found.", "a text"),
    ])
  func texts(text: String, kind: String) throws {
    let error = try error(Array(text.utf8))
    guard case .otherKind(kind, _) = error else {
      Issue.record("\(text): \(error)")
      return
    }
    #expect(error.description.hasPrefix(kind + "; "))
  }

  @Test("say how they begin when they are of no known kind")
  func unknownKinds() throws {
    #expect(try error([]) == .empty)
    let bytes: [UInt8] = [0, 1, 2, 3, 250, 251, 252, 253, 254]
    #expect(try error(bytes) == .unknownKind(firstBytes: [0, 1, 2, 3, 250, 251, 252, 253]))
    #expect(try error(bytes).description.contains("begins with the bytes 00 01 02 03 fa fb fc fd;"))
    let video = [0, 0, 0, 0x18] + Array("ftypisom".utf8) + [UInt8](repeating: 0, count: 20)
    #expect(try error(video).description.hasPrefix("a video or sound in MP4"))
    let phone = [0, 0, 0, 0x18] + Array("ftypheic".utf8) + [UInt8](repeating: 0, count: 20)
    #expect(try error(phone).description == "a HEIC or HEIF image; \(Self.advice)")
  }

  @Test("are refused when they are animations")
  func animations() throws {
    #expect(try error(Golden.file("animated.webp")) == .animated(.webp))
  }

  // MARK: - Limits

  @Test("are refused by the limit that they break", arguments: ["rgb8.png", "444.jpg", "lossy.webp"])
  func limits(name: String) throws {
    let file = try Golden.file(name)
    let header = try ImageFile.header(of: file)
    let (format, width, height) = (header.format, header.width, header.height)
    let pixels = width * height
    let exact = ImageFile.Limits(maxBytes: file.count, maxPixels: pixels, maxSide: width)
    _ = try ImageFile.decode(file, limits: exact)
    func broken(_ change: (inout ImageFile.Limits) -> Void) throws -> ImageFileError {
      var limits = exact
      change(&limits)
      #expect(throws: ImageFileError.self) { try ImageFile.header(of: file, limits: limits) }
      return try error(file, limits)
    }
    #expect(try broken { $0.maxBytes -= 1 } == .tooManyBytes(found: file.count, limit: file.count - 1))
    #expect(
      try broken { $0.maxPixels -= 1 } == .tooManyPixels(format, width: width, height: height, limit: pixels - 1))
    #expect(try broken { $0.maxSide -= 1 } == .sideTooLong(format, width: width, height: height, limit: width - 1))
    #expect(
      try broken { $0.maxPixels = 1 }.description.contains("\(width)×\(height) = \(pixels) pixels, the limit is 1"))
  }

  /// A header that promises more pixels than there is memory is refused before there is memory for them.
  @Test("are refused by their headers")
  func bombs() throws {
    var png = try Golden.file("rgb8.png")
    png.replaceSubrange(16..<24, with: [0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff])
    let side = Int(Int32.max)
    #expect(try error(png) == .sideTooLong(.png, width: side, height: side, limit: 16384))
    png.replaceSubrange(16..<24, with: [0, 0, 0x40, 0, 0, 0, 0x40, 0])
    #expect(try error(png) == .tooManyPixels(.png, width: 16384, height: 16384, limit: 1 << 26))
    png.replaceSubrange(16..<24, with: [0, 0, 0, 0, 0, 0, 0, 9])
    #expect(try error(png) == .malformed(.png, reason: "an image of 0×9 pixels"))

    var jpeg = try Golden.file("444.jpg")
    let frame = try #require(jpeg.indices.first { jpeg[$0] == 0xff && jpeg[$0 + 1] == 0xc0 })
    jpeg.replaceSubrange((frame + 5)..<(frame + 9), with: [0xff, 0xdc, 0xff, 0xdc])
    #expect(try error(jpeg) == .sideTooLong(.jpeg, width: 65500, height: 65500, limit: 16384))
    jpeg.replaceSubrange((frame + 5)..<(frame + 9), with: [0x40, 0, 0x40, 0])
    #expect(try error(jpeg) == .tooManyPixels(.jpeg, width: 16384, height: 16384, limit: 1 << 26))
  }

  /// Each scan walks over the whole image, and may be ten bytes long.
  @Test("are refused when a progressive JPEG has too many scans")
  func scans() throws {
    var scans = [HandmadeJPEG.Scan(components: [1], first: 0, last: 0)]
    for coefficient in UInt8(1)...63 {
      scans.append(.init(components: [1], first: coefficient, last: coefficient, bits: (0, 1)))
      scans.append(.init(components: [1], first: coefficient, last: coefficient, bits: (1, 0)))
    }
    let grey = RasterImage(width: 8, height: 8, filledWith: [128, 128, 128])
    #expect(try ImageFile.decode(HandmadeJPEG(isProgressive: true, scans: Array(scans.prefix(64))).file) == grey)
    let file = HandmadeJPEG(isProgressive: true, scans: Array(scans.prefix(65))).file
    #expect(try error(file) == .malformed(.jpeg, reason: "more than 64 scans"))
  }

  // MARK: - Parts of formats that are not read

  @Test("name what is not read of a JPEG file")
  func kindsOfJPEG() throws {
    let jpeg = try Golden.file("grey.jpg")
    let frame = try #require(jpeg.indices.first { jpeg[$0] == 0xff && jpeg[$0 + 1] == 0xc0 })
    var deep = jpeg
    deep[frame + 4] = 12
    #expect(try error(deep) == .unsupported(.jpeg, reason: "Unsupported JPEG data precision 12"))
    var lossless = jpeg
    lossless[frame + 1] = 0xc3
    #expect(try error(lossless) == .unsupported(.jpeg, reason: "Unsupported JPEG process: SOF type 0xc3"))
  }

  /// A file that ends after one of three scans is complete for the format, and half an image.
  @Test("are refused when a colour is missing", arguments: [false, true])
  func missingComponents(isProgressive: Bool) throws {
    let scans = (UInt8(1)...3).map { HandmadeJPEG.Scan(components: [$0], last: isProgressive ? 0 : 63) }
    func file(_ count: Int) -> [UInt8] {
      HandmadeJPEG(componentCount: 3, isProgressive: isProgressive, scans: Array(scans.prefix(count))).file
    }
    let grey = RasterImage(width: 8, height: 8, filledWith: [128, 128, 128])
    #expect(try ImageFile.decode(file(3)) == grey)
    for count in 1...2 {
      #expect(try error(file(count)) == .malformed(.jpeg, reason: "a colour component is missing"))
    }
  }

  @Test("are refused when a JPEG has two colours")
  func componentCounts() throws {
    let file = HandmadeJPEG(componentCount: 2, scans: [.init(components: [1, 2])]).file
    #expect(try error(file) == .unsupported(.jpeg, reason: "2 colour components"))
  }

  // MARK: - Damage

  @Test(
    "are refused wherever they are cut",
    arguments: [
      "rgba8.png", "palette4-alpha.png", "rgb8-interlaced.png", "grey16.png", "444.jpg", "420-progressive.jpg",
      "grey.jpg", "cmyk.jpg", "restarts.jpg", "orientation6.jpg", "lossy.webp", "lossy-alpha.webp", "lossless.webp",
      "lossless-alpha.webp", "orientation6.webp", "1x1.jpg", "lossy-1x1.webp",
    ])
  func truncations(name: String) throws {
    let file = try Golden.file(name)
    _ = try ImageFile.decode(file)
    for count in 0..<file.count {
      #expect(throws: ImageFileError.self, "\(name) cut to \(count) of \(file.count)") {
        try ImageFile.decode(Array(file.prefix(count)))
      }
    }
  }

  @Test("neither trap nor exceed the limits when bytes are changed", arguments: ["png", "jpg", "webp"])
  func flips(suffix: String) throws {
    let names = try FileManager.default.contentsOfDirectory(atPath: Golden.folder.appending(path: "files").path)
      .filter { $0.hasSuffix(".\(suffix)") }.sorted()
    #expect(names.count >= 15)
    var numbers = SeededNumbers(state: UInt64(names.count))
    let limits = ImageFile.Limits(maxPixels: 1 << 14, maxSide: 1 << 10)
    var refused = 0
    for _ in 0..<3000 {
      var file = try Golden.file(names.randomElement(using: &numbers)!)
      for _ in 0..<Int.random(in: 1...3, using: &numbers) {
        file[Int.random(in: 0..<file.count, using: &numbers)] ^= UInt8.random(in: 1...255, using: &numbers)
      }
      do {
        let image = try ImageFile.decode(file, limits: limits)
        #expect(max(image.width, image.height) <= limits.maxSide && image.width * image.height <= limits.maxPixels)
      } catch {
        refused += 1
        #expect(!error.description.isEmpty)
      }
    }
    #expect(refused > 500)
  }

  /// PNG has checksums: no damaged pixel gets through.
  @Test("are refused when any bit of a PNG's pixels is changed")
  func checksums() throws {
    let file = try Golden.file("rgb8.png")
    let data = try #require(file.indices.first { file[$0...].starts(with: "IDAT".utf8) })
    for place in (data + 4)..<(file.count - 12) {
      var damaged = file
      damaged[place] ^= 1
      #expect(throws: ImageFileError.self, "byte \(place)") { try ImageFile.decode(damaged) }
    }
  }
}
