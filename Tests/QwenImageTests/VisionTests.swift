import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import ImageCodec
import Kernels
import QwenImage
import TensorCore
import Testing
import Weights

/// The vision tower and what prepares images for it.
@Suite struct VisionTests {
  private static func tiny(_ precision: Precision, threads: Int = 2) throws -> VisionTower {
    let model = try ModelDirectory(Golden.editCheckpoint)
    return try VisionTower(
      model.weights(of: .textEncoder), configuration: try #require(model.qwenImage.vision),
      compute: Compute(precision: precision, pool: ThreadPool(threads: threads)))
  }

  private static let grids: [String: [TokenGrid]] = {
    let names = ["2x18", "18x2", "8x8", "16x16", "2x2", "10x22", "6x10+2x2+12x4"]
    return Dictionary(
      uniqueKeysWithValues: names.map { name in
        let grids = name.split(separator: "+").map { part in
          let sides = part.split(separator: "x").map { Int($0)! }
          return TokenGrid(height: sides[0], width: sides[1])
        }
        return (name, grids)
      })
  }()

  /// The input of Tests/Golden/make_vision.py.
  private static func images(_ name: String, _ grids: [TokenGrid]) -> [PatchedImage] {
    let count = grids.reduce(0) { $0 + $1.tokenCount }
    let values = SyntheticWeights.uniforms("input.pixels.\(name)", count: count * 1176).map { Float(1.7 * Double($0)) }
    let patches = Tensor(values, shape: [count, 1176])
    var first = 0
    return grids.map { grid in
      defer { first += grid.tokenCount }
      return PatchedImage(patches: patches.rows(first..<first + grid.tokenCount), grid: grid)
    }
  }

  /// One row or column of tokens, whole windows only, smaller ones at the edges, one token, several images.
  @Test(arguments: grids.keys.sorted()) func imagesOfAnyShape(_ name: String) throws {
    let grids = try #require(Self.grids[name]), images = Self.images(name, grids)
    let reference = try ReferenceTensors(Golden.reference("vision_grids.safetensors"))
    let expected = try reference.floats("\(name).rows")
    let rows = try Self.tiny(.fp32)(images)
    #expect(rows.map(\.shape) == grids.map { [$0.tokenCount / 4, 64] })
    #expect(relativeError(rows.flatMap { $0.floats() }, expected) < 1e-5)
    for (precision, limit) in [(Precision.bf16, 0.02), (.int8, 0.02), (.q4, 0.02)] {
      let tower = try Self.tiny(precision), rows = tower(images).map { $0.floats() }
      #expect(relativeError(rows.flatMap { $0 }, expected) < limit, "\(precision)")
      #expect(try Self.tiny(precision, threads: 5)(images).map { $0.floats() } == rows, "threads at \(precision)")
      #expect(images.map { tower([$0])[0].floats() } == rows, "alone at \(precision)")
    }
    #expect(try Self.tiny(.fp32)([]).isEmpty)
  }

  // MARK: - Preprocessing

  private static func preprocessor(
    _ change: (inout ImageProcessorConfiguration) -> Void = { _ in }
  ) -> ImagePreprocessor {
    var configuration = ImageProcessorConfiguration.published
    change(&configuration)
    return ImagePreprocessor(vision: .published, processor: configuration, pool: ThreadPool(threads: 2))
  }

  /// Width and height of images and what `smart_resize` of transformers makes of them.
  @Test(arguments: [
    (1024, 1024, 1036, 1036), (384, 384, 392, 392), (160, 128, 168, 140), (42, 70, 56, 56), (14, 2800, 28, 812),
    (42, 98, 56, 112), (1, 1, 56, 56), (13, 100, 28, 168), (5000, 4000, 4004, 3192), (28, 5600, 28, 5600),
    (3584, 3584, 3584, 3584), (3598, 3570, 3584, 3584),
  ])
  func sizesAreRoundedToMergedTokens(_ width: Int, _ height: Int, _ expectedWidth: Int, _ expectedHeight: Int) {
    let grid = Self.preprocessor().grid(ofWidth: width, height: height)
    #expect(grid == TokenGrid(height: expectedHeight / 14, width: expectedWidth / 14), "\(width)×\(height)")
  }

