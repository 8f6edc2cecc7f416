import ClusterCore
import GatewayAPI
import GatewayPipelines
import StrictJSON

/// A body of A1111's `POST /sdapi/v1/txt2img` or `/img2img`, read without a model.
///
/// Fields without a meaning for this server's models are of three kinds: those that change nothing here are left alone,
/// those whose value is replaced are named among the answer's notes, and those that ask for something else than would
/// be made are refused by name.
package struct WebUIRequest: Sendable {
  /// Which of the two routes.
  package enum Route: String, Sendable {
    /// Images of a prompt.
    case textToImage = "txt2img"
    /// Images of a prompt and an image.
    case imageToImage = "img2img"
  }

  /// Levels of nesting that a body may have: a unit of an extension is four levels deep.
  private static let maxDepth = 16
  /// Values that a body may have: extensions send some hundreds.
  private static let maxValues = 4096
  /// The guidance scale that clients of A1111 send when their user has chosen none.
  static let customaryScale = 7.0

  let route: Route
  let prompt: String
  let negativePrompt: String
  /// Adapters that tags in the prompt name.
  let loras: [RequestedAdapter]
  let batchSize: Int
  let iterations: Int
  /// nil: a random one.
  let seed: Int?
  let steps: Int?
  let cfgScale: Double?
  let width: Int?
  let height: Int?
  /// How the steps are taken.
  let sampling: SamplingChoice
  /// Whether the answer has the images.
  let sendsImages: Bool
  /// What the request sets for itself alone.
  let overrides: WebUIOverrides
  /// The images of img2img.
  package let images: WebUIImages?
  let controls: [WebUIControlUnit]
  /// What was not taken as it was sent.
  package var notes: [String] = []

  /// Reads a body.
  ///
  /// - Throws: an error about a field of A1111's API.
  package init(body: [UInt8], _ route: Route) throws(APIError) {
    let value: JSON
    do { value = try JSON(body, maxDepth: Self.maxDepth, maxValues: Self.maxValues) } catch {
      throw APIError(.invalidJSON, "the body is not JSON: \(error)")
    }
    let fields = try WebUIFields(value)
    self.route = route
    let tagged = try WebUITaggedPrompt(fields.text("prompt") ?? "")
    (prompt, loras) = (tagged.prompt, tagged.loras)
    negativePrompt = try WebUITaggedPrompt.untagged(fields.text("negative_prompt") ?? "")
    let limit = ImageSpec.maxImageCount
    batchSize = try fields.integer("batch_size", in: 1...limit) ?? 1
    iterations = try fields.integer("n_iter", in: 1...limit) ?? 1
    guard batchSize * iterations <= limit else {
      throw fields.error("batch_size", "times n_iter is \(batchSize * iterations); one request may ask for \(limit)")
    }
    seed = try fields.integer("seed", in: Int.min...Int.max).flatMap { $0 < 0 ? nil : $0 }
    steps = try fields.integer("steps", in: 1...100_000)
    cfgScale = try fields.number("cfg_scale")
    width = try fields.integer("width", in: 1...Int(UInt16.max))
    height = try fields.integer("height", in: 1...Int(UInt16.max))
    (sampling, notes) = try Self.sampling(fields)
    sendsImages = try fields.flag("send_images") ?? true
    overrides = try WebUIOverrides(fields)
    images = route == .imageToImage ? try WebUIImages(fields) : nil
    controls = try WebUIControlUnit.units(of: fields)
    try Self.refuseOthers(fields)
    notes += tagged.notes + overrides.notes + (images?.notes ?? [])
  }

  private static func sampling(_ fields: WebUIFields) throws(APIError) -> (choice: SamplingChoice, notes: [String]) {
    var choice = SamplingChoice.standard, notes: [String] = []
    var name = try fields.name("sampler_name")
    // The older name of the same field.
    if name == nil, fields.value("sampler_index")?.text != nil { name = try fields.name("sampler_index") }
    if let name {
      guard let named = WebUISampler.choice(name) else {
        let list = SamplerName.allCases.map { WebUISampler.title($0) }.joined(separator: ", ")
        throw fields.error("sampler_name", "is \"\(name.prefix(80))\": Sampler not found; use one of \(list)")
      }
      if named.sampler == nil { notes.append("sampler_name is Euler: this server does not have \(name)") }
      (choice.sampler, choice.schedule) = (named.sampler ?? .euler, named.schedule)
    }
    guard let schedule = try fields.name("scheduler"), !WebUISampler.isOwn(schedule) else { return (choice, notes) }
    choice.schedule = WebUISampler.schedule(schedule)
    if choice.schedule == nil { notes.append("scheduler is the model's own, not \(schedule)") }
    return (choice, notes)
  }

  /// Refuses what would give another image than asked for.
  private static func refuseOthers(_ fields: WebUIFields) throws(APIError) {
    func refuse(_ name: String, _ reason: String) -> APIError { fields.error(name, reason, .unsupportedValue) }
    if try fields.flag("enable_hr") == true {
      throw refuse("enable_hr", "is true, but there is no hires fix: ask for the size by width and height")
    }
    if try fields.flag("tiling") == true { throw refuse("tiling", "is true, but images cannot be made to tile") }
    if try fields.flag("restore_faces") == true {
      throw refuse("restore_faces", "is true, but this server has no face restoration")
    }
    if try fields.number("subseed_strength") ?? 0 > 0 {
      throw refuse("subseed_strength", "is above 0, but there are no variation seeds: use seed")
    }
    for name in ["seed_resize_from_w", "seed_resize_from_h"] where try fields.number(name) ?? 0 > 0 {
      throw refuse(name, "is above 0, but seeds cannot be resized")
    }
    if let style = try fields.list("styles", maxCount: 1000)?.first {
      throw refuse("styles", "has \"\(style.text?.prefix(80) ?? "")\", but there are no prompt styles")
    }
    if let script = try fields.name("script_name"), script.lowercased() != "none" {
      throw refuse("script_name", "is \"\(script.prefix(80))\": Script not found")
    }
    if let refiner = try fields.name("refiner_checkpoint"), refiner.lowercased() != "none" {
      throw refuse("refiner_checkpoint", "is \"\(refiner.prefix(80))\", but there is no refiner")
    }
  }
}

