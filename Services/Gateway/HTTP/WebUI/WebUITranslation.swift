import ClusterCore
import Foundation
import GatewayAPI
import GatewayPipelines
import ImageCodec
import StrictJSON

extension WebUIRequest {
  /// The same request in the fields of this API, for a model. What the fields allow is for the code that reads them to
  /// say; ``renamed(_:)`` makes its errors speak of A1111's.
  ///
  /// - Parameters:
  ///   - card: of the model that the request is for.
  ///   - model: its name as the request or the tenant has chosen it; nil: the first.
  ///   - mask: the request's mask as this API has masks; nil: there is none.
  /// - Throws: when `resize_mode` asks for what is not done.
  package mutating func fields(
    for card: ModelCard, model: String?, mask: String? = nil
  ) throws(APIError) -> JSON {
    var fields: JSONObject = ["prompt": .string(prompt), "n": JSON(batchSize * iterations)]
    if let model { fields["model"] = .string(model) }
    if let seed { fields["seed"] = JSON(seed) }
    if let steps { fields["steps"] = JSON(steps) }
    setGuidance(&fields, card)
    if sampling.sampler != .euler { fields["sampler"] = .string(sampling.sampler.rawValue) }
    if let schedule = sampling.schedule { fields["schedule"] = .string(schedule.rawValue) }
    if let format = overrides.format { fields["output_format"] = .string(format) }
    if let quality = overrides.quality { fields["output_compression"] = JSON(quality) }
    if let images { try setImages(&fields, images, mask, card) }
    setSize(&fields, card)
    if !loras.isEmpty {
      fields["loras"] = .array(loras.map { ["name": .string($0.name), "scale": JSON($0.scale)] })
    }
    if !controls.isEmpty {
      fields["control_image"] = .array(controls.map { .string($0.image) })
      fields["control_scale"] = .array(controls.map { JSON($0.weight) })
      fields["control_start"] = .array(controls.map { JSON($0.start) })
      fields["control_end"] = .array(controls.map { JSON($0.end) })
    }
    return .object(fields)
  }

  /// A scale of 7 is what clients send whose user has chosen none, and an empty negative prompt what they send for a
  /// field that was left empty: both mean the model's own here. With a scale that was chosen, an empty negative prompt
  /// is one, as in A1111, where guidance always has one.
  private mutating func setGuidance(_ fields: inout JSONObject, _ card: ModelCard) {
    if !negativePrompt.isEmpty { fields["negative_prompt"] = .string(negativePrompt) }
    guard let cfgScale else { return }
    guard cfgScale != Self.customaryScale else {
      if card.defaults.trueCFGScale != cfgScale {
        notes.append("cfg_scale 7 stands for the model's own scale, \(card.defaults.trueCFGScale)")
      }
      return
    }
    fields["true_cfg_scale"] = JSON(cfgScale)
    if negativePrompt.isEmpty, card.defaults.negativePrompt.isEmpty, cfgScale > 1 { fields["negative_prompt"] = "" }
  }

  /// Clients send sizes of other models.
  private mutating func setSize(_ fields: inout JSONObject, _ card: ModelCard) {
    guard width != nil || height != nil else { return }
    let own = card.defaults.size
    let asked = ImageSize(widthPx: width ?? own.widthPx, heightPx: height ?? own.heightPx)
    let size = card.limits.nearest(to: asked)
    if size != asked { notes.append("the size is \(size), the nearest to \(asked) that \(card.model.id) makes") }
    (fields["width"], fields["height"]) = (JSON(size.widthPx), JSON(size.heightPx))
  }

