import ClusterCore
import TensorCore

/// The grid of image tokens: one token covers a patch of latent pixels.
public struct TokenGrid: Sendable, Hashable {
  /// Rows of tokens.
  public let height: Int
  /// Columns of tokens.
  public let width: Int

  /// A grid of `height` × `width` tokens.
  public init(height: Int, width: Int) {
    self.height = height
    self.width = width
  }

  /// Number of tokens.
  public var tokenCount: Int { height * width }
}

extension LatentGeometry {
  /// The edge of a token, in pixels.
  public var tokenEdgePx: Int { downscale * patch }

  /// The grid of an image of `size`, whose sides are multiples of ``tokenEdgePx``.
  public func grid(of size: ImageSize) -> TokenGrid {
    TokenGrid(height: size.heightPx / tokenEdgePx, width: size.widthPx / tokenEdgePx)
  }
}

/// Conversion between latent planes and tokens (diffusers `_pack_latents`, `_unpack_latents`).
public enum LatentPacking {
  /// Planes [channels, patch·gh, patch·gw] → tokens [gh·gw, channels·patch²], each token ordered (channel, dy, dx).
  public static func pack(_ planes: Tensor, patch: Int) -> Tensor {
    let grid = TokenGrid(height: planes.shape[1] / patch, width: planes.shape[2] / patch)
    let channels = planes.shape[0]
    var tokens = MutableTensor(uninitialized: [grid.tokenCount, channels * patch * patch])
    planes.withElements(as: Float.self) { from in
      tokens.withElements(as: Float.self) { to in
        forEachElement(channels, grid, patch) { plane, token in to[token] = from[plane] }
      }
    }
    return tokens.finish()
  }

  /// Tokens [gh·gw, channels·patch²] → planes [channels, patch·gh, patch·gw].
  public static func unpack(_ tokens: Tensor, _ grid: TokenGrid, patch: Int) -> Tensor {
    precondition(tokens.shape[0] == grid.tokenCount, "\(tokens.shape[0]) tokens for a grid of \(grid.tokenCount)")
    let channels = tokens.shape[1] / (patch * patch)
    var planes = MutableTensor(uninitialized: [channels, grid.height * patch, grid.width * patch])
    tokens.withElements(as: Float.self) { from in
      planes.withElements(as: Float.self) { to in
        forEachElement(channels, grid, patch) { plane, token in to[plane] = from[token] }
      }
    }
    return planes.finish()
  }

  /// Calls `body` with every element's index in the planes and its index in the tokens.
  private static func forEachElement(
    _ channels: Int, _ grid: TokenGrid, _ patch: Int, _ body: (_ plane: Int, _ token: Int) -> Void
  ) {
    let (height, width) = (grid.height * patch, grid.width * patch)
    for channel in 0..<channels {
      for y in 0..<height {
        for x in 0..<width {
          let index = (y / patch) * grid.width + x / patch
          let lane = (channel * patch + y % patch) * patch + x % patch
          body((channel * height + y) * width + x, index * channels * patch * patch + lane)
        }
      }
    }
  }
}
