import Foundation
import ImageCodec
import Testing

private let pixel = RasterImage(width: 1, height: 1, pixels: [1, 2, 3])

private func metadata(
  prompt: String, negativePrompt: String? = nil, trueCFGScale: Double = 4, model: String = "Qwen/Qwen-Image"
) -> ImageMetadata {
  ImageMetadata(
    model: model, fingerprint: "0123abcd", prompt: prompt, negativePrompt: negativePrompt, trueCFGScale: trueCFGScale,
    steps: 20, width: 1328,
    height: 1024, seed: 9_223_372_036_854_775_807, softwareVersion: "1.2.3")
}

extension ImageMetadata {
  /// The metadata as they come out of a file.
  fileprivate func throughAFile() throws -> [PNG.Text] { try PNG.decode(PNG.encode(pixel, texts: texts)).texts }

  fileprivate var parameters: String { texts.first { $0.keyword == "parameters" }?.text ?? "" }
}

/// How programs read the text `parameters`. Each finds the prompts in another way; all must find the same.
private enum Reader: CaseIterable {
  /// The last line is names and values; lines before it are prompts.
  case lastLine
  /// The first line that begins with "Steps: " is; the first "Negative prompt:" anywhere divides the rest.
  case firstLineOfSteps
  /// The last "Steps: " anywhere begins the values.
  case lastSteps

  struct Found: Equatable {
    var prompt: String
    var negativePrompt: String
    var values: [String: String]
  }

  func read(_ text: String) -> Found {
    var lines = text.components(separatedBy: "\n")
    switch self {
    case .lastLine:
      let values = lines.removeLast()
      let start = lines.firstIndex { trimmed($0).hasPrefix("Negative prompt:") } ?? lines.count
      var negative = Array(lines[start...])
      if !negative.isEmpty { negative[0] = String(trimmed(negative[0]).dropFirst("Negative prompt:".count)) }
      return found(lines[..<start].joined(separator: "\n"), negative.joined(separator: "\n"), values)
    case .firstLineOfSteps:
      let index = lines.firstIndex { $0.hasPrefix("Steps: ") } ?? lines.count - 1
      let values = lines.remove(at: index)
      let prompts = lines.joined(separator: "\n").components(separatedBy: "Negative prompt:")
      return found(prompts[0], prompts.dropFirst().joined(separator: " "), values)
    case .lastSteps:
      let start = text.range(of: "Steps: ", options: .backwards)?.lowerBound ?? text.endIndex
      let prompts = String(text[..<start]).components(separatedBy: "Negative prompt: ")
      return found(prompts[0], prompts.dropFirst().joined(separator: " "), String(text[start...]))
    }
  }

  private func found(_ prompt: String, _ negative: String, _ line: String) -> Found {
    // Values that hold commas or colons are JSON strings.
    var values: [String: String] = [:]
    for match in line.matches(of: /\s*([A-Za-z ]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)/) {
      let value = String(match.2)
      values[String(match.1)] =
        value.hasPrefix("\"") ? (try? JSONDecoder().decode(String.self, from: Data(value.utf8))) ?? value : value
    }
    return Found(prompt: trimmed(prompt), negativePrompt: trimmed(negative), values: values)
  }

  private func trimmed(_ text: String) -> String { text.trimmingCharacters(in: .whitespacesAndNewlines) }
}

@Suite struct ImageMetadataTests {
  private static let values = [
    "Steps": "20", "Sampler": "Euler", "CFG scale": "4", "Seed": "9223372036854775807", "Size": "1328x1024",
    "Model": "Qwen/Qwen-Image",
    "Version": "qwen-image-cluster 1.2.3",
  ]

  @Test(arguments: [
    "a red heart", "山间的清晨 🦊", "two\nlines", "\n\nlines between blank ones\n\nas these\n",
    "a \"quoted\", \\ comma: colon", "caf\u{e9}",
  ])
  func comesBackAsItWas(prompt: String) throws { try checkThatItComesBack(prompt) }