/// `override_settings`: what holds for one request.
struct WebUIOverrides: Sendable {
  /// As it was sent.
  let sent: JSON
  /// The title of the model; nil: the tenant's choice.
  let model: String?
  /// `png`, `webp` or `jpeg`; nil: PNG.
  let format: String?
  let quality: Int?
  var notes: [String] = []

  private static let known: Set = ["sd_model_checkpoint", "samples_format", "jpeg_quality"]

  init(_ fields: WebUIFields) throws(APIError) {
    guard let settings = try fields.object("override_settings") else {
      (sent, model, format, quality) = ([:], nil, nil, nil)
      return
    }
    sent = .object(settings.members)
    model = try settings.name("sd_model_checkpoint")
    let name = try settings.name("samples_format")?.lowercased()
    format = name == "jpg" ? "jpeg" : name
    // PNG has no quality: a client that sends one has JPEG in mind.
    quality = format == nil || format == "png" ? nil : try settings.integer("jpeg_quality", in: 0...100)
    let others = settings.members.keys.filter { !Self.known.contains($0) && settings.value($0) != nil }
    if !others.isEmpty {
      notes.append("without effect in override_settings: \(others.prefix(20).joined(separator: ", ").prefix(400))")
    }
  }
}

/// The images of img2img, and what is done with them.
package struct WebUIImages: Sendable {
  /// Most images of a request: as of the other routes.
  private static let maxCount = ImageSpec.maxInputCount

  /// Data URLs or base64.
  let images: [String]
  /// White where the image is made anew, in A1111's sense of alpha.
  let mask: String?
  let invertsMask: Bool
  let strength: Double
  let maskBlur: Double
  /// Pixels around the masked part, which alone is made; nil: all of the image is.
  let padding: Int?
  let resizeMode: Int
  var notes: [String] = []

  init(_ fields: WebUIFields) throws(APIError) {
    images = try (fields.list("init_images", maxCount: Self.maxCount) ?? []).enumerated().map {
      (index, image) throws(APIError) in
      guard let text = image.text else {
        throw fields.error("init_images", "[\(index)] must be base64 or a data URL, not \(image.kind)", .invalidType)
      }
      return text
    }
    guard !images.isEmpty else {
      throw APIError(.missingField, "init_images is missing: the image to begin with", param: "init_images")
    }
    mask = try fields.text("mask").flatMap { $0.isEmpty ? nil : $0 }
    invertsMask = try fields.integer("inpainting_mask_invert", in: 0...1) == 1
    strength = try fields.number("denoising_strength") ?? 0.75
    maskBlur = try Self.blur(fields)
    let isCropped = try fields.flag("inpaint_full_res") ?? true
    let pixels = try fields.integer("inpaint_full_res_padding", in: 0...16_384) ?? 0
    padding = isCropped && mask != nil ? pixels : nil
    resizeMode = try fields.integer("resize_mode", in: 0...3) ?? 0
    let fill = try fields.integer("inpainting_fill", in: 0...3) ?? 1
    if mask != nil, fill != 1 {
      notes.append("inpainting_fill is 1: what is under the mask is begun with as the image has it")
    }
  }

  /// The standard deviation in pixels. A1111's own value of a request without one is 4.
  private static func blur(_ fields: WebUIFields) throws(APIError) -> Double {
    let both = try fields.number("mask_blur"), x = try fields.number("mask_blur_x")
    let y = try fields.number("mask_blur_y")
    if let x, let y, x != y {
      throw fields.error("mask_blur_x", "is \(x) and mask_blur_y \(y), but they must be equal", .unsupportedValue)
    }
    return max(0, both ?? x ?? y ?? 4)
  }
}

