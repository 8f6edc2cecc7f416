import ClusterCore
import ImageCodec
import TensorCore

/// Latents → a small RGB image, for previews while an image is denoised: every channel of a pixel is a linear function
/// of the channels of one latent element.
public struct PreviewMap: Sendable {
  /// Pixels of the image that a pixel of a preview stands for along one side, if latents allow it.
  private static let pixelEdgePx = 8

  /// [channels + 1, side, side, 3]: what an element's channels, and 1, contribute to its `side`² pixels, of which 0 is
  /// black and 1 is white.
  public let weights: Tensor
  /// Channels of a latent element.
  public var channels: Int { weights.shape[0] - 1 }
  /// Pixels of a latent element along one side.
  public var side: Int { weights.shape[1] }

  /// - Parameter weights: fp32 [channels + 1, side, side, 3].
  /// - Returns: nil for another shape or type, or numbers that are not finite.
  public init?(weights: Tensor) {
    let shape = weights.shape.dimensions
    guard weights.dtype == .fp32, shape.count == 4, shape[0] > 1, (1...8).contains(shape[1]), shape[1] == shape[2],
      shape[3] == 3, weights.floats().allSatisfy(\.isFinite)
    else { return nil }
    self.weights = weights
  }

  /// Fits a codec: the map that comes closest, in the mean square over all pixels, to the images that its encoder was
  /// given.
  ///
  /// - Parameters:
  ///   - codec: loaded with its encoder.
  ///   - geometry: the shape of its latents.
  ///   - images: whose sides are multiples of a token's edge.
  /// - Returns: nil when the images do not determine a map.
  public init?(fitting codec: any LatentCodec, _ geometry: LatentGeometry, to images: [RasterImage]) {
    let side = max(1, geometry.downscale / Self.pixelEdgePx), inputs = geometry.channels + 1
    var fit = LeastSquares(inputs: inputs, outputs: side * side * 3)
    for image in images {
      let latents = codec.encode(
        Tensor(pixels: image.converted(toChannels: codec.imageChannels)), noise: nil, probe: .none)
      let (rows, columns) = (latents.shape[1], latents.shape[2]), values = latents.floats()
      let pixels = image.converted(toChannels: 3).resized(
        width: columns * side, height: rows * side, filter: .box
      ).pixels
      for row in 0..<rows {
        for column in 0..<columns {
          let element = (0..<geometry.channels).map { Double(values[($0 * rows + row) * columns + column]) } + [1]
          var block: [Double] = []
          for y in 0..<side {
            let start = ((row * side + y) * columns + column) * side * 3
            block += pixels[start..<start + side * 3].map { Double($0) / 255 }
          }
          fit.add(element, block)
        }
      }
    }
    guard let solution = fit.solution() else { return nil }
    self.init(weights: Tensor(solution.map { Float($0) }, shape: [inputs, side, side, 3]))
  }

  /// What packed latents without noise show.
  ///
  /// - Parameters:
  ///   - tokens: [grid, channels · patch²], fp32; with rows behind those of the grid, which are left out.
  ///   - grid: how the tokens lie in the image.
  ///   - patch: latent elements of a token along one side.
  /// - Returns: `side` pixels for each latent element along each side.
  public func image(of tokens: Tensor, _ grid: TokenGrid, patch: Int) -> RasterImage {
    precondition(tokens.shape[1] == channels * patch * patch, "\(tokens.shape) for \(channels) channels")
    let (side, lanes) = (side, patch * patch), pixelsOfToken = patch * side
    let width = grid.width * pixelsOfToken
    var pixels = [UInt8](repeating: 0, count: grid.height * pixelsOfToken * width * 3)
    weights.withElements(as: Float.self) { weights in
      tokens.withElements(as: Float.self) { tokens in
        var block = [Float](repeating: 0, count: side * side * 3)
        for element in 0..<grid.tokenCount * lanes {
          let (token, lane) = (element / lanes, element % lanes)
          for output in block.indices {
            var sum = weights[channels * block.count + output]
            for channel in 0..<channels {
              sum += weights[channel * block.count + output] * tokens[(token * channels + channel) * lanes + lane]
            }
            block[output] = sum
          }
          let top = (token / grid.width) * pixelsOfToken + lane / patch * side
          let left = (token % grid.width) * pixelsOfToken + lane % patch * side
          for output in block.indices {
            let (y, rest) = (output / (side * 3), output % (side * 3))
            pixels[((top + y) * width + left) * 3 + rest] = UInt8(min(max(block[output] * 255 + 0.5, 0), 255))
          }
        }
      }
    }
    return RasterImage(width: width, height: grid.height * pixelsOfToken, pixels: pixels)
  }
}

/// Linear least squares with several outputs, by the normal equations.
private struct LeastSquares {
  /// What the diagonal is raised by, relative to its mean: channels that say nothing get no weight.
  private static let ridge = 1e-6

  private let inputs: Int
  private let outputs: Int
  /// Σ xᵀx and, behind it in each row, Σ xᵀy.
  private var rows: [[Double]]

  init(inputs: Int, outputs: Int) {
    self.inputs = inputs
    self.outputs = outputs
    rows = Array(repeating: Array(repeating: 0, count: inputs + outputs), count: inputs)
  }

  mutating func add(_ x: [Double], _ y: [Double]) {
    let sample = x + y
    for row in 0..<inputs {
      for column in sample.indices { rows[row][column] += x[row] * sample[column] }
    }
  }

  /// [inputs · outputs]; nil: the equations have no single solution.
  func solution() -> [Double]? {
    var rows = rows
    let ridge = Self.ridge * (0..<inputs).reduce(0) { $0 + rows[$1][$1] } / Double(inputs)
    for row in 0..<inputs { rows[row][row] += ridge }
    for pivot in 0..<inputs {
      let best = (pivot..<inputs).max { abs(rows[$0][pivot]) < abs(rows[$1][pivot]) } ?? pivot
      rows.swapAt(pivot, best)
      guard rows[pivot][pivot].isFinite, abs(rows[pivot][pivot]) > 0 else { return nil }
      for row in 0..<inputs where row != pivot {
        let factor = rows[row][pivot] / rows[pivot][pivot]
        for column in pivot..<inputs + outputs { rows[row][column] -= factor * rows[pivot][column] }
      }
    }
    return (0..<inputs).flatMap { row in rows[row][inputs...].map { $0 / rows[row][row] } }
  }
}
