import Foundation
import ImageCodec
import Testing

@Suite("Image files") struct ImageFileTests {
  private static let expected: [String: Golden.Image] = (try? Golden.json("files.json")) ?? [:]

  @Test("decode to Pillow's pixels", arguments: ImageFileFormat.allCases)
  func pixels(format: ImageFileFormat) throws {
    let suffix = [.png: ".png", .jpeg: ".jpg", .webp: ".webp"][format]!
    let names = Self.expected.keys.filter { $0.hasSuffix(suffix) }.sorted()
    #expect(names.count >= 15)
    for name in names {
      let file = try Golden.file(name)
      let golden = try #require(Self.expected[name])
      let image = try ImageFile.decode(file)
      let difference = image.difference(from: golden.image)
      #expect(difference.map { $0 <= golden.tolerance ?? 0 } == true, "\(name): \(String(describing: difference))")
      let header = try ImageFile.header(of: file)
      #expect(header.format == format && header.width == image.width && header.height == image.height, "\(name)")
    }
  }
}
