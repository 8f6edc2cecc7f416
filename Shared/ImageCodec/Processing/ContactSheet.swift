/// Many images on one, in a grid of cells of one size, row by row from the top.
///
/// Cells are filled one by one: no two images need to be in memory at a time.
public struct ContactSheet: Sendable {
  /// Pixels between cells, and around them.
  public static let gap = 4
  /// The sheet has at most so many pixels a side.
  public static let maxSide = 4096

  /// Cells beside each other.
  public let columns: Int
  /// Cells below each other.
  public let rows: Int
  /// Width and height of a cell in pixels.
  public let cell: Int
  private let width: Int
  private let height: Int
  private var pixels: [UInt8]

  /// An empty sheet.
  ///
  /// - Parameters:
  ///   - count: of cells, at least 1. So many that a cell would have no pixel do not fit: see ``fits(count:)``.
  ///   - cell: width and height of a cell in pixels, at least 1; less where the sheet would be too large.
  ///   - background: RGB of what no image covers.
  public init(count: Int, cell: Int, background: [UInt8] = [238, 238, 238]) {
    precondition(count > 0 && cell > 0 && background.count == 3 && Self.fits(count: count), "\(count) cells of \(cell)")
    let columns = Self.columns(count)
    self.columns = columns
    rows = (count + columns - 1) / columns
    self.cell = min(cell, (Self.maxSide - Self.gap) / columns - Self.gap)
    width = columns * (self.cell + Self.gap) + Self.gap
    height = rows * (self.cell + Self.gap) + Self.gap
    pixels = RasterImage(width: width, height: height, filledWith: background).pixels
  }

  /// Whether cells of so many images have pixels.
  public static func fits(count: Int) -> Bool { (maxSide - gap) / columns(count) > gap }

  /// As many as make the grid a square.
  private static func columns(_ count: Int) -> Int {
    var columns = 1
    while columns * columns < count { columns += 1 }
    return columns
  }

  /// Puts an image into cell `index`, in the middle and as large as it fits with its proportions; transparency shows
  /// white.
  public mutating func place(_ image: RasterImage, at index: Int) {
    precondition((0..<(columns * rows)).contains(index), "cell \(index) of \(columns * rows)")
    let longest = max(image.width, image.height)
    let size = (
      width: max(1, image.width * cell / longest), height: max(1, image.height * cell / longest)
    )
    let scaled = image.overWhite.resized(width: size.width, height: size.height, filter: .lanczos)
    let left = Self.gap + index % columns * (cell + Self.gap) + (cell - size.width) / 2
    let top = Self.gap + index / columns * (cell + Self.gap) + (cell - size.height) / 2
    for line in 0..<size.height {
      let source = line * size.width * 3, target = ((top + line) * width + left) * 3
      pixels.replaceSubrange(
        target..<(target + size.width * 3), with: scaled.pixels[source..<(source + size.width * 3)])
    }
  }

  /// The sheet as it is now.
  public var image: RasterImage { RasterImage(width: width, height: height, pixels: pixels) }
}
