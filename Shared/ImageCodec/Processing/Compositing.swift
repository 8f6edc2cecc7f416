import CImageCodec

extension RasterImage {
  /// A rectangle of whole pixels, which may reach beyond an image.
  public struct Region: Sendable, Equatable {
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

    /// Columns.
    public var width: Int { right - left }
    /// Rows.
    public var height: Int { bottom - top }
  }

  /// The part of the image in `region`, which must not be empty; 0 in all channels where it reaches beyond the image.
  public func cropped(to region: Region) -> RasterImage {
    precondition(region.width > 0 && region.height > 0, "\(region) is empty")
    let black = RasterImage(
      width: region.width, height: region.height, filledWith: [UInt8](repeating: 0, count: channels))
    return black.pasting(self, left: -region.left, top: -region.top)
  }

  /// The image with another one on top of it: what reaches beyond this image is cut off.
  ///
  /// - Parameters:
  ///   - image: has the same number of channels.
  ///   - left: the column of its first column; may be negative.
  ///   - top: the row of its first row; may be negative.
  ///   - mask: one channel, the size of `image`: how much of it is seen, from 0 (nothing) to 255 (all of it). All
  ///     channels are mixed alike, alpha too. nil: all of it is seen, and replaces what was there.
  public func pasting(_ image: RasterImage, left: Int, top: Int, mask: RasterImage? = nil) -> RasterImage {
    precondition(image.channels == channels, "\(image.channels) channels on \(channels)")
    if let mask {
      precondition(
        mask.channels == 1 && mask.width == image.width && mask.height == image.height,
        "a mask of \(mask.width)×\(mask.height)×\(mask.channels) for \(image.width)×\(image.height)")
    }
    let columns = max(0, left)..<max(max(0, left), min(width, left + image.width))
    let rows = max(0, top)..<max(max(0, top), min(height, top + image.height))
    guard !columns.isEmpty, !rows.isEmpty else { return self }
    return changed { target in
      image.pixels.withUnsafeBufferPointer { source in
        for row in rows {
          let place = target + (row * width + columns.lowerBound) * channels
          let pixel = (row - top) * image.width + columns.lowerBound - left
          let line = source.baseAddress! + pixel * channels
          if let mask {
            mask.pixels.withUnsafeBufferPointer {
              image_blend(place, line, $0.baseAddress! + pixel, Int64(columns.count), CInt(channels))
            }
          } else {
            place.update(from: line, count: columns.count * channels)
          }
        }
      }
    }
  }

  /// The image on a canvas of another size, such as for a letterbox.
  ///
  /// - Parameters:
  ///   - left: the column of the canvas where the image begins; may be negative.
  ///   - top: the row of the canvas where the image begins; may be negative.
  ///   - colour: of the rest, a value for each of the image's channels.
  public func padded(width: Int, height: Int, left: Int, top: Int, colour: [UInt8]) -> RasterImage {
    RasterImage(width: width, height: height, filledWith: colour).pasting(self, left: left, top: top)
  }

  /// RGBA over RGBA of the same size, as Pillow's `alpha_composite` does it.
  public func alphaCompositing(_ top: RasterImage) -> RasterImage {
    precondition(
      channels == 4 && top.channels == 4 && width == top.width && height == top.height,
      "\(top.width)×\(top.height)×\(top.channels) over \(width)×\(height)×\(channels)")
    return changed { image_alpha_composite($0, top.pixels, pixelCount) }
  }
}
