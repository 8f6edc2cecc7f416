// The ways in which diffusers' image processor makes an image fit a size, and brings an inpainted part back.

extension RasterImage {
  /// The image at the largest size with its own proportions that lies within `width` × `height`, in the middle; the
  /// bands beside it repeat its outermost columns or rows. RGB, or grey if the image is.
  ///
  /// A side that would have no pixels gets one.
  public func resizedToFill(width: Int, height: Int, filter: ResamplingFilter = .lanczos) -> RasterImage {
    let isWider = isWider(than: width, height)
    let isNarrower = isNarrower(than: width, height)
    let size = (
      width: isWider ? width : max(1, self.width * height / self.height),
      height: isWider ? max(1, self.height * width / self.width) : height
    )
    let resized = resized(width: size.width, height: size.height, filter: filter)
    let left = width / 2 - size.width / 2
    let top = height / 2 - size.height / 2
    var result = Self.canvas(width: width, height: height, for: self).pasting(resized.opaque, left: left, top: top)
    let (right, bottom) = (Float(size.width), Float(size.height))
    if isWider, top > 0 {
      for (edge, row) in [(Float(0), 0), (bottom, top + size.height)] {
        let area = Area(left: 0, top: edge, right: Float(width), bottom: edge)
        let band = resized.resized(width: width, height: top, filter: .bicubic, from: area)
        result = result.pasting(band.opaque, left: 0, top: row)
      }
    }
    if isNarrower, left > 0 {
      for (edge, column) in [(Float(0), 0), (right, left + size.width)] {
        let area = Area(left: edge, top: 0, right: edge, bottom: Float(height))
        let band = resized.resized(width: left, height: height, filter: .bicubic, from: area)
        result = result.pasting(band.opaque, left: column, top: 0)
      }
    }
    return result
  }

  /// The image at the smallest size with its own proportions that covers `width` × `height`, and the middle of it.
  /// RGB, or grey if the image is.
  public func resizedToCover(width: Int, height: Int, filter: ResamplingFilter = .lanczos) -> RasterImage {
    let isNarrower = isNarrower(than: width, height)
    let size = (
      width: isNarrower ? width : max(1, self.width * height / self.height),
      height: isNarrower ? max(1, self.height * width / self.width) : height
    )
    let resized = resized(width: size.width, height: size.height, filter: filter)
    return Self.canvas(width: width, height: height, for: self)
      .pasting(resized.opaque, left: width / 2 - size.width / 2, top: height / 2 - size.height / 2)
  }

  // The reference compares quotients, which round.
  private func isWider(than width: Int, _ height: Int) -> Bool {
    Double(width) / Double(height) < Double(self.width) / Double(self.height)
  }

  private func isNarrower(than width: Int, _ height: Int) -> Bool {
    Double(width) / Double(height) > Double(self.width) / Double(self.height)
  }

  private static func canvas(width: Int, height: Int, for image: RasterImage) -> RasterImage {
    RasterImage(width: width, height: height, filledWith: [UInt8](repeating: 0, count: image.channels == 1 ? 1 : 3))
  }

  /// Without alpha.
  private var opaque: RasterImage { channels == 4 ? rgb : self }
}

// MARK: - Inpainting a part

extension RasterImage {
  /// The smallest region that holds everything of a mask that is not 0, made larger by `padding` on all sides and then
  /// in one direction, so that it has the proportions of `width` × `height` as far as the mask's size allows.
  ///
  /// - Parameter padding: at least 0.
  /// - Returns: nil when all of the mask is 0.
  public func maskRegion(forWidth width: Int, height: Int, padding: Int) -> Region? {
    precondition(channels == 1, "a mask of \(channels) channels")
    precondition(width > 0 && height > 0 && padding >= 0, "\(width)×\(height) with \(padding) around")
    guard var region = nonZeroRegion else { return nil }
    region.left = max(region.left - padding, 0)
    region.top = max(region.top - padding, 0)
    region.right = min(region.right + padding, self.width)
    region.bottom = min(region.bottom + padding, self.height)
    let ratio = Double(width) / Double(height)
    if Double(region.width) / Double(region.height) > ratio {
      let added = Int(Double(region.width) / ratio - Double(region.height))
      (region.top, region.bottom) = Self.grown(region.top..<region.bottom, by: added, within: self.height)
    } else {
      let added = Int(Double(region.height) * ratio - Double(region.width))
      (region.left, region.right) = Self.grown(region.left..<region.right, by: added, within: self.width)
    }
    return region
  }

  /// The columns and rows that hold something else than 0; nil: there is nothing.
  private var nonZeroRegion: Region? {
    var region = Region(left: width, top: height, right: 0, bottom: 0)
    for row in 0..<height {
      let line = pixels[(row * width)..<((row + 1) * width)]
      guard let first = line.firstIndex(where: { $0 != 0 }), let last = line.lastIndex(where: { $0 != 0 }) else {
        continue
      }
      region.left = min(region.left, first - line.startIndex)
      region.right = max(region.right, last - line.startIndex + 1)
      region.top = min(region.top, row)
      region.bottom = row + 1
    }
    return region.bottom == 0 ? nil : region
  }

  /// Half of `added` before, half after, moved to where there is space, and cut where there is none.
  private static func grown(_ range: Range<Int>, by added: Int, within limit: Int) -> (Int, Int) {
    let before = added >> 1
    var (lower, upper) = (range.lowerBound - before, range.upperBound + added - before)
    let beyond = max(0, upper - limit)
    (lower, upper) = (lower - beyond, upper - beyond)
    let missing = max(0, -lower)
    (lower, upper) = (lower + missing, upper + missing)
    return (lower, min(upper, limit))
  }

  /// RGB: an inpainted image with the original on top of it where the mask is 0, mixed where it is between 0 and 255.
  ///
  /// - Parameters:
  ///   - original: what was inpainted.
  ///   - mask: one channel, of the original's size; 255: what was inpainted is seen.
  ///   - region: the part of the original that this image replaces, which is made to fit it; nil: the image has the
  ///     original's size.
  public func overlaid(on original: RasterImage, mask: RasterImage, region: Region? = nil) -> RasterImage {
    let (width, height) = (original.width, original.height)
    let kept = RasterImage(width: width, height: height, filledWith: [0, 0, 0, 0])
      .pasting(original.rgba.premultiplied, left: 0, top: 0, mask: mask.inverted).unpremultiplied
    var inpainted = rgb
    if let region {
      let part = resizedToCover(width: region.width, height: region.height).rgb
      inpainted = RasterImage(width: width, height: height, filledWith: [0, 0, 0])
        .pasting(part, left: region.left, top: region.top)
    }
    return inpainted.rgba.alphaCompositing(kept).rgb
  }
}
