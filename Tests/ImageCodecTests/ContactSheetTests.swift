import ImageCodec
import Testing

/// Many images on one.
@Suite("Contact sheets") struct ContactSheetTests {
  private static let grey: [UInt8] = [238, 238, 238]

  private static func pixel(_ image: RasterImage, _ column: Int, _ row: Int) -> [UInt8] {
    Array(image.pixels[((row * image.width + column) * 3)..<((row * image.width + column) * 3 + 3)])
  }

  @Test func imagesLieInTheirCellsWithTheirProportions() {
    var sheet = ContactSheet(count: 3, cell: 16)
    #expect(sheet.columns == 2 && sheet.rows == 2 && sheet.cell == 16)
    sheet.place(RasterImage(width: 64, height: 32, filledWith: [255, 0, 0]), at: 0)
    sheet.place(RasterImage(width: 4, height: 8, filledWith: [0, 0, 255]), at: 1)
    sheet.place(RasterImage(width: 1, height: 1, filledWith: [0, 0, 0, 0]), at: 2)
    let image = sheet.image
    #expect(image.width == 44 && image.height == 44)
    // A wide image has bands above and below, a tall one beside it.
    #expect(Self.pixel(image, 4, 7) == Self.grey && Self.pixel(image, 4, 8) == [255, 0, 0])
    #expect(Self.pixel(image, 19, 15) == [255, 0, 0] && Self.pixel(image, 19, 16) == Self.grey)
    #expect(Self.pixel(image, 27, 4) == Self.grey && Self.pixel(image, 28, 4) == [0, 0, 255])
    #expect(Self.pixel(image, 35, 19) == [0, 0, 255] && Self.pixel(image, 36, 19) == Self.grey)
    // Transparency shows white, an empty cell nothing.
    #expect(Self.pixel(image, 4, 24) == [255, 255, 255] && Self.pixel(image, 30, 30) == Self.grey)
  }

  @Test(arguments: [(1, 1), (2, 2), (4, 2), (5, 3), (10_000, 100)]) func sheetsAreBounded(count: Int, columns: Int) {
    let sheet = ContactSheet(count: count, cell: 1024), image = sheet.image
    #expect(sheet.columns == columns && sheet.columns * sheet.rows >= count)
    #expect(sheet.cell >= 36 && max(image.width, image.height) <= ContactSheet.maxSide)
    #expect(ContactSheet.fits(count: 10_000) && !ContactSheet.fits(count: 1_000_000))
  }
}