  /// With a mask what is white is made anew. Without one the image is begun with; models that edit take
  /// `denoising_strength` of 1, which would leave nothing of the image, as the wish to edit it as the prompt says.
  private mutating func setImages(
    _ fields: inout JSONObject, _ images: WebUIImages, _ mask: String?, _ card: ModelCard
  ) throws(APIError) {
    fields["image"] = .array(images.images.map { .string($0) })
    try checkProportions(images, card)
    if let mask {
      fields["mask"] = .string(mask)
      fields["strength"] = JSON(min(images.strength, 1))
      if images.maskBlur > 0 { fields["mask_blur"] = JSON(images.maskBlur) }
      // Images for control networks are made as a whole.
      if let padding = images.padding, controls.isEmpty { fields["padding_mask_crop"] = JSON(padding) }
      return
    }
    let edits = card.pipelines.contains { [.edit, .editPlus, .layered].contains($0) }
    let begins = card.pipelines.contains(.imageToImage) && images.images.count == 1
    guard begins, images.strength < 1 || !edits else {
      notes.append("the image is edited as the prompt says, without denoising_strength")
      return
    }
    fields["strength"] = JSON(images.strength)
  }

  /// Images are stretched to the size, which is mode 0; the others are the same where proportions stay.
  private func checkProportions(_ images: WebUIImages, _ card: ModelCard) throws(APIError) {
    guard images.resizeMode != 0, let width, let height else { return }
    let limits = ImageFile.Limits(maxPixels: .max)
    for image in images.images {
      let bytes = try DataURL.bytes(of: image, field: "init_images", maxBytes: limits.maxBytes)
      guard let header = try? ImageFile.header(of: bytes, limits: limits) else { continue }
      let ratio = Double(header.width) / Double(header.height) * Double(height) / Double(width)
      // As far as rounding to the model's multiples may change it.
      let tolerance = Double(card.limits.sizeMultiplePx) / Double(min(width, height))
      guard abs(ratio - 1) <= tolerance else {
        throw APIError(
          .unsupportedValue,
          "resize_mode is \(images.resizeMode), but images are stretched (0) only: crop the \(header.width)x"
            + "\(header.height) image to the proportions of \(width)x\(height) before it is sent", param: "resize_mode")
      }
    }
  }

  /// The fields of A1111's API by those of this one, where they differ.
  private static let names = [
    "image": "init_images", "strength": "denoising_strength", "padding_mask_crop": "inpaint_full_res_padding",
    "true_cfg_scale": "cfg_scale", "sampler": "sampler_name", "schedule": "scheduler", "n": "batch_size",
    "model": "sd_model_checkpoint",
    "control_image": "alwayson_scripts.controlnet.image", "control_scale": "alwayson_scripts.controlnet.weight",
    "control_start": "alwayson_scripts.controlnet.guidance_start",
    "control_end": "alwayson_scripts.controlnet.guidance_end", "output_format": "override_settings.samples_format",
    "output_compression": "override_settings.jpeg_quality", "loras": "prompt",
  ]

  /// An error about a field of this API as one about the field that was sent.
  package static func renamed(_ error: APIError) -> APIError {
    guard let param = error.param, let name = names[param] else { return error }
    var error = error
    error.param = name
    if error.message.hasPrefix("\(param) ") || error.message.hasPrefix("\(param):") {
      error.message = name + error.message.dropFirst(param.count)
    }
    return error
  }
}

extension WebUIImages {
  /// The mask as this API has masks, white where the image is made anew: of a file with transparency A1111 takes what
  /// is opaque, and some clients send the mask the other way around. Decoding takes up to a second.
  ///
  /// - Returns: the file as it was sent where it means the same; nil: there is no mask.
  package func preparedMask(_ intake: ImageIntake) throws(APIError) -> String? {
    guard let mask else { return nil }
    let bytes = try DataURL.bytes(of: mask, field: "mask", maxBytes: intake.maxFileBytes)
    let limits = ImageFile.Limits(maxBytes: intake.maxFileBytes, maxPixels: intake.maxPixels)
    do {
      let image = try ImageFile.decode(bytes, limits: limits)
      guard invertsMask || image.hasTransparency else { return mask }
      // A1111 takes more than half for opaque.
      let white = image.hasTransparency ? image.alpha.binarised(threshold: 129) : image.luma
      let file = try PNG.encode(invertsMask ? white.inverted : white)
      return "data:image/png;base64,\(Data(file).base64EncodedString())"
    } catch {
      throw APIError(.invalidValue, "mask: \(error)", param: "mask")
    }
  }
}
