/// A rectangle of an image in whole pixels.
public struct PixelRegion: Hashable, Sendable, Codable {
  /// The first column.
  public var left: Int
  /// The first row.
  public var top: Int
  /// The column after the last one.
  public var right: Int
  /// The row after the last one.
  public var bottom: Int

  /// The columns of `left..<right` in the rows of `top..<bottom`.
  public init(left: Int, top: Int, right: Int, bottom: Int) {
    (self.left, self.top, self.right, self.bottom) = (left, top, right, bottom)
  }
}

/// How an image of a request becomes one that a network takes: a part of it is cut out, and resized.
public struct ImagePreparation: Hashable, Sendable, Codable {
  /// What happens to proportions.
  public enum Fit: String, Sendable, Codable, CaseIterable {
    /// The image is stretched to the size.
    case stretch
    /// The image keeps its proportions within the size; the rest repeats its edges.
    case fill
  }

  /// The part that is used; nil: all of it.
  public var region: PixelRegion?
  /// The size afterwards.
  public var size: ImageSize
  /// What happens to proportions.
  public var fit: Fit

  /// See the properties.
  public init(size: ImageSize, region: PixelRegion? = nil, fit: Fit = .stretch) {
    self.size = size
    self.region = region
    self.fit = fit
  }
}

extension ImageSize {
  /// The size of about `area` pixels with these proportions, whose sides are multiples of `multiple` and at least that
  /// (diffusers `calculate_dimensions`).
  public func scaled(toArea area: Int, multiple: Int = 32) -> ImageSize {
    let ratio = Double(widthPx) / Double(heightPx)
    let width = (Double(area) * ratio).squareRoot(), height = width / ratio
    func rounded(_ side: Double) -> Int {
      // Half to even, as Python rounds; the most extreme proportions must not overflow.
      max(multiple, Int(min(side / Double(multiple), 1e6).rounded(.toNearestOrEven)) * multiple)
    }
    return ImageSize(widthPx: rounded(width), heightPx: rounded(height))
  }

  /// The largest size within this one whose sides are multiples of `multiple`, and at least that.
  public func floored(to multiple: Int) -> ImageSize {
    ImageSize(
      widthPx: max(multiple, widthPx / multiple * multiple), heightPx: max(multiple, heightPx / multiple * multiple))
  }
}

/// In which sizes networks see the images of a request that is to edit them.
public struct ReferenceAreas: Hashable, Sendable {
  /// Pixels of an image for the autoencoder, about.
  public var referencePx: Int
  /// Pixels of an image for the text encoder where it sees another one than the autoencoder, about.
  public var conditionPx: Int
  /// Most images that a prompt may speak of.
  public var maxCount: Int

  /// As published for layers: 640².
  public static let layered = ReferenceAreas(referencePx: 640 * 640, conditionPx: 640 * 640)

  /// As published: 1024² and 384².
  public static let published = ReferenceAreas(referencePx: 1024 * 1024, conditionPx: 384 * 384)

  /// See the properties.
  public init(referencePx: Int, conditionPx: Int, maxCount: Int = Self.standardMaxCount) {
    self.referencePx = referencePx
    self.conditionPx = conditionPx
    self.maxCount = maxCount
  }

  /// Images of models whose authors name no limit.
  public static let standardMaxCount = 16

  /// These areas with references of about `px`² pixels. A text encoder that sees what the autoencoder sees still does.
  public func with(outputResolutionPx px: Int?) -> ReferenceAreas {
    guard let px else { return self }
    return ReferenceAreas(
      referencePx: px * px, conditionPx: conditionPx == referencePx ? px * px : conditionPx, maxCount: maxCount)
  }

  /// The resolutions that requests may ask for, in pixels.
  public static let outputResolutionLimit = 32...8192
}
