import Foundation
import ImageCodec
import Kernels
import TensorCore

/// How a vision tower cuts images into patches, and joins these to merged tokens.
public struct PatchGeometry: Sendable, Hashable {
  /// Pixels of a patch along each side.
  public var patchSize: Int
  /// Frames of a patch; an image counts as that many equal ones.
  public var temporalPatchSize: Int
  /// Patches of a merged token along each side.
  public var mergeSize: Int

  /// See the properties.
  public init(patchSize: Int, temporalPatchSize: Int, mergeSize: Int) {
    self.patchSize = patchSize
    self.temporalPatchSize = temporalPatchSize
    self.mergeSize = mergeSize
  }

  /// Colour channels of an image.
  public static let channels = 3

  /// Values of a patch: channels, frames, rows and columns.
  public var patchValues: Int { Self.channels * temporalPatchSize * patchSize * patchSize }
  /// Patches of a merged token.
  public var mergedPatches: Int { mergeSize * mergeSize }
  /// Pixels of a merged token along each side; sides of images are multiples of it.
  public var tokenEdgePx: Int { patchSize * mergeSize }

  /// Row and column of every patch, in the order in which the tower reads them: the patches of a merged token follow
  /// one another, merged tokens lie row by row.
  package func places(in grid: TokenGrid) -> [(row: Int, column: Int)] {
    (0..<grid.tokenCount).map { place(of: $0, in: grid) }
  }

  /// Row and column of a patch.
  fileprivate func place(of patch: Int, in grid: TokenGrid) -> (row: Int, column: Int) {
    let tokensPerRow = grid.width / mergeSize
    let (token, part) = patch.quotientAndRemainder(dividingBy: mergedPatches)
    return (
      token / tokensPerRow * mergeSize + part / mergeSize, token % tokensPerRow * mergeSize + part % mergeSize
    )
  }
}

/// An image as the vision tower reads it.
public struct PatchedImage: Sendable {
  /// [grid.tokenCount, channels × frames × rows × columns of a patch], fp32: the patches of a merged token follow one
  /// another, merged tokens lie row by row.
  public let patches: Tensor
  /// The grid of patches.
  public let grid: TokenGrid

  /// See the properties.
  public init(patches: Tensor, grid: TokenGrid) {
    self.patches = patches
    self.grid = grid
  }
}

/// Images → patches: size, resampling, normalisation and order (transformers `Qwen2VLImageProcessor`).
public struct ImagePreprocessor: Sendable {
  private let geometry: PatchGeometry
  private let processor: ImageProcessorConfiguration
  private let pool: ThreadPool
  /// What each value of a channel becomes, [channels × 256].
  private let normalised: [Float]

  /// The longest side may be this many times the shortest.
  static let aspectRatioMax = 200

  /// Prepares images for a tower.
  public init(geometry: PatchGeometry, processor: ImageProcessorConfiguration, pool: ThreadPool) {
    self.geometry = geometry
    self.processor = processor
    self.pool = pool
    normalised = (0..<PatchGeometry.channels).flatMap { channel in
      let mean = Float(processor.mean[channel]), deviation = Float(processor.standardDeviation[channel])
      return (0..<256).map { (Float(Double($0) * processor.rescaleFactor) - mean) / deviation }
    }
  }

  /// Refuses images that the reference refuses.
  ///
  /// - Parameter field: what the request calls the image, for errors.
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` for an image that is too narrow.
  public func check(_ image: RasterImage, field: String) throws(PipelineError) {
    let (width, height) = (image.width, image.height)
    guard max(width, height) <= Self.aspectRatioMax * min(width, height) else {
      throw .invalidRequest(
        field: field,
        reason: "is \(width)×\(height) pixels; the longer side may be at most \(Self.aspectRatioMax) times the shorter")
    }
  }

  /// The grid of patches of an image: sides rounded to merged tokens, the area within the configuration's limits.
  public func grid(ofWidth width: Int, height: Int) -> TokenGrid {
    let edge = Double(geometry.tokenEdgePx), sides = [Double(height), Double(width)]
    var tokens = sides.map { ($0 / edge).rounded(.toNearestOrEven) }
    let area = tokens[0] * tokens[1] * edge * edge, pixels = sides[0] * sides[1]
    if area > Double(processor.maxPixels) {
      let shrink = (pixels / Double(processor.maxPixels)).squareRoot()
      tokens = sides.map { max(($0 / shrink / edge).rounded(.down), 1) }
    } else if area < Double(processor.minPixels) {
      let growth = (Double(processor.minPixels) / pixels).squareRoot()
      tokens = sides.map { ($0 * growth / edge).rounded(.up) }
    }
    return TokenGrid(height: Int(tokens[0]) * geometry.mergeSize, width: Int(tokens[1]) * geometry.mergeSize)
  }

  /// The patches of an image.
  public func callAsFunction(_ image: RasterImage) -> PatchedImage {
    let grid = grid(ofWidth: image.width, height: image.height)
    let resized = image.rgb.resized(
      width: grid.width * geometry.patchSize, height: grid.height * geometry.patchSize, filter: .bicubic)
    let width = resized.width, pixels = resized.pixels, edge = geometry.patchSize
    let frames = geometry.temporalPatchSize, values = geometry.patchValues, piecePatches = 32
    let patches = pool.tensor(
      [grid.tokenCount, values], .fp32, of: Float.self, pieceElements: piecePatches * values
    ) { range, target in
      let source = pixels.span, table = normalised.span
      var place = 0
      for patch in range.lowerBound / values..<range.upperBound / values {
        let (row, column) = geometry.place(of: patch, in: grid)
        for channel in 0..<PatchGeometry.channels {
          for _ in 0..<frames {
            for y in 0..<edge {
              var at = 3 * ((row * edge + y) * width + column * edge) + channel
              for _ in 0..<edge {
                target[place] = table[channel << 8 + Int(source[at])]
                place += 1
                at += 3
              }
            }
          }
        }
      }
    }
    return PatchedImage(patches: patches, grid: grid)
  }
}
