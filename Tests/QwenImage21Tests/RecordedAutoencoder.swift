import Diffusion
import Foundation
import GoldenSupport
import ImageCodec
import Kernels
import QwenImage21
import TensorCore
import Testing
import Weights

/// A recorded pipeline call, as far as the autoencoder is concerned.
struct AutoencoderCase: CustomTestStringConvertible, Sendable {
  let name: String

  var testDescription: String { name }

  static let all = [
    "edit", "edit2_cfg", "edit_batch2", "edit_nocache", "edit_rgba", "edit_ten", "t2i_64x64", "t2i_64x64_nocache",
    "t2i_96x160_cfg", "t2i_batch2", "t2i_floor", "t2i_per_prompt2", "t2i_turbo",
  ].map(AutoencoderCase.init)

  /// The call's images: file, and latent pixels of its sides.
  struct Input {
    let name: String
    let grid: TokenGrid

    /// The pixels that the encoder was given.
    func resized() throws -> RasterImage {
      let file = try [UInt8](Data(contentsOf: Golden.input(name)))
      return try ImageFile.decode(file).rgba.resized(width: 16 * grid.width, height: 16 * grid.height, filter: .lanczos)
    }
  }

  struct Call {
    let inputs: [Input]
    let grid: TokenGrid
    /// Images that the call made.
    let count: Int
    let file: SafetensorsFile
    let tensors: ReferenceTensors

    /// Names of the images.
    func files(_ name: String) -> [String] { count == 1 ? ["\(name).png"] : (0..<count).map { "\(name).\($0).png" } }

    /// Latents as the denoising loop left them, of each image [gh·gw, 64].
    func latents() throws -> [Tensor] {
      let steps = file.names.compactMap { $0.hasPrefix("latents.step") ? Int($0.dropFirst(12)) : nil }
      let all = try file.tensor("latents.step\(steps.max() ?? 0)")
      return (0..<count).map { all.rows($0..<$0 + 1).reshaped([grid.tokenCount, all.shape[2]]) }
    }
  }

  func load() throws -> Call {
    struct Recorded: Decodable {
      struct Call: Decodable { let image: [String]? }
      let call: Call
      let img_shapes: [[[Int]]]
    }
    let recorded = try JSONDecoder().decode(Recorded.self, from: Data(contentsOf: Golden.reference("\(name).json")))
    let grids = recorded.img_shapes[0].map { TokenGrid(height: $0[1], width: $0[2]) }
    let file = try SafetensorsFile(Golden.reference("\(name).safetensors"))
    return Call(
      inputs: zip(recorded.call.image ?? [], grids).map {
        Input(name: String($0.dropLast(".png".count)), grid: $1)
      },
      grid: grids[grids.count - 1], count: try file.tensor("draw.0").shape[0], file: file,
      tensors: try ReferenceTensors(Golden.reference("\(name).safetensors")))
  }
}

/// The tiny checkpoint's autoencoder.
enum TinyAutoencoder {
  static let folder = Golden.checkpoint.appending(path: "vae")
  static let compute = Compute(precision: .fp32, pool: ThreadPool(threads: 2))

  static func configuration() throws -> ResidualVAEConfiguration {
    try ResidualVAEConfiguration(contentsOf: folder.appending(path: "config.json"))
  }

  static func weights(_ folder: URL = folder) throws -> ComponentWeights {
    try ComponentWeights(directory: folder, baseName: "diffusion_pytorch_model")
  }

  static func codec(_ parts: CodecParts, _ folder: URL = folder) throws -> QwenImage21Codec {
    try QwenImage21Codec(weights(folder), configuration: configuration(), compute: compute, parts: parts)
  }

  /// A folder of its own with the tiny autoencoder, changed; `body` is called with it.
  static func withCopy(
    _ change: (inout StoredFile) throws -> Void = { _ in }, _ body: (URL) throws -> Void
  ) throws {
    let directory = FileManager.default.temporaryDirectory.appending(path: "qwen-image-\(UUID().uuidString)")
    let copy = directory.appending(path: "vae"), name = "diffusion_pytorch_model.safetensors"
    defer { try? FileManager.default.removeItem(at: directory) }
    try FileManager.default.createDirectory(at: copy, withIntermediateDirectories: true)
    try FileManager.default.copyItem(
      at: folder.appending(path: "config.json"), to: copy.appending(path: "config.json"))
    var file = try StoredFile(folder.appending(path: name))
    try change(&file)
    try Data(file.bytes()).write(to: copy.appending(path: name))
    try body(copy)
  }
}
