import ClusterCore
import Gateway
import GatewayAPI
import GatewayPipelines
import ImageCodec
import StrictJSON
import TestSupport
import Testing

/// What bodies of A1111's API become.
@Suite("Requests to A1111's API")
struct WebUIRequestTests {
  typealias Route = WebUIRequest.Route

  /// The fields of this API that a body becomes, and what is noted.
  static func fields(
    _ body: String, _ route: Route = .textToImage, card: ModelCard = Toy.card, model: String? = nil
  ) throws(APIError) -> (fields: JSON, notes: [String]) {
    var request = try WebUIRequest(body: Array(body.utf8), route)
    let mask = try request.images?.preparedMask(Intake.limits)
    return (try request.fields(for: card, model: model, mask: mask), request.notes)
  }

  static func fields(
    img2img members: String, image: [UInt8]? = nil, card: ModelCard = Intake.card
  ) throws -> (fields: JSON, notes: [String]) {
    let image = Intake.dataURL(try image ?? Intake.png())
    return try fields(#"{"prompt":"p","init_images":["\#(image)"]\#(members)}"#, .imageToImage, card: card)
  }

  static func error(_ body: String, _ route: Route = .textToImage, card: ModelCard = Toy.card) -> APIError? {
    do throws(APIError) { _ = try fields(body, route, card: card) } catch { return WebUIRequest.renamed(error) }
    return nil
  }

  /// A card whose guidance and negative prompt are those of the published model.
  static let published: ModelCard = {
    var card = Toy.card
    card.defaults.negativePrompt = " "
    return card
  }()

  @Test(arguments: [
    (#""prompt":"p""#, #"{"prompt":"p","n":1}"#),
    (#""prompt":"p","seed":7"#, #"{"prompt":"p","n":1,"seed":7}"#),
    (#""prompt":"p","seed":-1"#, #"{"prompt":"p","n":1}"#),
    (#""prompt":"p","seed":"-1""#, #"{"prompt":"p","n":1}"#),
    (#""prompt":"p","seed":"42","steps":20.0"#, #"{"prompt":"p","n":1,"seed":42,"steps":20}"#),
    (#""prompt":"p","steps":null,"width":null"#, #"{"prompt":"p","n":1}"#),
    (#""prompt":"p","batch_size":2,"n_iter":3"#, #"{"prompt":"p","n":6}"#),
    (#""prompt":"p","negative_prompt":"dark""#, #"{"prompt":"p","n":1,"negative_prompt":"dark"}"#),
    (#""prompt":"p","negative_prompt":"""#, #"{"prompt":"p","n":1}"#),
    // 7 stands for the model's own.
    (#""prompt":"p","cfg_scale":7"#, #"{"prompt":"p","n":1}"#),
    (#""prompt":"p","cfg_scale":7.0,"negative_prompt":"dark""#, #"{"prompt":"p","n":1,"negative_prompt":"dark"}"#),
    // Guidance that was asked for needs a negative prompt, also an empty one.
    (#""prompt":"p","cfg_scale":3.5"#, #"{"prompt":"p","n":1,"true_cfg_scale":3.5,"negative_prompt":""}"#),
    (#""prompt":"p","cfg_scale":1"#, #"{"prompt":"p","n":1,"true_cfg_scale":1}"#),
    // Tags become adapters.
    (
      #""prompt":"a <lora:sketch:0.8> cat""#,
      #"{"prompt":"a cat","n":1,"loras":[{"name":"sketch","scale":0.8}]}"#
    ),
    (
      #""prompt":"<lora:a> 1 < 2 > 0, <lora:B-2.x:-0.5:0.25> <LyCO:a:unet=2><lora>""#,
      #"{"prompt":"1 < 2 > 0, <lora>","n":1,"loras":[{"name":"a","scale":3},{"name":"B-2.x","scale":0.25}]}"#
    ),
    (#""prompt":"cat <lora:a:1> ""#, #"{"prompt":"cat","n":1,"loras":[{"name":"a","scale":1}]}"#),
    (#""prompt":"p","width":128,"height":96"#, #"{"prompt":"p","n":1,"width":128,"height":96}"#),
    (#""prompt":"p","width":130"#, #"{"prompt":"p","n":1,"width":128,"height":64}"#),
    (
      #""prompt":"p","override_settings":{"samples_format":"jpg","jpeg_quality":80}"#,
      #"{"prompt":"p","n":1,"output_format":"jpeg","output_compression":80}"#
    ),
    // What A1111 does not know either, and what programs send beside the request.
    (#""prompt":"p","url":"http://x","auth":"user:key","eta":1,"s_churn":0"#, #"{"prompt":"p","n":1}"#),
  ])
  func eachFieldBecomesOneOfThisAPI(_ body: String, _ expected: String) throws {
    #expect(try Self.fields("{\(body)}").fields == JSON(Array(expected.utf8)))
  }

  @Test func aModelWithANegativePromptOfItsOwnKeepsIt() throws {
    let fields = try Self.fields(#"{"prompt":"p","cfg_scale":3,"negative_prompt":""}"#, card: Self.published).fields
    #expect(fields == ["prompt": "p", "n": 1, "true_cfg_scale": 3])
  }

  @Test(arguments: [
    (64, 64, 64, 64), (512, 512, 208, 208), (70, 200, 64, 208), (1024, 512, 256, 128), (10, 10, 64, 64),
    (2000, 100, 256, 64), (256, 256, 208, 208), (65_535, 65_535, 208, 208),
  ])
  func sizesAreTheNearestThatTheModelMakes(_ width: Int, _ height: Int, _ toWidth: Int, _ toHeight: Int) {
    let size = Toy.card.limits.nearest(to: ImageSize(widthPx: width, heightPx: height))
    #expect(size == ImageSize(widthPx: toWidth, heightPx: toHeight), "\(size)")
    #expect(Toy.card.limits.takes(size))
  }

  @Test func whatIsReplacedIsNoted() throws {
    let body = """
      {"prompt":"p","sampler_name":"LMS Karras","scheduler":"karras","cfg_scale":7,"width":512,"height":512,
       "override_settings":{"CLIP_stop_at_last_layers":2,"sd_vae":null}}
      """
    let notes = try Self.fields(body).notes.joined(separator: "\n")
    for text in ["sampler_name is Euler", "scheduler", "cfg_scale 7", "208x208", "CLIP_stop_at_last_layers"] {
      #expect(notes.contains(text), "\(text) is missing in \(notes)")
    }
    #expect(!notes.contains("sd_vae"))
    #expect(try Self.fields(#"{"prompt":"p","sampler_name":"Euler","scheduler":"Automatic"}"#).notes.isEmpty)
  }

  @Test(
    arguments: [
      ("DPM++ 2M", "Beta", "dpmpp_2m", "beta"), ("DPM++ 2M SDE", "SGM Uniform", "dpmpp_2m_sde", "sgm_uniform"),
      ("heun", "simple", "heun", "simple"), ("UniPC", "Automatic", "unipc", nil), ("Euler", "linear", nil, "linear"),
      ("k_dpmpp_2m", "", "dpmpp_2m", nil), ("DPM++ 2M SGM Uniform", "", "dpmpp_2m", "sgm_uniform"),
      ("er_sde", "sgm_uniform", "er_sde", "sgm_uniform"), ("RES Multistep", "Automatic", "res_multistep", nil),
      ("DPM++ 2M Karras", "", "dpmpp_2m", nil),
    ] as [(String, String, String?, String?)])
  func samplersHaveNamesOfThisAPI(_ sampler: String, _ scheduler: String, _ ours: String?, _ schedule: String?) throws {
    let found = try Self.fields(#"{"prompt":"p","sampler_name":"\#(sampler)","scheduler":"\#(scheduler)"}"#)
    #expect(found.fields["sampler"]?.text == ours && found.fields["schedule"]?.text == schedule)
    #expect(found.notes.isEmpty, "\(found.notes)")
  }

  @Test(arguments: [
    (#"{"prompt":"a <hypernet:sketch:0.8> cat"}"#, "prompt", "<hypernet:sketch"),
    (#"{"prompt":"a <lora:a/b:0.8> cat"}"#, "prompt", "<lora:a/b:0.8>: a name must be"),
    (#"{"prompt":"<lora:a:much>"}"#, "prompt", "the scale is no number"),
    (#"{"prompt":"<lora:a:nan>"}"#, "prompt", "the scale is no number"),
    (#"{"prompt":"<lora:a:11>"}"#, "prompt", "must be from -10.0 to 10.0"),
    (#"{"prompt":"<lora:a:1:1:8>"}"#, "prompt", "ranks"),
    (
      #"{"prompt":"<lora:a><lora:b><lora:c><lora:d><lora:e><lora:f><lora:g><lora:h><lora:i>"}"#, "prompt",
      "<lora:i>: a request may name 8"
    ),
    (#"{"prompt":"p","negative_prompt":"<LORA:bad:1>"}"#, "negative_prompt", "bad"),
    (#"{"prompt":"p","sampler_name":"nonsense"}"#, "sampler_name", "Sampler not found"),
    (#"{"prompt":"p","enable_hr":true}"#, "enable_hr", "hires"),
    (#"{"prompt":"p","tiling":true}"#, "tiling", "tile"),
    (#"{"prompt":"p","restore_faces":1}"#, "restore_faces", "face"),
    (#"{"prompt":"p","subseed_strength":0.5}"#, "subseed_strength", "variation"),
    (#"{"prompt":"p","seed_resize_from_w":64}"#, "seed_resize_from_w", "resized"),
    (#"{"prompt":"p","styles":["Cinematic"]}"#, "styles", "Cinematic"),
    (#"{"prompt":"p","script_name":"X/Y/Z plot"}"#, "script_name", "not found"),
    (#"{"prompt":"p","refiner_checkpoint":"r"}"#, "refiner_checkpoint", "refiner"),
    (#"{"prompt":"p","alwayson_scripts":{"ADetailer":{"args":[true,{}]}}}"#, "alwayson_scripts", "ADetailer"),
    (#"{"prompt":"p","batch_size":4,"n_iter":3}"#, "batch_size", "12"),
    (#"{"prompt":"p","batch_size":11}"#, "batch_size", "from 1 to 10"),
    (#"{"prompt":"p","steps":"many"}"#, "steps", "whole number"),
    (#"{"prompt":"p","steps":2.5}"#, "steps", "whole number"),
    (#"{"prompt":7}"#, "prompt", "a string"),
    (#"{"prompt":"p","styles":"x"}"#, "styles", "a list"),
    (#"{"prompt":"p","override_settings":[]}"#, "override_settings", "object"),
    (
      #"{"prompt":"p","alwayson_scripts":{"controlnet":{"args":[{"image":"eA==","module":"canny"}]}}}"#,
      "alwayson_scripts.controlnet.module", "canny"
    ),
    (
      #"{"prompt":"p","alwayson_scripts":{"ControlNet":{"args":[{"enabled":true}]}}}"#,
      "alwayson_scripts.controlnet.image", "missing"
    ),
  ])
  func whatWouldGiveAnotherImageIsRefusedByName(_ body: String, _ param: String, _ text: String) throws {
    let error = try #require(Self.error(body))
    #expect(error.param == param && error.message.contains(text), "\(error)")
  }

  @Test func extensionsThatAreOffAreNotRefused() throws {
    let body = """
      {"prompt":"p","alwayson_scripts":{"ADetailer":{"args":[false]},"x":{"args":[]},"ControlNet":{"args":[]},
       "y":{"args":[{"enabled":false}]},"controlnet":{"args":[{"enabled":false,"module":"canny"}]}}}
      """
    #expect(try Self.fields(body).fields == ["prompt": "p", "n": 1])
  }

  @Test func imagesForControlNetworksKeepTheirNumbers() throws {
    let body = """
      {"prompt":"p","alwayson_scripts":{"controlnet":{"args":[
       {"image":"eA==","weight":0.5,"guidance_start":0.1,"guidance_end":0.9,"module":"none","model":"m"},
       {"input_image":"eQ==","enabled":true}, {"image":{"image":"eg==","mask":"eg=="}}]}}}
      """
    let fields = try Self.fields(body).fields
    #expect(fields["control_image"] == ["eA==", "eQ==", "eg=="])
    #expect(fields["control_scale"]?.elements?.compactMap(\.double) == [0.5, 1, 1])
    #expect(fields["control_start"]?.elements?.compactMap(\.double) == [0.1, 0, 0])
    #expect(fields["control_end"]?.elements?.compactMap(\.double) == [0.9, 1, 1])
  }

  // MARK: Images

  @Test func anImageIsBegunWith() throws {
    let fields = try Self.fields(img2img: #","denoising_strength":0.4,"width":64,"height":64"#).fields
    #expect(fields["image"]?.count == 1 && fields["strength"]?.double == 0.4 && fields["mask"] == nil)
    #expect(fields["width"]?.integer == 64 && fields["padding_mask_crop"] == nil && fields["mask_blur"] == nil)
    #expect(try Self.fields(img2img: "").fields["strength"]?.double == 0.75)
  }

  /// With a strength of 1 nothing of the image would be left: models that edit, edit.
  @Test func aModelThatEditsDoesSoWithStrengthOne() throws {
    let edited = try Self.fields(img2img: #","denoising_strength":1"#)
    #expect(edited.fields["strength"] == nil && edited.notes.contains { $0.contains("edited") })
    let begun = try Self.fields(img2img: #","denoising_strength":1"#, card: Intake.imageToImageCard)
    #expect(begun.fields["strength"]?.double == 1)
    var onlyEdits = Intake.card
    onlyEdits.pipelines = [.textToImage, .editPlus]
    #expect(try Self.fields(img2img: #","denoising_strength":0.4"#, card: onlyEdits).fields["strength"] == nil)
  }

  @Test func aMaskHasA1111sSettings() throws {
    let mask = Intake.dataURL(try PNG.encode(Intake.image(channels: 1)))
    let usual = try Self.fields(img2img: #","mask":"\#(mask)""#).fields
    #expect(usual["mask"]?.text == mask, "it is sent on as it came")
    #expect(usual["mask_blur"]?.double == 4 && usual["padding_mask_crop"]?.integer == 0)
    let other = try Self.fields(
      img2img: #","mask":"\#(mask)","mask_blur":0,"inpaint_full_res":false,"inpainting_fill":0,"denoising_strength":1"#)
    #expect(other.fields["mask_blur"] == nil && other.fields["padding_mask_crop"] == nil)
    #expect(other.fields["strength"]?.double == 1 && other.notes.contains { $0.contains("inpainting_fill") })
    let padded = try Self.fields(img2img: #","mask":"\#(mask)","inpaint_full_res_padding":32"#).fields
    #expect(padded["padding_mask_crop"]?.integer == 32)
    #expect(
      throws: APIError.self, "the blur must be the same in both directions",
      performing: { try Self.fields(img2img: #","mask":"\#(mask)","mask_blur_x":1,"mask_blur_y":2"#) })
  }

  /// White is what is made anew, in A1111's masks with transparency what is opaque.
  @Test func masksAreTurnedAround() throws {
    func pixels(of mask: RasterImage, _ members: String) throws -> [UInt8] {
      let url = Intake.dataURL(try PNG.encode(mask))
      let image = try PNG.encode(Intake.image(2, 1))
      let fields = try Self.fields(img2img: #","mask":"\#(url)"\#(members)"#, image: image).fields
      let sent = try #require(fields["mask"]?.text)
      return try ImageFile.decode(DataURL.bytes(of: sent, field: "mask", maxBytes: 1 << 20)).asMask.pixels
    }
    let plain = RasterImage(width: 2, height: 1, channels: 1, pixels: [0, 255])
    #expect(try pixels(of: plain, "") == [0, 255])
    #expect(try pixels(of: plain, #","inpainting_mask_invert":1"#) == [255, 0])
    let transparent = RasterImage(width: 2, height: 1, channels: 4, pixels: [9, 9, 9, 0, 9, 9, 9, 255])
    #expect(try pixels(of: transparent, "") == [0, 255])
    #expect(try pixels(of: transparent, #","inpainting_mask_invert":1"#) == [255, 0])
  }

  @Test func imagesAreStretchedOrRefused() throws {
    let image = try Intake.png(128, 64)
    for (mode, size, isTaken) in [
      (0, #""width":64,"height":64"#, true), (1, #""width":128,"height":64"#, true),
      (1, #""width":64,"height":64"#, false), (2, #""width":64,"height":128"#, false),
      (3, #""width":256,"height":128"#, true),
    ] {
      let members = #","resize_mode":\#(mode),\#(size)"#
      guard !isTaken else {
        _ = try Self.fields(img2img: members, image: image)
        continue
      }
      do {
        _ = try Self.fields(img2img: members, image: image)
        Issue.record("\(members) was taken")
      } catch let error as APIError { #expect(error.param == "resize_mode" && error.message.contains("128x64")) }
    }
  }

  /// A trap ends the process, and so the test.
  @Test func damagedBodiesNeverTrap() throws {
    let image = Intake.dataURL(try PNG.encode(Intake.image(2, 2, channels: 4)))
    let bodies = [
      #"{"prompt":"a <lora:x:1> \u00e9","seed":-1,"steps":20.0,"cfg_scale":7,"width":1e3,"height":"64","n_iter":2}"#,
      #"{"prompt":"p","init_images":["\#(image)"],"mask":"\#(image)","mask_blur":4,"resize_mode":1,"#
        + #""width":64,"height":9}"#,
      #"{"prompt":"p","alwayson_scripts":{"controlnet":{"args":[{"image":"eA==","weight":0.5}]},"#
        + #""x":{"args":[false]}}}"#,
      #"{"prompt":"p","override_settings":{"sd_model_checkpoint":"a [b]","samples_format":"jpg"},"#
        + #""sampler_name":"LMS"}"#,
    ].map { Array($0.utf8) }
    let pieces = ["9999999999999999999", "-0", "1e400", "null", "[]", "{}", "true", "\"", ",", "65535", "0.5"]
    var random = TestRandom("web ui bodies"), taken = 0
    for _ in 0..<4000 {
      var body = bodies.randomElement(using: &random) ?? []
      for _ in 0..<Int.random(in: 0...3, using: &random) {
        let place = Int.random(in: 0..<body.count, using: &random)
        let end = min(body.count, place + Int.random(in: 0...6, using: &random))
        body.replaceSubrange(place..<end, with: Array((pieces.randomElement(using: &random) ?? "").utf8))
      }
      for route in [Route.textToImage, .imageToImage] {
        do throws(APIError) {
          let fields = try Self.fields(String(decoding: body, as: UTF8.self), route, card: Intake.card).fields
          _ = try GenerationRequest(value: fields, maxPromptBytes: 1000)
          taken += 1
        } catch { #expect(!WebUIRequest.renamed(error).message.isEmpty) }
      }
    }
    #expect(taken > 100)
  }

  @Test func errorsNameTheFieldsThatWereSent() throws {
    for (error, param, message) in [
      (APIError(.invalidValue, "strength is 2", param: "strength"), "denoising_strength", "denoising_strength is 2"),
      (APIError(.missingField, "image is missing", param: "image"), "init_images", "init_images is missing"),
      (APIError(.invalidValue, "image: it is cut off", param: "image"), "init_images", "init_images: it is cut off"),
      (APIError(.invalidValue, "the last of them", param: "n"), "batch_size", "the last of them"),
      (APIError(.invalidValue, "steps is 0", param: "steps"), "steps", "steps is 0"),
    ] {
      let renamed = WebUIRequest.renamed(error)
      #expect(renamed.param == param && renamed.message == message)
    }
    #expect(Self.error(#"{"prompt":"p"}"#, .imageToImage)?.param == "init_images")
    #expect(Self.error(#"{"prompt":"p","init_images":[7]}"#, .imageToImage)?.param == "init_images")
  }
}
