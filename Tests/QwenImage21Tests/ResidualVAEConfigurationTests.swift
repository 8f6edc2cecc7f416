import Diffusion
import Foundation
import GoldenSupport
import QwenImage21
import Testing

@Suite struct ResidualVAEConfigurationTests {
  private static func text() throws -> String {
    try String(contentsOf: TinyAutoencoder.folder.appending(path: "config.json"), encoding: .utf8)
  }

  /// What a file with `text` says.
  private static func read(_ text: String) throws -> ResidualVAEConfiguration {
    let url = FileManager.default.temporaryDirectory.appending(path: "vae-\(UUID().uuidString).json")
    defer { try? FileManager.default.removeItem(at: url) }
    try Data(text.utf8).write(to: url)
    return try ResidualVAEConfiguration(contentsOf: url)
  }

  @Test func readsTheTinyCheckpoint() throws {
    var expected = ResidualVAEConfiguration.published
    (expected.baseDim, expected.decoderBaseDim) = (3, 4)
    let configuration = try TinyAutoencoder.configuration()
    #expect(configuration == expected && configuration.spatialScale == 16)
  }

  @Test func readsPublishedValues() throws {
    let text = try Self.text().replacing("\"base_dim\": 3", with: "\"base_dim\": 96")
      .replacing("\"decoder_base_dim\": 4", with: "\"decoder_base_dim\": 144")
    #expect(try Self.read(text) == .published)
    #expect(ResidualVAEConfiguration.published.latentsMean.count == 64)
    #expect(ResidualVAEConfiguration.published.latentsStd.count == 64)
  }

  @Test func decoderIsAsWideAsTheEncoderIfNothingElseIsSaid() throws {
    let text = try Self.text()
    for absent in ["\"decoder_base_dim\": null", ""] {
      let change = absent.isEmpty ? "" : absent + ","
      #expect(try Self.read(text.replacing("\"decoder_base_dim\": 4,", with: change)).decoderBaseDim == 3)
    }
  }

  /// A textual change, and what the error must name.
  private static let broken: [(old: String, new: String, names: String)] = [
    ("AutoencoderKLQwenImage21", "AutoencoderKLQwenImage", "_class_name \"AutoencoderKLQwenImage\""),
    ("\"is_residual\": true", "\"is_residual\": false", "is_residual false"),
    ("\"is_residual\": true", "\"is_residual\": 1", "is_residual is a number"),
    ("\"in_channels\": 4", "\"in_channels\": 3", "in_channels 3 is not supported"),
    ("\"out_channels\": 4", "\"out_channels\": 12", "out_channels 12 is not supported"),
    ("\"patch_size\": null", "\"patch_size\": 2", "patch_size 2 is not supported"),
    ("\"attn_scales\": []", "\"attn_scales\": [0.5]", "attn_scales"),
    ("\"dropout\": 0.0", "\"dropout\": 2", "dropout is 2"),
    ("\"base_dim\": 3", "\"base_dim\": 0", "base_dim is 0"),
    ("\"decoder_base_dim\": 4", "\"decoder_base_dim\": 4.5", "decoder_base_dim is a number"),
    ("\"num_res_blocks\": 2", "\"num_res_blocks\": 65", "num_res_blocks is 65"),
    ("\"z_dim\": 64", "\"z_dim\": 16", "latents_mean is 64 elements long, must be 16"),
    ("\"z_dim\": 64,", "", "z_dim is missing"),
    ("3.2001", "0", "latents_std[0] is 0.0"),
    ("    0.5126,\n", "", "latents_mean is 63 elements long, must be 64"),
    ("    false,\n", "", "temperal_downsample is 3 elements long, must be 4"),
    ("\"scale_factor_spatial\": 16", "\"scale_factor_spatial\": 8", "scale_factor_spatial is 8, must be 16"),
    ("\"scale_factor_temporal\": 8", "\"scale_factor_temporal\": 4", "scale_factor_temporal is 4, must be 8"),
    (
      "    4,\n    8,\n    8\n", "    4,\n    7,\n    8\n", "dim_mult is [1, 2, 4, 7, 8], must be such that the encoder"
    ),
    (
      "    4,\n    8,\n    8\n", "    4,\n    4,\n    64\n",
      "dim_mult is [1, 2, 4, 4, 64], must be such that the encoder"
    ),
    ("    2,\n    4,\n", "    1,\n    8,\n", "dim_mult is [1, 1, 8, 8, 8], must be such that the decoder"),
    ("\"z_dim\": 64", "\"z_dim\": 64, \"use_tiling\": true", "there is no field \"use_tiling\""),
    ("\"z_dim\": 64", "\"z_dim\": 64, \"quantization_config\": {\"quant_method\": \"bitsandbytes\"}", "bitsandbytes"),
  ]

  @Test(arguments: broken.indices) func namesFileAndField(index: Int) throws {
    let (old, new, names) = Self.broken[index], text = try Self.text()
    try #require(text.contains(old))
    let error = #expect(throws: ConfigurationError.self) { try Self.read(text.replacing(old, with: new)) }
    let message = try #require(error).description
    #expect(message.contains("/vae-") && message.contains(names), "\(message)")
  }
}
