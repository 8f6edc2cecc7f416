import Foundation
import ImageCodec
import Testing

/// In which format images are asked for and written.
@Suite(.timeLimit(.minutes(1))) struct FormatTests {
  private static let pixel = RasterImage(width: 2, height: 2, filledWith: [9, 1, 2])
  private static func file(_ format: ImageFileFormat) throws -> [UInt8] {
    try ImageEncoding(format: format).file(of: pixel)
  }

  private static func completed(_ file: [UInt8]) -> [UInt8] {
    FakeServer.events([("image_generation.completed", #"{"b64_json":"\#(Data(file).base64EncodedString())","seed":5}"#)]
    )
  }

  @Test(arguments: [
    (["-o", "a.webp"], ImageFileFormat.webp, "a.webp", 100), (["-o", "a.JPG"], .jpeg, "a.JPG", 100),
    (["-o", "a.jpeg", "--output-compression", "70"], .jpeg, "a.jpeg", 70),
    (["--format", "webp"], .webp, "image.webp", 100),
    (["--format", "jpeg", "--output-compression", "0"], .jpeg, "image.jpg", 0),
    (["--format", "jpg", "-o", "a"], .jpeg, "a", 100),
  ])
  func asksForTheFormat(
    flags: [String], format: ImageFileFormat, path: String, quality: Int
  ) async throws {
    try await withFolder { folder in
      let file = try Self.file(format)
      try await FakeServer.with({ _ in Self.completed(file) }) { server in
        let result = try await CommandLineTool.run(
          ["generate", "--prompt", "p", "--gateway", server.address] + flags, directory: folder)
        #expect(result.isSuccess && result.text == "\(path)\n", "\(result)")
        let body = try #require(server.requests.first?.split(separator: "\r\n\r\n").last)
        let fields = try JSONSerialization.jsonObject(with: Data(body.utf8)) as? [String: Any]
        #expect(fields?["output_format"] as? String == format.name)
        #expect(fields?["output_compression"] as? Int == quality)
      }
      #expect(try Array(Data(contentsOf: folder.appending(path: path))) == file)
    }
  }

  /// What is the default needs no words, which an older gateway may not know.
  @Test func asksForPNGWithoutWords() async throws {
    try await withFolder { folder in
      let file = try Self.file(.png)
      try await FakeServer.with({ _ in Self.completed(file) }) { server in
        let result = try await CommandLineTool.run(
          ["generate", "--prompt", "p", "--gateway", server.address], directory: folder)
        #expect(result.isSuccess && result.text == "image.png\n", "\(result)")
        let request = try #require(server.requests.first)
        #expect(request.contains("\"prompt\"") && !request.contains("output_"))
      }
    }
  }

  /// A gateway that answers with another format has not done what was asked for.
  @Test func refusesAnotherFormat() async throws {
    try await withFolder { folder in
      let file = try Self.file(.png)
      try await FakeServer.with({ _ in Self.completed(file) }) { server in
        let result = try await CommandLineTool.run(
          ["generate", "--prompt", "p", "--gateway", server.address, "-o", "a.webp"], directory: folder)
        #expect(
          result.errors.hasSuffix("Error: --output a.webp: the image is not of the format that was asked for\n"),
          "\(result)")
      }
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)
    }
  }

  @Test func fetchesWhateverTheJobHas() async throws {
    try await withFolder { folder in
      for (format, name) in [(ImageFileFormat.png, "image.png"), (.webp, "image.webp"), (.jpeg, "image.jpg")] {
        let file = try Self.file(format)
        try await FakeServer.with({ _ in FakeServer.answer("200 OK", format.mediaType, file) }) { server in
          let fetch = ["jobs", "fetch", "job-1", "--gateway", server.address]
          let result = try await CommandLineTool.run(fetch, directory: folder)
          #expect(result.isSuccess && result.text == "\(name)\n", "\(result)")
          #expect(try Array(Data(contentsOf: folder.appending(path: name))) == file)
          let wrong = format == .png ? "a.jpg" : "a.png"
          let refused = try await CommandLineTool.run(fetch + ["-o", wrong], directory: folder)
          let suffix = format == .jpeg ? "jpg" : format.name
          let own = wrong.suffix(3)
          #expect(
            refused.errors
              == "Error: --output \(wrong): the image is \(format); end the name with .\(suffix), not .\(own)\n",
            "\(refused)")
        }
      }
    }
  }

  @Test(arguments: [
    (["--output-compression", "50"], "PNG is lossless"),
    (["--output-compression", "101", "-o", "a.webp"], "from 0 to 100"),
    (["--format", "gif"], "gif"),
  ])
  func refusesFlags(flags: [String], message: String) async throws {
    let result = try await CommandLineTool.run(["generate", "--prompt", "p"] + flags)
    #expect(result.status == .exited(64) && result.errors.contains(message), "\(result)")
  }

  @Test func refusesANameOfAnotherFormat() async throws {
    let result = try await CommandLineTool.run(["generate", "--prompt", "p", "--format", "webp", "-o", "a.png"])
    #expect(
      result.status == .exited(1)
        && result.errors == "Error: --output a.png: the image is WebP; end the name with .webp, not .png\n", "\(result)"
    )
    let layers = try await CommandLineTool.run(["layers", "a.png", "-o", "b.webp"])
    #expect(layers.status == .exited(64) && layers.errors.contains("layers are written as PNG files"), "\(layers)")
  }

  @Test(arguments: [ImageFileFormat.webp, .jpeg]) func drawsTheSamePixels(format: ImageFileFormat) async throws {
    try await withFolder { folder in
      let arguments = [
        "local", "--model", CommandLineTool.model, "--prompt", "a heart", "--steps", "1", "--seed", "7", "--threads",
        "1", "--no-digital-source-type",
      ]
      for name in ["a.png", "a.\(format.name)"] {
        let drawn = try await CommandLineTool.run(arguments + ["-o", name], directory: folder)
        #expect(drawn.isSuccess, "\(drawn)")
      }
      func read(_ name: String) throws -> [UInt8] { Array(try Data(contentsOf: folder.appending(path: name))) }
      let file = try read("a.\(format.name)"), original = try PNG.decode(try read("a.png"))
      #expect(try ImageEncoding(format: format).file(of: original.image, texts: original.texts) == file)
      #expect(try ImageFile.texts(of: file).texts == original.texts)
      if format == .webp { #expect(try ImageFile.decode(file) == original.image) }
    }
  }
}
