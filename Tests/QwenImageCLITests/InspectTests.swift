import Foundation
import ImageCodec
import Testing

/// What an image says about its making, on the command line.
@Suite(.timeLimit(.minutes(1))) struct InspectTests {
  private static let pixel = RasterImage(width: 1, height: 1, pixels: [1, 2, 3])
  private static let metadata = ImageMetadata(
    model: "Qwen/Qwen-Image", fingerprint: "ab12", prompt: "山\n\u{1b}[2J\u{85}\u{202e}\"猫\"", negativePrompt: "blue",
    trueCFGScale: 2.5,
    steps: 4, width: 64, height: 80, seed: 9_223_372_036_854_775_807, softwareVersion: "1.2.3")

  private func inspect(_ texts: [PNG.Text], _ more: [String] = []) async throws -> (
    result: CommandLineTool.Result, fields: NSDictionary?
  ) {
    try await withFolder { folder in
      try Data(PNG.encode(Self.pixel, texts: texts)).write(to: folder.appending(path: "a.png"))
      let result = try await CommandLineTool.run(["inspect", "a.png"] + more, directory: folder)
      return (result, try? JSONSerialization.jsonObject(with: Data(result.output)) as? NSDictionary)
    }
  }

  private func isClean(_ text: String) -> Bool {
    text.unicodeScalars.allSatisfy { ($0.properties.generalCategory != .control || $0 == "\n") && $0 != "\u{202e}" }
  }

  @Test func printsTheRecord() async throws {
    let (result, fields) = try await inspect(Self.metadata.texts)
    #expect(result.isSuccess && isClean(result.text), "\(result)")
    let expected: NSDictionary = [
      "software": "qwen-image-cluster", "software_version": "1.2.3", "model": "Qwen/Qwen-Image", "fingerprint": "ab12",
      "prompt": Self.metadata.prompt, "negative_prompt": "blue", "true_cfg_scale": 2.5, "steps": 4, "size": "64x80",
      "seed": NSNumber(value: Int64.max),
    ]
    #expect(fields == expected, "\(result.text)")
  }

  @Test(arguments: [ImageFileFormat.webp, .jpeg]) func readsOtherFormats(format: ImageFileFormat) async throws {
    try await withFolder { folder in
      let file = try ImageEncoding(format: format, quality: 80).file(of: Self.pixel, texts: Self.metadata.texts)
      // What it is does not depend on its name.
      try Data(file).write(to: folder.appending(path: "a.png"))
      let record = try await CommandLineTool.run(["inspect", "a.png"], directory: folder)
      let (expected, _) = try await inspect(Self.metadata.texts)
      #expect(record.isSuccess && record.output == expected.output, "\(record)")
      let all = try await CommandLineTool.run(["inspect", "--all", "a.png"], directory: folder)
      let (expectedTexts, _) = try await inspect(Self.metadata.texts, ["--all"])
      #expect(all.isSuccess && all.output == expectedTexts.output, "\(all)")
      try Data(ImageEncoding(format: format).file(of: Self.pixel)).write(to: folder.appending(path: "b.jpg"))
      let none = try await CommandLineTool.run(["inspect", "b.jpg"], directory: folder)
      #expect(none.errors == "Error: b.jpg: the file has no text qwen-image-cluster\n")
    }
  }

  /// Of a checkpoint and of a file of weights, what they hold.
  @Test func printsWhatWeightsThereAre() async throws {
    try await withFolder { folder in
      func components(_ path: String) async throws -> [String: NSDictionary] {
        let result = try await CommandLineTool.run(["inspect", path], directory: folder)
        #expect(result.isSuccess, "\(result)")
        let fields = try JSONSerialization.jsonObject(with: Data(result.output)) as? NSDictionary
        return fields?["components"] as? [String: NSDictionary] ?? [:]
      }
      let parts = try await components(CommandLineTool.model)
      #expect(Set(parts.keys) == ["transformer", "text_encoder", "vae"])
      #expect(parts["transformer"]?["mode"] as? String == "bf16")
      let blocks = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "Golden/formats/blocks.gguf")
      let file = try await components(blocks.path)["blocks.gguf"]
      let types = try #require(file?["types"] as? [String: NSDictionary])
      #expect(types["Q4_K"] == ["tensors": 1, "values": 3 * 512, "bytes": 3 * 2 * 144] && types.count == 15)
      try Data("GGUF".utf8).write(to: folder.appending(path: "a.gguf"))
      let damaged = try await CommandLineTool.run(["inspect", "a.gguf"], directory: folder)
      #expect(!damaged.isSuccess && damaged.errors.contains("a.gguf: malformed GGUF header"), "\(damaged)")
    }
  }

  @Test func printsEveryText() async throws {
    let (result, fields) = try await inspect(
      Self.metadata.texts + [PNG.Text("Comment", "\u{9b}2J caf\u{e9}")], ["--all"])
    #expect(result.isSuccess && isClean(result.text) && fields?["width"] as? Int == 1, "\(result)")
    let texts = fields?["texts"] as? [[String: String]]
    #expect(texts?.map { $0["keyword"] } == ["Software", "parameters", "qwen-image-cluster", "Comment"])
    #expect(texts?.last?["text"] == "\u{9b}2J caf\u{e9}")
  }

  @Test func saysWhatIsMissing() async throws {
    for (texts, message) in [
      (
        [PNG.Text("parameters", "p"), PNG.Text("Title", "t")],
        "the file has no text qwen-image-cluster; it has parameters, Title, which --all prints"
      ),
      ([], "the file has no text qwen-image-cluster"),
      (
        [PNG.Text(ImageMetadata.keyword, "{\"prompt\":")],
        "PNG text \"qwen-image-cluster\": it is not the JSON that this software writes"
      ),
      (
        [PNG.Text(ImageMetadata.keyword, String(repeating: "[", count: 100_000))],
        "PNG text \"qwen-image-cluster\": it is not the JSON that this software writes"
      ),
    ] {
      let (result, _) = try await inspect(texts)
      #expect(result.status == .exited(1) && result.errors == "Error: a.png: \(message)\n", "\(result)")
    }
  }

  @Test func refusesWhatIsNoImage() async throws {
    try await withFolder { folder in
      try Data("<html>".utf8).write(to: folder.appending(path: "a.png"))
      try Data(PNG.encode(Self.pixel).dropLast(20)).write(to: folder.appending(path: "b.png"))
      try Data().write(to: folder.appending(path: "c.png"))
      try FileHandle(forWritingTo: folder.appending(path: "c.png")).truncate(atOffset: 10 << 30)
      for (name, reason) in [
        ("a.png", "an HTML page"), ("b.png", "a damaged or incomplete PNG file: file ends early"),
        ("none.png", "No such file or directory"),
        ("c.png", "an image file of 10737418240 bytes, the limit is 52428800"),
      ] {
        let result = try await CommandLineTool.run(["inspect", name], directory: folder)
        #expect(result.status == .exited(1) && result.errors.hasPrefix("Error: \(name): \(reason)"), "\(result)")
      }
      let folder = try await CommandLineTool.run(["inspect", "."], directory: folder)
      #expect(folder.status == .exited(1) && folder.errors.contains("is not a checkpoint"), "\(folder)")
    }
  }

  /// An image that the model drew, read by this program and by what galleries look for.
  @Test func readsWhatLocalWrites() async throws {
    try await withFolder { folder in
      let arguments = [
        "local", "--model", CommandLineTool.model, "--prompt", "a heart", "--steps", "2", "--seed", "7", "--threads",
        "1",
      ]
      let drawn = try await CommandLineTool.run(arguments + ["-o", "a.png"], directory: folder)
      #expect(drawn.isSuccess, "\(drawn)")
      let texts = try PNG.decode(Array(Data(contentsOf: folder.appending(path: "a.png")))).texts
      let read = try #require(try ImageMetadata(texts: texts))
      #expect(
        read.model == "nano-qwen-image" && read.prompt == "a heart" && read.negativePrompt == " "
          && read.trueCFGScale == 3.5)
      #expect(
        read.steps == 2 && read.seed == 7 && read.width == 64 && read.height == 64 && read.fingerprint?.count == 64)
      let line =
        "Steps: 2, Sampler: Euler, CFG scale: 3.5, Seed: 7, Size: 64x64, Model: nano-qwen-image, "
        + "Version: qwen-image-cluster "
      #expect(texts.first { $0.keyword == "parameters" }?.text == "a heart\n\(line)\(read.softwareVersion)")
      // Without guidance nothing depends on the negative prompt.
      let unguided = try await CommandLineTool.run(
        arguments + ["--true-cfg-scale", "1", "--negative-prompt", "blue", "-o", "b.png"], directory: folder)
      #expect(unguided.isSuccess)
      let result = try await CommandLineTool.run(["inspect", "b.png"], directory: folder)
      #expect(result.text.contains(#""true_cfg_scale" : 1"#) && !result.text.contains("negative_prompt"), "\(result)")
    }
  }
}
