import ClusterCore
import GatewayAPI
import StrictJSON

extension Pipeline {
  /// A prompt about one image → an image: text encoder and autoencoder see the same image.
  public static let edit = Pipeline(
    name: .edit, stages: [.textEncoder, .vaeEncoder, .denoiser, .vaeDecoder], images: 1...1,
    readOptions: PipelineOptions.read([.sigmas, .outputResolution])
  ) { spec in
    let shown = ImagePreparation(size: spec.referenceSize(0))
    var tasks = PipelineTask.encodePrompts(spec, .edit, shown: [shown])
    let prompts = Array(tasks.indices)
    tasks.append(.encode(spec.image(0), prepared: shown, .mean, spec))
    tasks.append(.denoise(spec, prompts: prompts, references: spec.referenceSizes))
    tasks.append(.decode(spec, latents: tasks.count - 1))
    return tasks
  }

  /// A prompt about several images → an image: the text encoder sees smaller ones.
  public static let editPlus = Pipeline(
    name: .editPlus, stages: [.textEncoder, .vaeEncoder, .denoiser, .vaeDecoder], images: 1...ImageSpec.maxInputCount,
    readOptions: PipelineOptions.read([.sigmas, .outputResolution])
  ) { spec in
    let images = Array(spec.images.indices)
    let shown = spec.images.map {
      ImagePreparation(size: $0.size.scaled(toArea: spec.references.conditionPx))
    }
    var tasks = PipelineTask.encodePrompts(spec, .editPlus, shown: shown)
    let prompts = Array(tasks.indices), sizes = spec.referenceSizes
    for index in images {
      tasks.append(.encode(spec.image(index), prepared: ImagePreparation(size: sizes[index]), .mean, spec))
    }
    tasks.append(.denoise(spec, prompts: prompts, references: sizes))
    tasks.append(.decode(spec, latents: tasks.count - 1))
    return tasks
  }

  /// A prompt about an image, and a mask → the image with its masked part made anew. One sample of the posterior serves
  /// as reference and as what is kept.
  public static let editInpaint = Pipeline(
    name: .editInpaint, stages: [.textEncoder, .vaeEncoder, .denoiser, .vaeDecoder], images: 1...1, takesMask: true,
    readOptions: PipelineOptions.read([.strength, .paddingMaskCrop, .maskBlur, .pasteBack, .sigmas])
  ) { spec in
    let shown = ImagePreparation(size: spec.referenceSize(0)), prepared = spec.inpaintingPreparation
    var tasks = PipelineTask.encodePrompts(spec, .edit, shown: [shown])
    let image = tasks.count
    tasks.append(.encode(spec.image(0), prepared: prepared, .sample, spec))
    tasks.append(
      .denoise(spec, prompts: Array(0..<image), image: image, imageIsReference: true, mask: prepared))
    tasks.append(.decode(spec, latents: tasks.count - 1, overlay: spec.overlay))
    return tasks
  }
}
