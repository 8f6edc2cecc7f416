import ArgumentParser
import Diffusion
import Foundation

/// The flag for adapters.
struct AdapterOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      """
      An adapter (LoRA, LoHa, LoKr): a safetensors file, or a directory that PEFT or diffusers wrote, and how much of \
      it acts, 1 if nothing is said. Repeat it for several.
      """, valueName: "file[:scale]"),
    transform: AdapterChoice.init(text:))
  var lora: [AdapterChoice] = []

  func validate() throws {
    guard lora.count <= AdapterSet.maxCount else {
      throw ValidationError("--lora is there \(lora.count) times; the limit is \(AdapterSet.maxCount)")
    }
  }

  /// Reads the files.
  ///
  /// - Parameter report: gets a sentence about what of a file is not used.
  func adapters(report: (String) -> Void) throws -> AdapterSet {
    try AdapterSet(
      lora.map { choice in
        let adapter = try Adapter(URL(filePath: choice.path))
        if adapter.textEncoderTensorCount > 0 {
          report(
            "\(choice.path): \(adapter.textEncoderTensorCount) tensors are for the text encoder and not used: "
              + "adapters act on the denoising network only")
        }
        return (adapter, choice.scale)
      })
  }
}

/// An adapter's file and how much of it acts.
struct AdapterChoice: Equatable, Sendable {
  let path: String
  let scale: Double

  /// Reads `FILE` or `FILE:SCALE`.
  ///
  /// - Throws: `ValidationError` naming what is wrong.
  init(text: String) throws {
    guard let colon = text.lastIndex(of: ":"), let scale = Double(text[text.index(after: colon)...]),
      !FileManager.default.fileExists(atPath: text)
    else {
      (path, scale) = (text, 1)
      return
    }
    guard scale.magnitude <= AdapterSet.maxScale else {
      throw ValidationError("the scale is \(scale); it must be from \(-AdapterSet.maxScale) to \(AdapterSet.maxScale)")
    }
    path = String(text[..<colon])
    self.scale = scale
  }
}
