import TensorCore

/// An image at twice its size without weights: every pixel of the result takes each of its channels from one channel of
/// the pixel that it repeats. Which one may depend on the place among the four repetitions.
public struct PixelRepetition: Sendable {
  /// Channels of the input.
  public let inChannels: Int
  /// Channels of the result.
  public let outChannels: Int
  /// The input's channel for each place (upper left, upper right, lower left, lower right) and channel of the result.
  fileprivate let sources: [Int32]

  /// - Parameter source: the input's channel for a channel of the result in row 2i + dy and column 2j + dx.
  public init(inChannels: Int, outChannels: Int, source: (_ channel: Int, _ dy: Int, _ dx: Int) -> Int) {
    self.inChannels = inChannels
    self.outChannels = outChannels
    sources = (0..<4).flatMap { place in
      (0..<outChannels).map { channel in
        let source = source(channel, place / 2, place % 2)
        precondition((0..<inChannels).contains(source), "channel \(source) of \(inChannels)")
        return Int32(source)
      }
    }
  }

  /// Adds one of the two rows that a row of `width` pixels becomes.
  fileprivate func add(
    _ source: UnsafePointer<Float>, width: Int, row: Int, to target: UnsafeMutablePointer<Float>
  ) {
    sources.withUnsafeBufferPointer { sources in
      for column in 0..<2 * width {
        let channels = sources.baseAddress! + (2 * row + column % 2) * outChannels
        let pixel = source + column / 2 * inChannels, result = target + column * outChannels
        for channel in 0..<outChannels { result[channel] += pixel[Int(channels[channel])] }
      }
    }
  }
}

/// An image at its size or half of it without weights: every channel of the result is the mean of some values of the
/// pixel, or of the two by two pixels, in its place.
public struct PixelMean: Sendable {
  /// A value of the pixels that are averaged.
  public struct Term: Sendable {
    /// Row and column among the pixels.
    public var dy: Int, dx: Int
    /// The input's channel.
    public var channel: Int

    /// The value of `channel` in row `dy`, column `dx`.
    public init(dy: Int, dx: Int, channel: Int) { (self.dy, self.dx, self.channel) = (dy, dx, channel) }
  }

  /// Channels of the input.
  public let inChannels: Int
  /// 1, or 2: the result is half as high and wide, rounded down.
  public let scale: Int
  /// What sums are divided by: values that are 0 wherever the image is count, but are no terms.
  public let divisor: Int
  fileprivate let terms: [Term]
  /// Where the terms of each channel of the result begin, and where the last ones end.
  fileprivate let starts: [Int]

  /// Channels of the result.
  public var outChannels: Int { starts.count - 1 }

  /// - Parameter terms: of each channel of the result, in the order in which they are added.
  public init(inChannels: Int, scale: Int, divisor: Int, terms: [[Term]]) {
    precondition((1...2).contains(scale) && divisor > 0, "scale \(scale), divisor \(divisor)")
    for term in terms.joined() {
      precondition(
        (0..<scale).contains(term.dy) && (0..<scale).contains(term.dx) && (0..<inChannels).contains(term.channel),
        "\(term) of \(inChannels) channels at scale \(scale)")
    }
    self.inChannels = inChannels
    self.scale = scale
    self.divisor = divisor
    self.terms = Array(terms.joined())
    starts = terms.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1.count) }
  }

  /// Adds a row of `width` pixels.
  ///
  /// - Parameter offsets: where the terms lie, from the pixel on, or from the upper left one of four.
  fileprivate func add(
    _ source: UnsafePointer<Float>, _ offsets: [Int], width: Int, to target: UnsafeMutablePointer<Float>
  ) {
    let divisor = Float(divisor)
    offsets.withUnsafeBufferPointer { offsets in
      starts.withUnsafeBufferPointer { starts in
        for column in 0..<width {
          let pixel = source + column * scale * inChannels, result = target + column * outChannels
          for channel in 0..<outChannels {
            var total: Float = 0
            for term in starts[channel]..<starts[channel + 1] { total += pixel[offsets[term]] }
            result[channel] += total / divisor
          }
        }
      }
    }
  }
}

extension Compute {
  /// Adds rows `rows` of x [H, W, in] at twice its size to those of an image [2H, 2W, out].
  public func add(_ x: ImageRows, _ shortcut: PixelRepetition, rows: Range<Int>, to sum: inout MutableImageRows) {
    let width = x.pixels.shape[1], first = sum.first
    let (sourceRow, targetRow) = (width * shortcut.inChannels, 2 * width * shortcut.outChannels)
    requireShortcut(
      x, shortcut.inChannels, rows: rows, needing: rows.lowerBound / 2..<(rows.upperBound + 1) / 2, to: sum,
      [2 * x.height, 2 * width, shortcut.outChannels])
    sum.pixels.write(reading: x.pixels) { out in
      parallelRows(rows.count, bytesPerRow: 4 * (sourceRow + targetRow)) { part in
        for row in rows.lowerBound + part.lowerBound..<rows.lowerBound + part.upperBound {
          shortcut.add(
            x.pixels.pointer((row / 2 - x.first) * sourceRow, count: sourceRow), width: width, row: row % 2,
            to: out.pointer((row - first) * targetRow, count: targetRow))
        }
      }
    }
  }

  /// Adds rows `rows` of the means of x [H, W, in] to those of an image [H / scale, W / scale, out].
  public func add(_ x: ImageRows, _ shortcut: PixelMean, rows: Range<Int>, to sum: inout MutableImageRows) {
    let scale = shortcut.scale, width = x.pixels.shape[1], first = sum.first
    let (sourceRow, targetRow) = (width * shortcut.inChannels, width / scale * shortcut.outChannels)
    requireShortcut(
      x, shortcut.inChannels, rows: rows, needing: scale * rows.lowerBound..<scale * rows.upperBound, to: sum,
      [x.height / scale, width / scale, shortcut.outChannels])
    let offsets = shortcut.terms.map { $0.dy * sourceRow + $0.dx * shortcut.inChannels + $0.channel }
    sum.pixels.write(reading: x.pixels) { out in
      parallelRows(rows.count, bytesPerRow: 4 * (scale * sourceRow + targetRow)) { part in
        for row in rows.lowerBound + part.lowerBound..<rows.lowerBound + part.upperBound {
          shortcut.add(
            x.pixels.pointer((scale * row - x.first) * sourceRow, count: scale * sourceRow), offsets,
            width: width / scale, to: out.pointer((row - first) * targetRow, count: targetRow))
        }
      }
    }
  }

  private func requireShortcut(
    _ x: ImageRows, _ inChannels: Int, rows: Range<Int>, needing needed: Range<Int>, to sum: borrowing MutableImageRows,
    _ result: Shape
  ) {
    let shape: Shape = [sum.height, sum.shape[1], sum.shape[2]], range = sum.range
    precondition(
      x.pixels.shape[2] == inChannels && shape == result,
      "a shortcut of \(x.pixels.shape), \(inChannels) channels, to \(shape) instead of \(result)")
    precondition(
      rows.isEmpty || x.range.contains(needed) && range.contains(rows), "rows \(rows) of \(range) from \(x.range)")
  }
}
