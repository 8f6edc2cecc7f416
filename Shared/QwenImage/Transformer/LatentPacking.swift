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

/// Conversion between latent planes and tokens (diffusers `_pack_latents`, `_unpack_latents`).
public enum LatentPacking {
  /// Edge of a patch, in latent pixels.
  public static let patch = 2

  /// Planes [channels, 2·gh, 2·gw] → tokens [gh·gw, channels·4], each token ordered (channel, dy, dx).
  public static func pack(_ planes: Tensor) -> Tensor {
    let grid = TokenGrid(height: planes.shape[1] / patch, width: planes.shape[2] / patch)
    let tokens = Tensor(uninitialized: [grid.tokenCount, planes.shape[0] * patch * patch])
    move(planes: planes, tokens: tokens, grid) { plane, token in token.pointee = plane.pointee }
    return tokens
  }

  /// Tokens [gh·gw, channels·4] → planes [channels, 2·gh, 2·gw].
  public static func unpack(_ tokens: Tensor, _ grid: TokenGrid) -> Tensor {
    precondition(tokens.shape[0] == grid.tokenCount, "\(tokens.shape[0]) tokens for a grid of \(grid.tokenCount)")
    let planes = Tensor(uninitialized: [tokens.shape[1] / (patch * patch), grid.height * patch, grid.width * patch])
    move(planes: planes, tokens: tokens, grid) { plane, token in plane.pointee = token.pointee }
    return planes
  }

  private static func move(
    planes: Tensor, tokens: Tensor, _ grid: TokenGrid, _ assign: (UnsafeMutablePointer<Float>, UnsafeMutablePointer<Float>) -> Void
  ) {
    let (channels, height, width) = (planes.shape[0], planes.shape[1], planes.shape[2])
    withExtendedLifetime((planes, tokens)) {
      let (plane, token) = (planes.pointer(as: Float.self), tokens.pointer(as: Float.self))
      for channel in 0..<channels {
        for y in 0..<height {
          for x in 0..<width {
            let index = (y / patch) * grid.width + x / patch
            let lane = (channel * patch + y % patch) * patch + x % patch
            assign(plane + (channel * height + y) * width + x, token + index * channels * patch * patch + lane)
          }
        }
      }
    }
  }
}
