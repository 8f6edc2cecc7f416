import ArgumentParser
import Foundation
import ImageCodec

/// `qwen-image inspect`: what an image says about its making.
struct InspectCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect", abstract: "Print what an image was made of, as JSON.",
    discussion: """
      Images of this software hold the model, prompts, seed and everything else that they depend on, under the keyword \
      \(ImageMetadata.keyword). Other texts of a PNG file are printed with --all.
      """)

  @Argument(help: "A PNG file; - is standard input.")
  var image: String

  @Flag(help: "Print every text of the file.")
  var all = false

  func run() throws {
    let file: (image: RasterImage, texts: [PNG.Text])
    do { file = try PNG.decode(try read(), limits: Self.limits) } catch let error as PNGError {
      throw OutputError(name: image, reason: "\(error)")
    }
    if all {
      return try print(
        AllTexts(width: file.image.width, height: file.image.height, texts: file.texts.map(AllTexts.Entry.init)))
    }
    guard let text = file.texts.first(where: { $0.keyword == ImageMetadata.keyword })?.text else {
      let keywords = file.texts.map(\.keyword)
      let others = keywords.isEmpty ? "" : "; it has \(keywords.prefix(20).joined(separator: ", ")), which --all prints"
      throw OutputError(name: image, reason: "the file has no text \(ImageMetadata.keyword)\(others)")
    }
    do { _ = try ImageMetadata(texts: file.texts) } catch { throw OutputError(name: image, reason: "\(error)") }
    // As it is in the file: a later version may have put more in.
    let options: JSONSerialization.WritingOptions = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    let value = try JSONSerialization.jsonObject(with: Data(text.utf8))
    try Terminal.printJSON(
      String(decoding: try JSONSerialization.data(withJSONObject: value, options: options), as: UTF8.self))
  }

  private struct AllTexts: Encodable {
    struct Entry: Encodable {
      let keyword: String
      let text: String

      init(_ text: PNG.Text) {
        keyword = text.keyword
        self.text = text.text
      }
    }
    let width: Int
    let height: Int
    let texts: [Entry]
  }

  private func print(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    try Terminal.printJSON(String(decoding: try encoder.encode(value), as: UTF8.self))
  }

  private static let limits = PNG.Limits()

  /// The file's bytes, no more of them than the decoder takes and one, which it refuses.
  private func read() throws -> [UInt8] {
    let descriptor = image == "-" ? STDIN_FILENO : open(image, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw OutputError(name: image, reason: String(cString: strerror(errno))) }
    defer { if image != "-" { close(descriptor) } }
    var status = stat()
    if fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG, Int(status.st_size) > Self.limits.maxBytes {
      throw PNGError.tooManyBytes(found: Int(status.st_size), limit: Self.limits.maxBytes)
    }
    var bytes: [UInt8] = [], buffer = [UInt8](repeating: 0, count: 1 << 20)
    while bytes.count <= Self.limits.maxBytes {
      let count = Foundation.read(descriptor, &buffer, buffer.count)
      if count == 0 { break }
      guard count > 0 else {
        if errno == EINTR { continue }
        throw OutputError(name: image, reason: String(cString: strerror(errno)))
      }
      bytes += buffer[..<count]
    }
    return bytes
  }
}
