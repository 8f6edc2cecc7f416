import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import ImageCodec
import Kernels
import QwenImage
import TensorCore
import Testing

private let nano = golden.deletingLastPathComponent().deletingLastPathComponent().appending(
  path: "compose/models/nano-qwen-image")

struct PreviewMapTests {
  /// An image with areas of several colours.
  private static func image(_ edge: Int) -> RasterImage {
    var pixels: [UInt8] = []
    for y in 0..<edge {
      for x in 0..<edge {
        let (u, v) = (UInt8(x * 255 / edge), UInt8(y * 255 / edge))
        pixels += (x / 32 + y / 32) % 2 == 0 ? [u, 40, 200] : [230, v, 30]
      }
    }
    return RasterImage(width: edge, height: edge, pixels: pixels)
  }

  /// A codec whose latents are a linear function of colours is inverted exactly, whatever the patch.
  @Test(arguments: [1, 2]) func aLinearCodecIsInverted(patch: Int) throws {
    let geometry = LatentGeometry(channels: 5, downscale: 8, patch: patch)
    let map = try #require(PreviewMap(fitting: LinearCodec(), geometry))
    #expect(map.channels == 5 && map.side == 1)
    let image = Self.image(64), encoder = ImageEncoder(LinearCodec(), geometry)
    let shown = map.image(of: encoder.encode(image), TokenGrid(height: 8 / patch, width: 8 / patch), patch: patch)
    let expected = image.resized(width: 8, height: 8, filter: .box)
    #expect(shown.width == 8 && shown.height == 8)
    #expect(zip(shown.pixels, expected.pixels).allSatisfy { abs(Int($0) - Int($1)) <= 1 })
  }

  /// Latents of the layers behind the composite are left out.
  @Test func rowsBehindTheGridAreLeftOut() throws {
    let map = try #require(PreviewMap(weights: Tensor([1, 0, 0, 0, 0, 1], shape: [2, 1, 1, 3])))
    let shown = map.image(of: Tensor([0.5, 1, 0.25], shape: [3, 1]), TokenGrid(height: 1, width: 2), patch: 1)
    #expect(shown.pixels == [128, 0, 255, 255, 0, 255])
    #expect(PreviewMap(weights: Tensor([.nan, 0, 0, 0, 0, 1], shape: [2, 1, 1, 3])) == nil)
    #expect(PreviewMap(weights: Tensor([1, 0, 0, 0, 0, 1], shape: [6])) == nil)
  }

  /// The map of the small model shows what its images show.
  @Test func theSmallModelsLatentsLookLikeTheirImages() throws {
    let model = try ModelDirectory(nano), card = try model.card()
    let codec = try model.family.codec(of: model, pool: ThreadPool(threads: 2), parts: .encoder)
    let map = try #require(PreviewMap(fitting: codec, card.latents))
    let image = Self.image(128), grid = card.latents.grid(of: ImageSize(widthPx: 128, heightPx: 128))
    let shown = map.image(of: ImageEncoder(codec, card.latents).encode(image), grid, patch: card.latents.patch)
    let expected = image.resized(width: shown.width, height: shown.height, filter: .box)
    let differences = zip(shown.pixels, expected.pixels).map { Double($0) - Double($1) }
    let sumOfSquares: Double = differences.reduce(0) { $0 + $1 * $1 }
    let rootMeanSquare = (sumOfSquares / Double(differences.count)).squareRoot()
    #expect(rootMeanSquare < 40, "\(rootMeanSquare)")
  }
}

/// Five channels that mix the mean colours of 8×8 pixels.
private struct LinearCodec: LatentCodec {
  let numericsClass = "linear"
  private static let mix: [[Float]] = [[1, 0.5, 0.2], [-0.3, 1, 0], [0.1, -0.4, 1], [0.5, 0.5, 0.5], [0, 0, 0]]

  func decode(_ latents: Tensor, grid: TokenGrid, probe: Probe) -> Tensor { preconditionFailure("not used") }

  func encode(_ pixels: Tensor, noise: Tensor?, probe: Probe) -> Tensor {
    let (rows, columns) = (pixels.shape[0] / 8, pixels.shape[1] / 8), values = pixels.floats()
    var planes: [Float] = []
    for weights in Self.mix {
      for row in 0..<rows {
        for column in 0..<columns {
          var sum: Float = 0
          for pixel in 0..<64 {
            let start = ((row * 8 + pixel / 8) * pixels.shape[1] + column * 8 + pixel % 8) * 3
            for channel in 0..<3 { sum += weights[channel] * values[start + channel] / 64 }
          }
          planes.append(sum)
        }
      }
    }
    return Tensor(planes, shape: [Self.mix.count, rows, columns])
  }
}
