import Foundation
import ImageCodec
import Testing

/// `local --lora`.
@Suite(.timeLimit(.minutes(1))) struct AdapterOptionTests {
  /// A safetensors file with a LoRA of rank 1 for a layer of the small model.
  private static func file(layer: String = "proj_out", width: Int = 160) throws -> Data {
    let tensors = [("\(layer).lora_A.weight", [1, width]), ("\(layer).lora_B.weight", [64, 1])]
    var entries: [String: Any] = [:], values: [Float] = []
    for (name, shape) in tensors {
      let count = shape[0] * shape[1], begin = 4 * values.count
      entries[name] = ["dtype": "F32", "shape": shape, "data_offsets": [begin, begin + 4 * count]] as [String: Any]
      values += (0..<count).map { Float($0 % 5) - 1.5 }
    }
    let header = try JSONSerialization.data(withJSONObject: entries)
    let length = (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) }
    let bytes = values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value.bitPattern >> (8 * $0)) } }
    return Data(length) + header + Data(bytes)
  }

  private static let arguments = [
    "local", "--model", CommandLineTool.model, "--prompt", "a heart", "--steps", "1", "--seed", "7", "--threads", "1",
  ]

  @Test func adaptersActAndAreKeptInTheImage() async throws {
    try await withFolder { folder in
      try Self.file().write(to: folder.appending(path: "style.safetensors"))
      func draw(_ options: String..., as name: String) async throws -> (image: RasterImage, texts: [PNG.Text]) {
        let result = try await CommandLineTool.run(Self.arguments + options + ["-o", name], directory: folder)
        try #require(result.isSuccess, "\(result)")
        return try PNG.decode(Array(Data(contentsOf: folder.appending(path: name))))
      }
      let plain = try await draw(as: "a.png")
      let half = try await draw("--lora", "style.safetensors:0.5", as: "b.png")
      let both = try await draw("--lora", "style.safetensors:0.25", "--lora", "style.safetensors:0.25", as: "c.png")
      let silent = try await draw("--lora", "style.safetensors:0", as: "d.png")
      #expect(plain.image != half.image && plain.image == silent.image && plain.image != both.image)
      let metadata = try #require(try ImageMetadata(texts: half.texts))
      #expect(metadata.loras.map(\.name) == ["style"] && metadata.loras.map(\.scale) == [0.5])
      #expect(metadata.loras[0].sha256.count == 64)
      #expect(half.texts.first { $0.keyword == "parameters" }?.text.contains("LoRAs: \"style: 0.5\"") == true)
      #expect(try ImageMetadata(texts: plain.texts)?.loras.isEmpty == true)
      #expect(try ImageMetadata(texts: both.texts)?.loras.count == 2)
    }
  }

  @Test func whatCannotBeUsedIsRefused() async throws {
    try await withFolder { folder in
      try Self.file(layer: "transformer_blocks.99.attn.to_q").write(to: folder.appending(path: "other.safetensors"))
      try Self.file(width: 96).write(to: folder.appending(path: "narrow.safetensors"))
      for (lora, message) in [
        ("other.safetensors", "transformer_blocks.99.attn.to_q.lora_A.weight"), ("narrow.safetensors", "[1, 96]"),
        ("none.safetensors:0.5", "none.safetensors"), ("other.safetensors:1000", "must be from -100.0 to 100.0"),
      ] {
        let result = try await CommandLineTool.run(
          Self.arguments + ["--lora", lora, "-o", "a.png"], directory: folder)
        #expect(!result.isSuccess && result.errors.contains(message), "\(result)")
      }
    }
  }
}
