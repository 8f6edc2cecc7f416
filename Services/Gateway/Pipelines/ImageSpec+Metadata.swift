import ClusterCore
import ImageCodec
import Settings
import Wire

extension ImageSpec {
  /// What the image depends on.
  package var metadata: ImageMetadata {
    var metadata = ImageMetadata(
      model: card.model.id, fingerprint: card.model.fingerprint, prompt: prompt, negativePrompt: negativePrompt,
      trueCFGScale: trueCFGScale, steps: steps, width: size.widthPx, height: size.heightPx, seed: seed,
      softwareVersion: SoftwareVersion.current, source: source)
    metadata.sigmas = sigmas.isEmpty ? nil : sigmas
    metadata.sampler = sampling.sampler == .euler ? nil : sampling.sampler.rawValue
    metadata.schedule = sampling.schedule?.rawValue
    metadata.cfgSteps = negativePrompt == nil ? nil : sampling.cfgSteps
    metadata.loras = adapters.map { .init(name: $0.name, sha256: $0.digest, scale: $0.scale) }
    metadata.cache = cache
    metadata.background = isOpaque ? BackgroundChoice.opaque.rawValue : nil
    return metadata
  }

  /// How the image is made of others; nil: of its prompt alone.
  private var source: ImageSource? {
    guard pipeline != .textToImage else { return nil }
    var source = ImageSource(pipeline: pipeline.text, inputs: files)
    if pipeline.takesStrength { source.strength = strength }
    if pipeline.takesOutputResolution {
      source.outputResolution = options[PipelineOptions.outputResolution.rawValue]?.integer
    }
    if pipeline.keepsPixels {
      source.paddingMaskCrop = options["padding_mask_crop"]?.integer
      source.pasteBack = pastesBack
    }
    if mask != nil, let blur = options["mask_blur"]?.double, blur > 0 { source.maskBlur = blur }
    source.outpaint = Outpainting(option: options[Outpainting.key]).map { ImageSource.Margins($0) }
    if let object = ObjectEdit(option: options[ObjectEdit.key]) { object.describe(in: &source) }
    if pipeline.isForControl {
      source.controlScale = controlNumbers("control_scale", 1)
      source.controlStart = controlNumbers("control_start", 0)
      source.controlEnd = controlNumbers("control_end", 1)
    }
    if pipeline == .layered { source.layers = layers }
    if !edits.isEmpty {
      source.edits = edits.compactMap { edit in
        edit.source.map { ImageSource.Edit(prompt: edit.prompt, negativePrompt: edit.negativePrompt, source: $0) }
      }
    }
    return source
  }

  private func controlNumbers(_ name: String, _ standard: Double) -> [Double] {
    controls.indices.map { controlNumber(name, $0) ?? standard }
  }

  /// The texts that the VAE decoder puts into the file.
  var textEntries: [TextEntry] {
    precondition(ImageMetadata.maxTextBytes <= WireLimits().maxTextBytes, "texts that no message carries")
    return metadata.texts.map { TextEntry(keyword: $0.keyword, text: $0.text) }
  }
}
