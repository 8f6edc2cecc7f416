import ArgumentParser
import Foundation
import ImageCodec

/// `qwen-image inspect`: what an image says about its making, or what a checkpoint holds.
struct InspectCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect", abstract: "Print what an image was made of, or what a checkpoint holds, as JSON.",
    discussion: """
      Images of this software hold the model, prompts, seed and everything else that they depend on, under the keyword \
      \(ImageMetadata.keyword). Other texts of a file are printed with --all: of PNG its text chunks, of WebP and JPEG \
      the software and the comment of EXIF, as "parameters". Of a checkpoint, or a safetensors or GGUF file, the \
      files, the types of the tensors and the mode that auto chooses are printed; headers are checked, tensors are not \
      read.
      """)

  @Argument(help: "A PNG, WebP or JPEG file, - for standard input; or a checkpoint.", completion: .file())
  var image: String

  @Flag(help: "Print every text of the file.")
  var all = false

  func run() throws {
    if image != "-", let model = try InspectedModel(image) { return try print(model) }
    let file: (header: ImageFile.Header, texts: [PNG.Text])
    do { file = try ImageFile.texts(of: try read(), limits: Self.limits) } catch let error as ImageFileError {
      throw OutputError(name: image, reason: "\(error)")
    }
    if all {
      return try print(
        AllTexts(width: file.header.width, height: file.header.height, texts: file.texts.map(AllTexts.Entry.init)))
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

  private static let limits = ImageFile.Limits()

  /// The file's bytes, no more of them than the decoder takes and one, which it refuses.
  private func read() throws -> [UInt8] {
    let descriptor = image == "-" ? STDIN_FILENO : open(image, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw OutputError(name: image, reason: String(cString: strerror(errno))) }
    defer { if image != "-" { close(descriptor) } }
    var status = stat()
    if fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG, Int(status.st_size) > Self.limits.maxBytes {
      throw ImageFileError.tooManyBytes(found: Int(status.st_size), limit: Self.limits.maxBytes)
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