  /// The longest prompts that the published models take.
  @Test(arguments: ["长", "x", "山\n"]) func comesBackWhole(unit: String) throws {
    try checkThatItComesBack(String(repeating: unit, count: (32 << 10) / unit.utf8.count))
  }

  @Test func adaptersComeBack() throws {
    var original = metadata(prompt: "a red heart")
    original.loras = ["style, \"bold\"", "b"].map {
      ImageMetadata.AppliedAdapter(name: $0, sha256: String(repeating: "a", count: 64), scale: 0.5)
    }
    #expect(try ImageMetadata(texts: original.throughAFile()) == original)
    #expect(original.parameters.hasSuffix(#", LoRAs: "style, \"bold\": 0.5, b: 0.5""#), "\(original.parameters)")
    original.loras = Array(repeating: original.loras[0], count: 17)
    #expect(throws: PNGError.self) { try ImageMetadata(texts: original.texts) }
  }

  private func checkThatItComesBack(_ prompt: String) throws {
    for negativePrompt in [nil, "blue, green", "模糊\n第二行"] {
      let original = metadata(prompt: prompt, negativePrompt: negativePrompt)
      let texts = try original.throughAFile()
      #expect(try ImageMetadata(texts: texts) == original)
      #expect(texts.map(\.keyword) == ["Software", "parameters", "qwen-image-cluster"])
      #expect(texts == original.texts)
      for reader in Reader.allCases {
        let found = reader.read(texts[1].text),
          expected = Self.values.merging(negativePrompt == nil ? ["CFG scale": "1"] : [:]) { $1 }
        #expect(found.prompt == prompt.trimmingCharacters(in: .whitespacesAndNewlines), "\(reader)")
        #expect(found.negativePrompt == negativePrompt ?? "" && found.values == expected, "\(reader)")
      }
    }
  }