  @Test func limitsOfPixelsCount() {
    let small = Self.preprocessor { $0.maxPixels = 100_000 }, large = Self.preprocessor { $0.minPixels = 1_000_000 }
    #expect(small.grid(ofWidth: 1024, height: 1024) == TokenGrid(height: 22, width: 22))
    #expect(large.grid(ofWidth: 100, height: 100) == TokenGrid(height: 72, width: 72))
    let tiny = Self.preprocessor {
      $0.minPixels = 1
      $0.maxPixels = 784
    }
    #expect(tiny.grid(ofWidth: 900, height: 9) == TokenGrid(height: 2, width: 2))
  }

  @Test func narrowImagesAreRefused() throws {
    let preprocessor = Self.preprocessor()
    try preprocessor.check(RasterImage(width: 200, height: 1, pixels: Array(repeating: 0, count: 600)), field: "image")
    let error = #expect(throws: PipelineError.self) {
      try preprocessor.check(
        RasterImage(width: 1, height: 201, pixels: Array(repeating: 0, count: 603)), field: "image")
    }
    #expect(error?.description == "image is 1×201 pixels; the longer side may be at most 200 times the shorter")
  }

  /// Digests of images that Pillow 13.0.0 resized (`Image.resize(size, Image.BICUBIC)`), as the patches show them:
  /// FNV-1a of their bytes. Larger, smaller, and both.
  @Test(arguments: [
    (37, 23, 0xd24e_2ff6_a8e7_f6de), (200, 150, 0xc956_e3bf_bf7a_e91c), (61, 97, 0xa48f_b045_91d7_1865),
    (130, 40, 0xe5cb_2a55_165f_a3ff), (84, 56, 0xb361_ae06_d9fe_f165),
  ])
  func resamplingIsPillows(_ width: Int, _ height: Int, _ digest: UInt64) {
    let preprocessor = Self.preprocessor {
      $0.maxPixels = 9000
      $0.rescaleFactor = 1
      $0.mean = [0, 0, 0]
      $0.standardDeviation = [1, 1, 1]
    }
    let pixels = (0..<width * height * 3).map { UInt8(truncatingIfNeeded: $0 * $0 / 7 + $0 * 13) }
    let image = preprocessor(RasterImage(width: width, height: height, pixels: pixels))
    var bytes = [UInt8](repeating: 0, count: image.grid.tokenCount * 196 * 3)
    let values = image.patches.floats(), rowPixels = image.grid.width * 14
    for index in values.indices {
      let (patch, place) = index.quotientAndRemainder(dividingBy: 1176), (token, part) = (patch / 4, patch % 4)
      let row = (token / (image.grid.width / 2) * 2 + part / 2) * 14 + place % 196 / 14
      let column = (token % (image.grid.width / 2) * 2 + part % 2) * 14 + place % 14
      bytes[(row * rowPixels + column) * 3 + place / 392] = UInt8(values[index])
    }
    let found = bytes.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    #expect(found == digest, "\(rowPixels)×\(image.grid.height * 14)")
  }

  /// Alpha is dropped and grey counts three times, as Pillow's `convert("RGB")` has it.
  @Test func alphaIsDropped() {
    let pixels = (0..<40 * 30 * 3).map { UInt8($0 % 251) }
    var withAlpha: [UInt8] = []
    for pixel in 0..<40 * 30 {
      withAlpha += pixels[3 * pixel..<3 * pixel + 3]
      withAlpha.append(UInt8(pixel % 256))
    }
    let preprocessor = Self.preprocessor(), plain = preprocessor(RasterImage(width: 40, height: 30, pixels: pixels))
    let other = preprocessor(RasterImage(width: 40, height: 30, channels: 4, pixels: withAlpha))
    #expect(plain.patches.floats() == other.patches.floats())
  }
}

extension Golden {
  static let editCheckpoint = golden.appending(path: "tiny/checkpoint-edit")
}
