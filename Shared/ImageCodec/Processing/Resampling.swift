import CImageCodec

/// How pixels of another grid are made of those of the image.
public enum ResamplingFilter: Sendable, CaseIterable {
  /// The nearest pixel.
  case nearest
  /// The mean of the pixels that a pixel of the result covers.
  case box
  /// A triangle over two pixels.
  case bilinear
  /// Keys' cubic over four pixels, with a = -0.5.
  case bicubic
  /// A sinc over six pixels, windowed by its middle lobe.
  case lanczos

  fileprivate var code: resample_filter {
    switch self {
    case .nearest: RESAMPLE_NEAREST
    case .box: RESAMPLE_BOX
    case .bilinear: RESAMPLE_BILINEAR
    case .bicubic: RESAMPLE_BICUBIC
    case .lanczos: RESAMPLE_LANCZOS
    }
  }
}

extension RasterImage {
  /// A rectangle of an image in pixels, which may cut pixels and may have no area.
  public struct Area: Sendable, Equatable {
    /// Left edge, at least 0.
    public var left: Float
    /// Upper edge, at least 0.
    public var top: Float
    /// Right edge, not left of `left`.
    public var right: Float
    /// Lower edge, not above `top`.
    public var bottom: Float

    /// The rectangle between these edges.
    public init(left: Float, top: Float, right: Float, bottom: Float) {
      (self.left, self.top, self.right, self.bottom) = (left, top, right, bottom)
    }
  }

  /// The image at another size; bit for bit what `Image.resize` of Pillow 13 gives (12 and older differ in the last bit
  /// where the height shrinks by more than twice as many pixels as the width).
  ///
  /// Filters but ``ResamplingFilter/nearest`` are widened when the image shrinks (antialiasing), and weigh the colours
  /// of RGBA images by their alpha. An image that has the size already is returned as it is.
  ///
  /// - Parameters:
  ///   - width: of the result, at least 1.
  ///   - height: of the result, at least 1.
  ///   - area: the part that becomes the result; nil: all of it. It must lie within the image.
  public func resized(
    width: Int, height: Int, filter: ResamplingFilter, from area: Area? = nil
  ) -> RasterImage {
    precondition(width > 0 && height > 0, "an image of \(width)×\(height) pixels")
    let whole = Area(left: 0, top: 0, right: Float(self.width), bottom: Float(self.height))
    let area = area ?? whole
    precondition(
      0 <= area.left && area.left <= area.right && area.right <= whole.right && 0 <= area.top
        && area.top <= area.bottom && area.bottom <= whole.bottom, "\(area) is not within the image")
    if width == self.width, height == self.height, area == whole { return self }
    guard channels == 4, filter != .nearest else {
      return resampled(width: width, height: height, filter: filter, from: area)
    }
    return premultiplied.resampled(width: width, height: height, filter: filter, from: area).unpremultiplied
  }

  private func resampled(width: Int, height: Int, filter: ResamplingFilter, from area: Area) -> RasterImage {
    let size = image_size(width: CInt(width), height: CInt(height), channels: CInt(channels))
    let box = image_box(left: area.left, top: area.top, right: area.right, bottom: area.bottom)
    return RasterImage(width: width, height: height, channels: channels) {
      let status = image_resample(pixels, self.size, box, filter.code, size, $0)
      precondition(status == 0, "out of memory")
    }
  }
}
