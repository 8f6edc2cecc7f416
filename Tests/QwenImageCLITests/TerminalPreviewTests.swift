import Foundation
import ImageCodec
import QwenImageCLI
import Testing

/// Previews on a terminal.
struct TerminalPreviewTests {
  private static let escape = "\u{1b}"

  /// A different colour in each pixel, of the levels that sixels have.
  private static func image(_ width: Int, _ height: Int) -> RasterImage {
    var pixels: [UInt8] = []
    for number in 0..<width * height {
      for level in [number % 6, number / 6 % 6, number / 36 % 6] { pixels.append(UInt8(level * 51)) }
    }
    return RasterImage(width: width, height: height, pixels: pixels)
  }

  private static func screen(_ columns: Int, _ rows: Int, cell: (width: Int, height: Int) = (10, 20))
    -> TerminalPreview.Screen
  {
    var screen = TerminalPreview.Screen()
    (screen.columns, screen.rows, screen.cellWidth, screen.cellHeight) = (columns, rows, cell.width, cell.height)
    return screen
  }

  @Test func aCharacterHasTwoPixels() {
    let image = RasterImage(width: 2, height: 2, pixels: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
    var preview = TerminalPreview(.blocks, Self.screen(3, 24))
    let e = Self.escape
    let body =
      "\(e)[38;2;1;2;3m\(e)[48;2;7;8;9m▀\(e)[38;2;4;5;6m\(e)[48;2;10;11;12m▀\(e)[0m\r\n"
    #expect(preview.sequence(image) == "\r\(e)[2K\n\(e)[1A" + body)
    // The next one is drawn over it, on the same lines.
    #expect(preview.sequence(image) == "\r\(e)[2K\(e)[1A" + body)
  }

  @Test func kittyGetsThePixelsInShortPieces() throws {
    let image = Self.image(64, 48)
    var preview = TerminalPreview(.kitty, Self.screen(81, 44), number: 7)
    let text = preview.sequence(image), parts = text.components(separatedBy: "\(Self.escape)_G").dropFirst()
    // 64 columns of 10 pixels are 480 pixels high: 24 lines of 20.
    let first = try #require(parts.first)
    #expect(first.hasPrefix("a=T,f=24,s=64,v=48,i=7,p=1,c=64,r=24,C=1,q=2,m=1;"))
    var data = ""
    for (index, part) in parts.enumerated() {
      let isLast = index == parts.count - 1
      let keysEnd = try #require(part.firstIndex(of: ";"))
      #expect(part[..<keysEnd].hasSuffix(isLast ? "m=0" : "m=1"))
      let chunk = part[part.index(after: keysEnd)...].components(separatedBy: "\(Self.escape)\\")[0]
      #expect(chunk.utf8.count <= 4096)
      data += chunk
    }
    #expect(Data(base64Encoded: data) == Data(image.pixels))
    #expect(text.hasSuffix("\(Self.escape)8\(Self.escape)[24B\r"))
  }

  /// Sixels are read back as a terminal would.
  @Test(arguments: [(1, 1), (7, 13), (40, 6)]) func sixelsShowThePixels(width: Int, height: Int) throws {
    let image = Self.image(width, height), text = TerminalPreview.sixel(image)
    #expect(text.hasPrefix("\(Self.escape)P0;1;0q\"1;1;\(width);\(height)#0;2;") && text.hasSuffix("\(Self.escape)\\"))
    var shown = [[Int]?](repeating: nil, count: width * height)
    let bands = text.dropLast(2).split(separator: "-")
    for (band, line) in bands.enumerated() {
      for run in line.split(separator: "$") {
        // The palette stands before the first run.
        let drawing = try #require(run.split(separator: "#").last)
        let digits = drawing.prefix { $0.isNumber }, colour = try #require(Int(digits))
        var x = 0, count = 1, number = ""
        var isCounting = false
        for character in drawing.dropFirst(digits.count) {
          if character == "!" {
            isCounting = true
          } else if isCounting, character.isNumber {
            number.append(character)
          } else {
            count = Int(number) ?? 1
            (number, isCounting) = ("", false)
            let mask = Int(try #require(character.asciiValue)) - 63
            for column in x..<x + count {
              for bit in 0..<6 where mask >> bit & 1 == 1 {
                let place = (band * 6 + bit) * width + column
                #expect(shown[place] == nil)
                shown[place] = [colour / 36 * 51, colour / 6 % 6 * 51, colour % 6 * 51]
              }
            }
            x += count
          }
        }
        #expect(x == width)
      }
    }
    #expect(shown.compactMap { $0 }.flatMap { $0 } == image.pixels.map { Int($0) })
  }

  @Test func tallImagesFitIntoTheWindow() {
    var preview = TerminalPreview(.blocks, Self.screen(200, 14))
    let lines = preview.sequence(Self.image(10, 100)).components(separatedBy: "\r\n").count - 1
    #expect(lines == 10)
  }

  @Test(arguments: [
    (["TERM": "xterm-kitty", "COLORTERM": "truecolor"], PreviewStyle.kitty as PreviewStyle?),
    (["TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"], .kitty), (["TERM": "foot"], .sixel),
    (["TERM": "tmux-256color", "KITTY_WINDOW_ID": "1", "COLORTERM": "truecolor"], .blocks),
    (["TERM": "xterm-256color", "COLORTERM": "24bit"], .blocks), (["TERM": "xterm"], nil), ([:], nil),
  ])
  func theEnvironmentChooses(environment: [String: String], style: PreviewStyle?) {
    #expect(PreviewStyle.auto.resolved(environment) == style)
    #expect(PreviewStyle.off.resolved(environment) == nil && PreviewStyle.sixel.resolved(environment) == .sixel)
  }
}
