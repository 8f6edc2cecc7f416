import ImageCodec
import Settings
import Wire

extension ImageSpec {
  /// What the image depends on.
  var metadata: ImageMetadata {
    ImageMetadata(
      model: card.model.id, fingerprint: card.model.fingerprint, prompt: prompt, negativePrompt: negativePrompt,
      trueCFGScale: trueCFGScale, steps: steps, width: size.widthPx, height: size.heightPx, seed: seed,
      softwareVersion: SoftwareVersion.current)
  }

  /// The texts that the VAE decoder puts into the PNG file.
  var textEntries: [TextEntry] {
    precondition(ImageMetadata.maxTextBytes <= WireLimits().maxTextBytes, "texts that no message carries")
    return metadata.texts.map { TextEntry(keyword: $0.keyword, text: $0.text) }
  }
}
