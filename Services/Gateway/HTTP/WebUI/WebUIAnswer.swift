import Foundation
import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import ImageCodec
import StrictJSON

/// The answer to txt2img and img2img: the images, and what they were made of, as A1111 says it.
struct WebUIAnswer {
  let request: WebUIRequest
  let ticket: JobTicket
  /// By their places in the request; those that were interrupted or skipped are missing.
  let results: [Int: EncodedImage]

  private var indices: [Int] { results.keys.sorted() }
  private var first: ImageSpec { ticket.images[0] }

  /// The answer.
  ///
  /// - Throws: DATA_LOSS for layers that are not all there.
  func body() throws(APIError) -> JSON {
    var files: [JSON] = []
    if request.sendsImages {
      for index in indices {
        let image = ticket.images[index]
        for layer in 0..<image.fileCount {
          guard let result = results[index] else { continue }
          files.append(.string(try result.file(layer, of: image.fileCount).base64))
        }
      }
    }
    let info = String(decoding: info.bytes, as: UTF8.self)
    return ["images": .array(files), "parameters": parameters, "info": .string(info)]
  }

  /// The request with the values that the images were made with.
  private var parameters: JSON {
    let metadata = first.metadata, size = first.resultSize
    return [
      "prompt": .string(first.prompt), "negative_prompt": .string(metadata.negativePrompt ?? ""),
      "seed": JSON(first.seed), "steps": JSON(first.steps), "cfg_scale": JSON(metadata.trueCFGScale),
      "width": JSON(size.widthPx), "height": JSON(size.heightPx), "sampler_name": sampler,
      "sampler_index": sampler, "scheduler": schedule,
      "batch_size": JSON(request.batchSize), "n_iter": JSON(request.iterations), "subseed": -1, "subseed_strength": 0,
      "denoising_strength": strength, "init_images": .null, "mask": .null, "styles": [], "restore_faces": false,
      "tiling": false, "enable_hr": false, "override_settings": request.overrides.sent, "alwayson_scripts": [:],
      "send_images": .bool(request.sendsImages), "save_images": false,
    ]
  }

  private var sampler: JSON { .string(WebUISampler.title(first.sampling.sampler)) }
  private var schedule: JSON {
    .string(first.sampling.schedule.map { WebUISampler.title($0) } ?? WebUISampler.automatic)
  }
  private var strength: JSON { request.images.map { JSON($0.strength) } ?? .null }

  /// What A1111's clients read seeds and infotexts from.
  private var info: JSON {
    let metadata = first.metadata, size = first.resultSize
    let made = indices.map { ticket.images[$0] }
    let negative = JSON.string(metadata.negativePrompt ?? "")
    return [
      "prompt": .string(first.prompt), "all_prompts": .array(made.map { .string($0.prompt) }),
      "negative_prompt": negative, "all_negative_prompts": .array(made.map { _ in negative }),
      "seed": JSON(first.seed), "all_seeds": .array(made.map { JSON($0.seed) }), "subseed": -1,
      "all_subseeds": .array(made.map { _ in -1 }), "subseed_strength": 0, "width": JSON(size.widthPx),
      "height": JSON(size.heightPx), "sampler_name": sampler,
      "cfg_scale": JSON(metadata.trueCFGScale), "steps": JSON(first.steps), "batch_size": JSON(request.batchSize),
      "restore_faces": false, "face_restoration_model": .null, "sd_model_name": .string(first.card.model.id),
      "sd_model_hash": .string(WebUIModelName.hash(of: first.card.model)), "sd_vae_name": .null, "sd_vae_hash": .null,
      "seed_resize_from_w": -1, "seed_resize_from_h": -1, "denoising_strength": strength,
      "extra_generation_params": [:], "index_of_first_image": 0, "infotexts": .array(made.map { JSON($0.infotext) }),
      "styles": [], "job_timestamp": .string(WebUIProgress.timestamp(Int64(Date().timeIntervalSince1970 * 1000))),
      "clip_skip": 1, "is_using_inpainting_conditioning": false,
      "version": .string("\(ImageMetadata.software) \(metadata.softwareVersion)"), "job_id": .string(ticket.id),
      "notes": .array(request.notes.map { .string($0) }),
    ]
  }
}

extension ImageSpec {
  /// The line that A1111 writes about an image, which the file holds as well.
  fileprivate var infotext: String {
    metadata.texts.first { $0.keyword == ImageMetadata.parametersKeyword }?.text ?? ""
  }
}