/// A unit of the ControlNet extension: an image for a control network.
struct WebUIControlUnit: Sendable {
  let image: String
  let weight: Double
  let start: Double
  let end: Double

  /// The enabled units in `alwayson_scripts`. Other extensions are refused, unless what they are sent switches them
  /// off.
  static func units(of fields: WebUIFields) throws(APIError) -> [WebUIControlUnit] {
    guard let scripts = try fields.object("alwayson_scripts") else { return [] }
    var units: [WebUIControlUnit] = []
    for name in scripts.members.keys {
      guard let script = try scripts.object(name) else { continue }
      let arguments = try script.list("args", maxCount: 200) ?? []
      guard name.lowercased() == "controlnet" else {
        if isOff(arguments) { continue }
        throw APIError(
          .unsupportedValue,
          "alwayson_scripts has \"\(name.prefix(80))\", an extension that this server does not have: switch it off in "
            + "the client, or leave it out", param: "alwayson_scripts")
      }
      for argument in arguments {
        // Positional arguments of versions that nothing sends any more.
        guard case .object = argument else { continue }
        if let unit = try WebUIControlUnit(WebUIFields(argument, inside: "alwayson_scripts.controlnet.")) {
          units.append(unit)
        }
      }
    }
    guard units.count <= ImageSpec.maxControlCount else {
      throw APIError(
        .invalidValue,
        "alwayson_scripts.controlnet has \(units.count) enabled units, the limit is "
          + "\(ImageSpec.maxControlCount)", param: "alwayson_scripts.controlnet")
    }
    return units
  }

  /// Whether an extension's arguments say that it does nothing: there are none, the first one is false, or all are
  /// units that are not enabled.
  private static func isOff(_ arguments: [JSON]) -> Bool {
    arguments.allSatisfy { argument in
      guard case .object(let members) = argument else { return false }
      return members["enabled"] == .bool(false) || members["enable"] == .bool(false)
    } || arguments.first == .bool(false)
  }

  /// nil: the unit is not enabled.
  private init?(_ fields: WebUIFields) throws(APIError) {
    guard try fields.flag("enabled") ?? true else { return nil }
    let module = try fields.name("module") ?? "none"
    guard module.lowercased() == "none" else {
      throw fields.error(
        "module",
        "is \"\(module.prefix(80))\", but there are no preprocessors: send the finished control image, and "
          + "\"none\"", .unsupportedValue)
    }
    let value = fields.value("image") ?? fields.value("input_image")
    guard let text = value?.text ?? value?["image"]?.text, !text.isEmpty else {
      throw APIError(
        .missingField, "alwayson_scripts.controlnet.image is missing: the control image",
        param: "alwayson_scripts.controlnet.image")
    }
    image = text
    weight = try fields.number("weight") ?? 1
    start = try fields.number("guidance_start") ?? 0
    end = try fields.number("guidance_end") ?? 1
  }
}