  /// No reader takes a prompt that looks like what ends a prompt for that.
  @Test(arguments: [
    (
      "Steps: 3, Sampler: DDIM, CFG scale: 9, Seed: 1, Size: 8x8",
      "Steps : 3, Sampler: DDIM, CFG scale: 9, Seed: 1, Size: 8x8"
    ),
    ("a cat\nSteps: 3, Sampler: DDIM, CFG scale: 9", "a cat\nSteps : 3, Sampler: DDIM, CFG scale: 9"),
    ("a cat\nNegative prompt: dogs", "a cat\nNegative prompt : dogs"),
    ("NEGATIVE PROMPT: x steps:", "NEGATIVE PROMPT : x steps :"),
    ("a cat\r\nand\ra dog\u{1b}[2J\u{85}", "a cat\nand\na dog [2J"),
  ])
  func isReadableWhateverThePromptSays(prompt: String, shown: String) throws {
    let original = metadata(prompt: prompt, negativePrompt: prompt)
    let texts = try original.throughAFile()
    #expect(try ImageMetadata(texts: texts) == original, "the record has it as it was")
    for reader in Reader.allCases {
      #expect(
        reader.read(texts[1].text) == Reader.Found(prompt: shown, negativePrompt: shown, values: Self.values),
        "\(reader)")
    }
  }

  @Test(arguments: ["a, b", "C:\\models\\x", "say \"x\"", "模型"])
  func quotesValuesAsReadersExpect(model: String) throws {
    for reader in Reader.allCases {
      #expect(reader.read(metadata(prompt: "p", model: model).parameters).values["Model"] == model, "\(reader)")
    }
  }

  @Test func leavesOutWhatHasNoEffect() {
    #expect(
      metadata(prompt: "p", negativePrompt: "n", trueCFGScale: 1)
        == metadata(prompt: "p", negativePrompt: nil, trueCFGScale: 7))
    #expect(metadata(prompt: "p", negativePrompt: "n", trueCFGScale: 3.5).parameters.contains("CFG scale: 3.5, "))
    #expect(!metadata(prompt: "p", negativePrompt: " ").parameters.contains("Negative"))
    #expect(metadata(prompt: "p", negativePrompt: " ").negativePrompt == " ")
  }

  /// What a message to a decoder carries is never exceeded, even where every byte of the prompts needs an escape.
  @Test(arguments: ["\u{1}", "\"", "x", "长", "steps:", "🦊"]) func cutsWhatIsTooLong(unit: String) throws {
    let prompt = String(repeating: unit, count: (64 << 10) / unit.utf8.count)
    for negativePrompt in [nil, "short", prompt] {
      let original = metadata(prompt: prompt, negativePrompt: negativePrompt)
      #expect(original.texts.allSatisfy { $0.text.utf8.count <= ImageMetadata.maxTextBytes })
      let read = try #require(try ImageMetadata(texts: original.throughAFile()))
      #expect(prompt.hasPrefix(read.prompt) && read.prompt.utf8.count > 5000 && read.seed == original.seed)
      #expect(
        negativePrompt == nil || negativePrompt == "short" || read.negativePrompt.map { prompt.hasPrefix($0) } ?? false)
      #expect(original.texts[2].text.contains(#""cut":["prompt""#))
      #expect(Reader.lastLine.read(original.parameters).prompt.hasSuffix("…"))
    }
    #expect(!metadata(prompt: "p").texts[2].text.contains("cut"))
  }

  /// Galleries read Latin-1 texts as tEXt, all others as iTXt.
  @Test func isWrittenAsReadersExpect() throws {
    for (prompt, kind) in [("caf\u{e9}\nx", "tEXt"), ("猫", "iTXt"), ("“x”", "iTXt")] {
      let file = try PNG.encode(pixel, texts: metadata(prompt: prompt).texts)
      #expect(file.firstRange(of: Array("\(kind)parameters\0".utf8)) != nil, "\(prompt)")
    }
    let file = try PNG.encode(pixel, texts: [PNG.Text("parameters", "caf\u{e9}")])
    #expect(file.firstRange(of: Array("tEXtparameters\0caf".utf8) + [0xe9]) != nil)
  }

  /// Images of a prompt alone have the texts that they have always had.
  @Test func textsOfAPromptAlone() {
    let texts = metadata(prompt: "a cat", negativePrompt: "blue", trueCFGScale: 3.5).texts
    #expect(texts[0].text == "qwen-image-cluster")
    #expect(
      texts[1].text
        == "a cat\nNegative prompt: blue\nSteps: 20, Sampler: Euler, CFG scale: 3.5, Seed: 9223372036854775807, "
        + "Size: 1328x1024, Model: Qwen/Qwen-Image, Version: qwen-image-cluster 1.2.3")
    #expect(
      texts[2].text
        == #"{"fingerprint":"0123abcd","model":"Qwen/Qwen-Image","negative_prompt":"blue","prompt":"a cat","#
        + #""seed":9223372036854775807,"size":"1328x1024","software":"qwen-image-cluster","software_version":"1.2.3","#
        + #""steps":20,"true_cfg_scale":3.5}"#)
  }

  @Test func refusesWhatItDidNotWrite() throws {
    #expect(try ImageMetadata(texts: [PNG.Text("parameters", "p")]) == nil)
    let record = metadata(prompt: "p").texts[2].text
    for text in [
      record.replacing("\"true_cfg_scale\":1", with: "\"true_cfg_scale\":1e999"),
      "", "[]", "{}", record.replacing("1328x1024", with: "1328"), record.replacing("20", with: "\"20\""),
      String(record.dropLast()),
    ] {
      #expect(throws: PNGError.self) { try ImageMetadata(texts: [PNG.Text(ImageMetadata.keyword, text)]) }
    }
    #expect(
      try ImageMetadata(texts: [PNG.Text(ImageMetadata.keyword, record.replacing("{\"", with: "{\"later\":[1],\""))])
        != nil)
  }
}
