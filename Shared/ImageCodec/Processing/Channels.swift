import CImageCodec

// MARK: - Conversions, as Pillow's `convert` does them

extension RasterImage {
  /// Three channels: grey is repeated, alpha is dropped without looking at it.
  public var rgb: RasterImage { converted(toChannels: 3) }

  /// Four channels: what has no alpha is opaque.
  public var rgba: RasterImage { converted(toChannels: 4) }

  /// The image with one, three or four channels; what has no alpha is opaque, and alpha is dropped.
  public func converted(toChannels target: Int) -> RasterImage {
    guard channels != target else { return self }
    return RasterImage(width: width, height: height, channels: target) {
      image_convert(pixels, pixelCount, CInt(channels), CInt(target), $0)
    }
  }

  /// One channel: luma by ITU-R 601-2, (19595 R + 38470 G + 7471 B + 32768) / 65536 rounded down; alpha has no part in
  /// it.
  public var luma: RasterImage {
    guard channels > 1 else { return self }
    return RasterImage(width: width, height: height, channels: 1) {
      image_luma(pixels, pixelCount, CInt(channels), $0)
    }
  }

  /// The alpha channel as an image of one channel; 255 everywhere if there is none.
  public var alpha: RasterImage {
    guard channels == 4 else { return RasterImage(width: width, height: height, filledWith: [255]) }
    return RasterImage(width: width, height: height, channels: 1) { image_alpha(pixels, pixelCount, $0) }
  }

  /// RGB: the image over opaque white. For each channel c and alpha a: t = c·a + 255·(255 - a) + 128,
  /// (t + t / 256) / 256 rounded down.
  public var overWhite: RasterImage {
    guard channels == 4 else { return rgb }
    return RasterImage(width: width, height: height, channels: 3) { image_over_white(pixels, pixelCount, $0) }
  }

  /// RGBA with colours times alpha. Only for arithmetic: ``unpremultiplied`` does not bring everything back.
  var premultiplied: RasterImage {
    precondition(channels == 4, "\(channels) channels")
    return RasterImage(width: width, height: height, channels: 4) { image_premultiply(pixels, pixelCount, $0) }
  }

  /// RGBA with colours divided by alpha again; those under alpha 0 stay as they are.
  var unpremultiplied: RasterImage {
    precondition(channels == 4, "\(channels) channels")
    return RasterImage(width: width, height: height, channels: 4) { image_unpremultiply(pixels, pixelCount, $0) }
  }
}

// MARK: - Masks

extension RasterImage {
  /// The image as a mask of one channel, white where an image is made anew. In OpenAI's API that is what is
  /// transparent; in an image without transparency, what is white.
  public var asMask: RasterImage { hasTransparency ? alpha.inverted : luma }

  /// Whether any pixel is not opaque.
  public var hasTransparency: Bool { channels == 4 && alpha.pixels.contains { $0 < 255 } }

  /// 255 minus every value, alpha too.
  public var inverted: RasterImage {
    RasterImage(width: width, height: height, channels: channels, pixels: pixels.map { 255 - $0 })
  }

  /// 255 for values of at least `threshold`, else 0. The default is where a mask in [0, 1] is at least 0.5.
  public func binarised(threshold: UInt8 = 128) -> RasterImage {
    RasterImage(
      width: width, height: height, channels: channels, pixels: pixels.map { $0 >= threshold ? 255 : 0 })
  }

  /// The image blurred by a Gaussian of standard deviation `radius` in pixels, bit for bit what
  /// `ImageFilter.GaussianBlur` of Pillow 13 gives: three extended box blurs along the rows, three along the columns.
  ///
  /// - Parameter radius: 0, which changes nothing, to 65,536.
  public func gaussianBlurred(radius: Double) -> RasterImage {
    precondition((0...65536).contains(radius), "a blur of \(radius) pixels")
    guard Float(radius) > 0 else { return self }
    return changed {
      let status = image_gaussian_blur($0, size, Float(radius))
      precondition(status == 0, "out of memory")
    }
  }
}
