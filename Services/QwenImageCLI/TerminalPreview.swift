import ArgumentParser
import Foundation
import ImageCodec

/// How previews are shown.
package enum PreviewStyle: String, CaseIterable, ExpressibleByArgument {
  /// The best that the terminal says it can do; off when it says nothing, or is none.
  case auto
  /// Not at all.
  case off
  /// Two pixels in a character, in 24-bit colours.
  case blocks
  /// The graphics protocol of kitty, Ghostty, WezTerm and Konsole.
  case kitty
  /// The graphics of DEC's VT340, as xterm, foot, mlterm and Windows Terminal have it.
  case sixel

  /// The style for a terminal with these environment variables; nil: none.
  package func resolved(_ environment: [String: String]) -> PreviewStyle? {
    switch self {
    case .off: return nil
    case .blocks, .kitty, .sixel: return self
    case .auto: break
    }
    let terminal = environment["TERM"] ?? "", program = environment["TERM_PROGRAM"]?.lowercased() ?? ""
    // Multiplexers keep the variables of the terminal around them, but not its graphics.
    let isMultiplexed = environment["TMUX"] != nil || terminal.hasPrefix("screen") || terminal.hasPrefix("tmux")
    if !isMultiplexed {
      if environment["KITTY_WINDOW_ID"] != nil || terminal.contains("kitty") || terminal.contains("ghostty")
        || ["ghostty", "wezterm"].contains(program)
      {
        return .kitty
      }
      if terminal.hasPrefix("foot") || terminal.hasPrefix("mlterm") || terminal.contains("sixel") { return .sixel }
    }
    return ["truecolor", "24bit"].contains(environment["COLORTERM"] ?? "") ? .blocks : nil
  }
}

/// Whether previews are shown while an image is made.
struct PreviewOptions: ParsableArguments {
  @Option(
    help: """
      Show on the terminal what the image looks like so far: auto, off, blocks (24-bit colours), kitty or sixel. auto \
      is what the terminal's environment variables say.
      """)
  var preview = PreviewStyle.auto
}

