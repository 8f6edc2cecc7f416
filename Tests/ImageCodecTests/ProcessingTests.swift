import Foundation
import Hashing
import ImageCodec
import Testing

/// The operations of `make_processing.py`, with its names.
private struct Processing: Decodable {
  struct Case: Decodable {
    var operation: String
    var input: String
    var other: String?
    var mask: String?
    var filter: String?
    var width: Int?
    var height: Int?
    var area: [Float]?
    var region: [Int]?
    var left: Int?
    var top: Int?
    var radius: Double?
    var padding: Int?
    var result: Result?
  }

  struct Result: Decodable {
    var width: Int
    var height: Int
    var channels: Int
    var pixels: Data?
    /// Of the pixels, where they are many.
    var sha256: String?
  }

  var inputs: [String: Golden.Image]
  var cases: [Case]

  static let golden: Processing? = try? Golden.json("processing.json")
}

extension RasterImage.Region {
  fileprivate init(_ edges: [Int]) { self.init(left: edges[0], top: edges[1], right: edges[2], bottom: edges[3]) }
}

@Suite("Image processing") struct ProcessingTests {
  private static let filters: [String: ResamplingFilter] = [
    "nearest": .nearest, "box": .box, "bilinear": .bilinear, "bicubic": .bicubic, "lanczos": .lanczos,
  ]

