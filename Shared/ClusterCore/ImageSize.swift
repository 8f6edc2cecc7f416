/// Width and height of an image.
public struct ImageSize: Hashable, Sendable, Codable {
  /// Pixels from left to right.
  public var widthPx: Int
  /// Pixels from top to bottom.
  public var heightPx: Int

  /// A size in pixels.
  public init(widthPx: Int, heightPx: Int) {
    self.widthPx = widthPx
    self.heightPx = heightPx
  }

  /// Width · height, at most `Int.max`.
  public var pixelCount: Int {
    let (product, overflow) = widthPx.multipliedReportingOverflow(by: heightPx)
    return overflow ? .max : product
  }

  private enum CodingKeys: String, CodingKey {
    case widthPx = "width"
    case heightPx = "height"
  }
}

extension ImageSize: CustomStringConvertible {
  /// `1328x1328`
  public var description: String { "\(widthPx)x\(heightPx)" }

  /// Reads `WIDTHxHEIGHT` in decimal digits; nil for anything else.
  public init?(_ text: some StringProtocol) {
    let sides = text.split(separator: "x", omittingEmptySubsequences: false)
    guard sides.count == 2, let width = Self.side(sides[0]), let height = Self.side(sides[1]) else { return nil }
    self.init(widthPx: width, heightPx: height)
  }

  /// A side of 1 to 9 digits without a leading zero.
  private static func side(_ text: some StringProtocol) -> Int? {
    guard (1...9).contains(text.utf8.count),
      text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
      text.first != "0"
    else { return nil }
    return Int(text)
  }
}