/// An image on the terminal, drawn over the one before.
package struct TerminalPreview {
  /// The terminal's size in characters, and that of a character in pixels.
  package struct Screen {
    package var columns = 80
    package var rows = 24
    package var cellWidth = 10
    package var cellHeight = 20

    package init() {}

    /// That of standard error; what it does not say is assumed.
    package static var current: Screen {
      var size = winsize(), screen = Screen()
      guard ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return screen }
      (screen.columns, screen.rows) = (Int(size.ws_col), Int(size.ws_row))
      if size.ws_xpixel > 0, size.ws_ypixel > 0 {
        screen.cellWidth = max(1, Int(size.ws_xpixel) / screen.columns)
        screen.cellHeight = max(1, Int(size.ws_ypixel) / screen.rows)
      }
      return screen
    }
  }

  private static let maxColumns = 64
  /// Longest side of what is sent as pixels.
  private static let maxSentSidePx = 256
  /// Lines that are left for the progress and what stands above.
  private static let spareRows = 4

  private let style: PreviewStyle
  private let screen: Screen
  /// Names the image, so that the next one takes its place.
  private let number: UInt32
  /// Lines of the one before.
  private var rows: Int?

  package init(_ style: PreviewStyle, _ screen: Screen = .current, number: UInt32 = .random(in: 1...0x7fff_ffff)) {
    self.style = style
    self.screen = screen
    self.number = number
  }

  /// What draws `image` when the cursor is on the line below the image before, or where the first one shall be; it ends
  /// at the beginning of the line below.
  package mutating func sequence(_ image: RasterImage) -> String {
    let image = image.converted(toChannels: 3)
    var columns = min(Self.maxColumns, screen.columns - 1)
    // Half of a character is as high as it is wide, whatever the font says.
    let aspect = Double(image.height) / Double(image.width), mostRows = max(1, screen.rows - Self.spareRows)
    let cellAspect = style == .blocks ? 2 : Double(screen.cellHeight) / Double(screen.cellWidth)
    if Double(columns) * aspect / cellAspect > Double(mostRows) {
      columns = max(1, Int(Double(mostRows) * cellAspect / aspect))
    }
    // Only the first one chooses: images of another shape would move what is below.
    let lines = rows ?? max(1, Int((Double(columns) * aspect / cellAspect).rounded(.up)))
    let space = rows == nil ? String(repeating: "\n", count: lines) : ""
    rows = lines
    let start = "\r\u{1b}[2K\(space)\u{1b}[\(lines)A"
    switch style {
    case .kitty:
      // The terminal enlarges it: no more is sent than a preview shows.
      let scale = min(1, Double(Self.maxSentSidePx) / Double(max(image.width, image.height)))
      let sent = image.resized(
        width: max(1, Int(Double(image.width) * scale)), height: max(1, Int(Double(image.height) * scale)),
        filter: .box)
      return start + Self.kept(kitty(sent, columns, lines), lines)
    case .sixel:
      let height = lines * screen.cellHeight
      let width = min(columns * screen.cellWidth, max(1, Int(Double(height) / aspect)))
      return start + Self.kept(Self.sixel(image.resized(width: width, height: height, filter: .bicubic)), lines)
    default: return start + Self.blocks(image.resized(width: columns, height: lines * 2, filter: .box))
    }
  }

  /// Graphics that leave the cursor anywhere, with the cursor moved below them.
  private static func kept(_ graphics: String, _ lines: Int) -> String { "\u{1b}7\(graphics)\u{1b}8\u{1b}[\(lines)B\r" }

  private static func blocks(_ image: RasterImage) -> String {
    func colour(_ x: Int, _ y: Int) -> String {
      let start = (y * image.width + x) * 3
      return "\(image.pixels[start]);\(image.pixels[start + 1]);\(image.pixels[start + 2])"
    }
    var text = ""
    for y in stride(from: 0, to: image.height, by: 2) {
      for x in 0..<image.width { text += "\u{1b}[38;2;\(colour(x, y))m\u{1b}[48;2;\(colour(x, y + 1))m▀" }
      text += "\u{1b}[0m\r\n"
    }
    return text
  }

  private func kitty(_ image: RasterImage, _ columns: Int, _ lines: Int) -> String {
    let pixels = Array(Data(image.pixels).base64EncodedString().utf8), chunkBytes = 4096
    var text = ""
    for start in stride(from: 0, to: pixels.count, by: chunkBytes) {
      let end = min(start + chunkBytes, pixels.count)
      let keys =
        start > 0
        ? "" : "a=T,f=24,s=\(image.width),v=\(image.height),i=\(number),p=1,c=\(columns),r=\(lines),C=1,q=2,"
      text += "\u{1b}_G\(keys)m=\(end < pixels.count ? 1 : 0);"
      text += String(decoding: pixels[start..<end], as: UTF8.self) + "\u{1b}\\"
    }
    return text
  }

  /// In 216 colours, six levels of red, green and blue each.
  package static func sixel(_ image: RasterImage) -> String {
    func level(_ value: UInt8) -> Int { (Int(value) * 5 + 127) / 255 }
    var text = "\u{1b}P0;1;0q\"1;1;\(image.width);\(image.height)"
    for colour in 0..<216 {
      text += "#\(colour);2;\(colour / 36 * 20);\(colour / 6 % 6 * 20);\(colour % 6 * 20)"
    }
    for top in stride(from: 0, to: image.height, by: 6) {
      // Which of the six pixels of each column have the colour.
      var masks: [Int: [UInt8]] = [:]
      for y in top..<min(top + 6, image.height) {
        for x in 0..<image.width {
          let pixel = image.pixels[(y * image.width + x) * 3..<(y * image.width + x) * 3 + 3].map(level)
          let colour = pixel[0] * 36 + pixel[1] * 6 + pixel[2]
          masks[colour, default: Array(repeating: 0, count: image.width)][x] |= 1 << UInt8(y - top)
        }
      }
      for (colour, mask) in masks.sorted(by: { $0.key < $1.key }) { text += "#\(colour)\(runs(mask))$" }
      text += "-"
    }
    return text + "\u{1b}\\"
  }

  private static func runs(_ mask: [UInt8]) -> String {
    var text = "", start = 0
    for end in 1...mask.count where end == mask.count || mask[end] != mask[start] {
      let character = String(UnicodeScalar(mask[start] + 63)), count = end - start
      text += count > 3 ? "!\(count)\(character)" : String(repeating: character, count: count)
      start = end
    }
    return text
  }
}
