import Foundation
import ImageCodec
import Templates

/// What lies beside the images of a template: all of them on one sheet, and a page with their rows and prompts.
struct TemplateReport {
  let template: Template
  let requests: [TemplateRequest]
  /// By the place of the request, from 1; absent where there is none.
  let files: [Int: [String]]
  /// Where the images are.
  let directory: String
  /// Width and height of a cell of the sheet, in pixels.
  let cell: Int

  static let sheetName = "contact-sheet.png"
  static let pageName = "index.html"

  /// Writes both.
  func write() throws {
    let images = requests.indices.flatMap { files[$0 + 1] ?? [] }
    let hasSheet = !images.isEmpty && ContactSheet.fits(count: images.count)
    if hasSheet {
      try OutputFile("\(directory)/\(Self.sheetName)", option: "contact sheet", formats: [.png]).write(
        sheet(of: images))
    }
    try OutputFile("\(directory)/\(Self.pageName)", option: "index", formats: nil).write(Array(page(hasSheet).utf8))
  }

  // MARK: - The sheet

  private func sheet(of images: [String]) throws -> [UInt8] {
    var sheet = ContactSheet(count: images.count, cell: cell)
    for (index, path) in images.enumerated() {
      var reader = InputFileReader()
      do { sheet.place(try reader.read(path, "image").decoded(), at: index) } catch {
        // What lies there under the image's name is no image: its cell stays empty.
        Terminal.note("\(error)")
      }
    }
    return try PNG.encode(sheet.image)
  }

  // MARK: - The page

  private func page(_ hasSheet: Bool) -> String {
    let figures = requests.enumerated().map { figure($1, files[$0 + 1] ?? []) }.joined()
    let summary = template.summary.isEmpty ? "" : "<p>\(Self.escaped(template.summary))</p>\n"
    let sheet = hasSheet ? "<p><a href=\"\(Self.sheetName)\">Contact sheet</a></p>\n" : ""
    return """
      <!doctype html>
      <html lang="en">
      <head>
      <meta charset="utf-8">
      <meta name="viewport" content="width=device-width">
      <title>\(Self.escaped(template.name))</title>
      <style>
      body { font: 14px system-ui, sans-serif; margin: 1rem; }
      main { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: 1rem; }
      figure { margin: 0; overflow-wrap: anywhere; }
      img { max-width: 100%; min-width: 6rem; border: 1px solid #ccc; }
      </style>
      </head>
      <body>
      <h1>\(Self.escaped(template.name))</h1>
      \(summary)\(sheet)<main>
      \(figures)</main>
      </body>
      </html>

      """
  }

  private func figure(_ request: TemplateRequest, _ files: [String]) -> String {
    let images = files.map { path in
      let relative = path.hasPrefix(directory + "/") ? String(path.dropFirst(directory.count + 1)) : path
      let address = relative.addingPercentEncoding(withAllowedCharacters: .urlPathAllowed) ?? relative
      return "<a href=\"./\(Self.escaped(address))\">"
        + "<img src=\"./\(Self.escaped(address))\" alt=\"\(Self.escaped(request.prompt))\" loading=\"lazy\"></a>"
    }
    return "<figure>\(images.isEmpty ? "<p>not made</p>" : images.joined(separator: "\n"))\n"
      + "<figcaption><b>\(Self.escaped(request.title))</b><br>\(Self.escaped(request.prompt))</figcaption></figure>\n"
  }

  /// Text as HTML has it, also within quotes.
  static func escaped(_ text: String) -> String {
    var result = ""
    for character in text.unicodeScalars {
      switch character {
      case "&": result += "&amp;"
      case "<": result += "&lt;"
      case ">": result += "&gt;"
      case "\"": result += "&quot;"
      case "'": result += "&#39;"
      default: result.unicodeScalars.append(character)
      }
    }
    return result
  }
}