  private static func result(_ golden: Processing.Case, _ images: [String: RasterImage]) throws -> RasterImage {
    let image = try #require(images[golden.input])
    let other = golden.other.flatMap { images[$0] }
    let mask = golden.mask.flatMap { images[$0] }
    func size() throws -> (width: Int, height: Int) { (try #require(golden.width), try #require(golden.height)) }
    switch golden.operation {
    case "resize":
      let filter = try #require(golden.filter.flatMap { filters[$0] })
      let area = golden.area.map { RasterImage.Area(left: $0[0], top: $0[1], right: $0[2], bottom: $0[3]) }
      return image.resized(width: try size().width, height: try size().height, filter: filter, from: area)
    case "blur": return image.gaussianBlurred(radius: try #require(golden.radius))
    case "overWhite": return image.overWhite
    case "rgb": return image.rgb
    case "rgba": return image.rgba
    case "luma": return image.luma
    case "alpha": return image.alpha
    case "invert": return image.inverted
    case "crop": return image.cropped(to: .init(try #require(golden.region)))
    case "paste":
      let place = (left: try #require(golden.left), top: try #require(golden.top))
      return image.pasting(try #require(other), left: place.left, top: place.top, mask: mask)
    case "alphaComposite": return image.alphaCompositing(try #require(other))
    case "fill": return image.resizedToFill(width: try size().width, height: try size().height)
    case "cover": return image.resizedToCover(width: try size().width, height: try size().height)
    case "overlay":
      return image.overlaid(
        on: try #require(other), mask: try #require(mask), region: golden.region.map { .init($0) })
    default: throw UnknownOperation(name: golden.operation)
    }
  }

  private struct UnknownOperation: Error { var name: String }

  @Test(
    "gives Pillow's pixels",
    arguments: [
      ("resize", 250), ("blur", 60), ("overWhite", 3), ("rgb", 4), ("rgba", 2), ("luma", 4), ("alpha", 3),
      ("invert", 1),
      ("crop", 12), ("paste", 20), ("alphaComposite", 2), ("fill", 11), ("cover", 11), ("overlay", 25),
    ])
  func pixels(operation: String, count: Int) throws {
    let golden = try #require(Processing.golden)
    let images = golden.inputs.mapValues(\.image)
    let cases = golden.cases.filter { $0.operation == operation }
    #expect(cases.count >= count)
    for golden in cases {
      let image = try Self.result(golden, images)
      let expected = try #require(golden.result)
      var described = golden
      described.result = nil
      let sizes = [image.width, image.height, image.channels]
      #expect(sizes == [expected.width, expected.height, expected.channels], "\(described)")
      if let pixels = expected.pixels {
        let wanted = Golden.Image(
          width: expected.width, height: expected.height, channels: expected.channels, pixels: pixels)
        #expect(image.difference(from: wanted.image) == 0, "\(described)")
      } else {
        #expect(hexadecimal(SHA256.hash(image.pixels)) == expected.sha256, "\(described)")
      }
    }
  }

  @Test("finds diffusers' region of a mask")
  func regions() throws {
    let golden = try #require(Processing.golden)
    let cases = golden.cases.filter { $0.operation == "region" }
    #expect(cases.count >= 15)
    for golden in cases {
      let mask = try #require(Processing.golden?.inputs[golden.input]).image
      let region = mask.maskRegion(
        forWidth: try #require(golden.width), height: try #require(golden.height),
        padding: try #require(golden.padding))
      #expect(region == .init(try #require(golden.region)), "\(golden)")
    }
    #expect(RasterImage(width: 4, height: 3, filledWith: [0]).maskRegion(forWidth: 8, height: 8, padding: 2) == nil)
  }

  @Test("of one colour keeps the colour", arguments: ResamplingFilter.allCases, [1, 3, 4])
  func constants(filter: ResamplingFilter, channels: Int) {
    var numbers = SeededNumbers(state: UInt64(channels))
    for _ in 0..<60 {
      // Half-transparent colours lose bits when they are multiplied by alpha.
      var colour = (0..<channels).map { _ in UInt8.random(in: 0...255, using: &numbers) }
      if channels == 4 { colour[3] = 255 }
      let size = (0..<4).map { _ in Int.random(in: 1...70, using: &numbers) }
      let image = RasterImage(width: size[0], height: size[1], filledWith: colour)
      let resized = image.resized(width: size[2], height: size[3], filter: filter)
      #expect(resized == RasterImage(width: size[2], height: size[3], filledWith: colour), "\(size) \(colour)")
    }
  }

  @Test("treats channels alike, whatever there are", arguments: ResamplingFilter.allCases)
  func channels(filter: ResamplingFilter) {
    var numbers = SeededNumbers(state: 5)
    for _ in 0..<20 {
      let size = (0..<4).map { _ in Int.random(in: 1...60, using: &numbers) }
      let grey = numbers.image(size[0], size[1], 1)
      let resized = grey.resized(width: size[2], height: size[3], filter: filter)
      #expect(grey.rgb.resized(width: size[2], height: size[3], filter: filter) == resized.rgb, "\(size)")
      #expect(grey.rgba.resized(width: size[2], height: size[3], filter: filter) == resized.rgba, "\(size)")
    }
  }

  @Test("mirrors with the image", arguments: [ResamplingFilter.box, .bilinear, .bicubic, .lanczos])
  func mirroring(filter: ResamplingFilter) {
    func mirrored(_ image: RasterImage) -> RasterImage {
      RasterImage(width: image.width, height: image.height, channels: 1, pixels: image.pixels.reversed())
    }
    var numbers = SeededNumbers(state: 6)
    for _ in 0..<20 {
      let image = numbers.image(33, 21, 1)
      // The same weights in the other order; sums of 32 bits do not depend on it. Sizes by which the edges of pixels
      // are exact numbers.
      for size in [(11, 7), (66, 42), (132, 84)] {
        let one = mirrored(image).resized(width: size.0, height: size.1, filter: filter)
        let other = mirrored(image.resized(width: size.0, height: size.1, filter: filter))
        #expect((one.difference(from: other) ?? 255) <= 1, "\(size)")
      }
    }
  }

  @Test("mixes with masks of 0 and 255 exactly")
  func masks() {
    var numbers = SeededNumbers(state: 7)
    let (below, above) = (numbers.image(19, 9, 4), numbers.image(19, 9, 4))
    let mask = numbers.image(19, 9, 1).binarised()
    #expect(Set(mask.pixels) == [0, 255])
    let mixed = below.pasting(above, left: 0, top: 0, mask: mask)
    for (place, value) in mask.pixels.enumerated() {
      let pixel = (4 * place)..<(4 * place + 4)
      let seen = value == 0 ? below : above
      #expect(Array(mixed.pixels[pixel]) == Array(seen.pixels[pixel]))
    }
    let thresholds: [UInt8] = [0, 127, 128, 255]
    let values = RasterImage(width: 4, height: 1, channels: 1, pixels: thresholds)
    #expect(values.binarised().pixels == [0, 0, 255, 255])
    #expect(values.binarised(threshold: 1).pixels == [0, 255, 255, 255])
  }

  @Test("pads to a canvas")
  func padding() {
    let image = RasterImage(width: 2, height: 1, channels: 3, pixels: [1, 2, 3, 4, 5, 6])
    let padded = image.padded(width: 3, height: 2, left: 1, top: 1, colour: [7, 8, 9])
    #expect(padded.pixels == [7, 8, 9, 7, 8, 9, 7, 8, 9, 7, 8, 9, 1, 2, 3, 4, 5, 6])
    #expect(padded.cropped(to: .init(left: 1, top: 1, right: 3, bottom: 2)) == image)
  }
}
