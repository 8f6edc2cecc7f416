import ClusterCore
import GatewayAPI
import ImageCodec
import Scheduling
import StrictJSON

/// What a client asks for, as it was sent, by whichever route: every field is of the right type, nothing was compared
/// with a model yet.
public struct GenerationRequest: Hashable, Sendable {
  /// Levels of nesting that the body may have: the API knows two.
  private static let maxDepth = 16
  /// Values that the body may have: the API knows about a hundred.
  private static let maxValues = 4096

  /// What to draw.
  public var prompt = ""
  /// Whether the prompt is rewritten before the images are made.
  public var enhancesPrompt = false
  /// The model; nil: the cluster's.
  public var model: String?
  /// Images to make; image i has the seed `seed + i`.
  public var imageCount = 1
  /// Width and height in pixels; nil: the model's.
  public var size: (width: Int, height: Int)? { width.flatMap { width in height.map { (width, $0) } } }
  var width: Int?
  var height: Int?
  /// Whether the size came in the field `size`, for error messages.
  var hasSizeField = false
  /// Seed of the first image's noise; nil: a random one.
  public var seed: Int?
  /// Denoising steps; nil: the model's.
  public var steps: Int?
  /// The field that `steps` came in, for error messages.
  var stepsField = "steps"
  /// Scale of true classifier-free guidance; nil: the model's.
  public var trueCFGScale: Double?
  /// What not to draw; nil: the model's.
  public var negativePrompt: String?
  /// How the steps are taken.
  var sampling = SamplingChoice.standard
  /// How urgent it is.
  public var priority = JobPriority.interactive
  /// When it is given up, and the client's notes.
  public var jobOptions = JobOptions()
  /// Whether events are streamed.
  public var isStreamed = false
  /// Previews that a stream shows of each image, at most.
  public var partialImageCount = 0
  /// The pipeline by name; nil: the one that the request's images are for.
  public var pipeline: String?
  /// What the request says in fields of pipelines' own, read by each of them.
  var options: [PipelineName: [String: JSON]] = [:]
  /// Those of them that the request has.
  var optionFields: Set<String> = []
  /// Whether images like the request's are asked for: then what is transparent in it is no mask.
  var isVariation = false
  /// Pixels to make around the image.
  var outpainting: Outpainting?
  /// The object that is edited; nil: the image is.
  var object: ObjectEdit?
  /// Several edits instead of one.
  var instructions: [EditInstruction] = []
  /// The request's images, as they were sent.
  public var uploads: [UploadedImage] = []
  /// How the images are answered.
  public var resultFormat = ResultFormat.base64
  /// What is behind what the images show.
  var background = BackgroundChoice.auto
  /// Adapters that act together, in their order; once the request is for a model, with the digests of their contents.
  public var loras: [RequestedAdapter] = []
  /// What file an image becomes.
  var encoding = ImageEncoding.png
  /// Which steps leave out parts of the network; nil: none.
  var cache: StepCache?

  /// How images are answered.
  public enum ResultFormat: String, CaseIterable, Sendable {
    /// In the answer.
    case base64 = "b64_json"
    /// By the addresses of their results.
    case url
  }

  /// What a route is for.
  public enum Kind: Sendable {
    /// Images of a prompt, or whatever the fields say.
    case generation
    /// Images of a prompt and images.
    case edit
    /// Images like an image.
    case variation

    /// What the names of a stream's events begin with, as in OpenAI's API.
    public var eventPrefix: String { self == .edit ? "image_edit" : "image_generation" }
  }

  /// Reads a body of JSON.
  ///
  /// - Parameters:
  ///   - body: as it came.
  ///   - kind: what the route is for.
  ///   - pipelines: those that this gateway knows.
  ///   - intake: what images may be.
  ///   - maxPromptBytes: bound on the prompts before any model's own limit is known.
  public init(
    body: [UInt8], _ kind: Kind = .generation, pipelines: PipelineRegistry = .standard,
    intake: ImageIntake = ImageIntake(), maxPromptBytes: Int
  ) throws(APIError) {
    try self.init(
      value: Self.value(body), kind, pipelines: pipelines, intake: intake, maxPromptBytes: maxPromptBytes)
  }

  /// The JSON of a body, which has yet to be read.
  public static func value(_ body: [UInt8]) throws(APIError) -> JSON {
    guard !body.isEmpty else { throw APIError(.invalidJSON, "the body is empty") }
    do { return try JSON(body, maxDepth: maxDepth, maxValues: maxValues) } catch {
      throw APIError(.invalidJSON, "the body is not JSON: \(error)")
    }
  }

  /// Reads what ``value(_:)`` has given, or what was made of a request to another API. Parameters as above.
  public init(
    value: JSON, _ kind: Kind = .generation, pipelines: PipelineRegistry = .standard,
    intake: ImageIntake = ImageIntake(), maxPromptBytes: Int
  ) throws(APIError) {
    var fields = try FieldReader(value)
    uploads = try intake.uploads(in: &fields)
    try read(&fields, kind, pipelines, maxPromptBytes)
  }

  /// Reads a form: files are the images, texts the other fields. A file without a name and without bytes is what
  /// browsers send for a field that was left empty, and counts as absent. Parameters as above.
  public init(
    form: MultipartForm, _ kind: Kind = .generation, pipelines: PipelineRegistry = .standard,
    intake: ImageIntake = ImageIntake(), maxPromptBytes: Int
  ) throws(APIError) {
    uploads = try intake.uploads(in: form)
    var texts: [(name: String, value: String)] = []
    for part in form.parts where ImageField(part.name) == nil {
      guard let text = String(validating: part.bytes, as: UTF8.self) else {
        throw APIError(.invalidValue, "\(part.name.prefix(80)) is not UTF-8", param: String(part.name.prefix(80)))
      }
      texts.append((part.name, text))
    }
    var fields = try FieldReader(form: texts, prompts: ["prompt", "negative_prompt"])
    try read(&fields, kind, pipelines, maxPromptBytes)
  }

  private mutating func read(
    _ fields: inout FieldReader, _ kind: Kind, _ pipelines: PipelineRegistry, _ maxPromptBytes: Int
  ) throws(APIError) {
    isVariation = kind == .variation
    try readPrompt(&fields, kind, maxPromptBytes)
    enhancesPrompt = try fields.bool(PromptEnhancement.field) ?? false
    model = try fields.nonEmptyString("model", maxBytes: 256)
    imageCount = try fields.integer("n", in: 1...ImageSpec.maxImageCount) ?? 1
    trueCFGScale = try fields.number("true_cfg_scale", in: 0...ModelLimits.maxTrueCFGScale)
    negativePrompt = try fields.string("negative_prompt", maxBytes: maxPromptBytes, tooLong: .promptTooLong)
    sampling = try SamplingChoice(&fields)
    isStreamed = try fields.bool("stream") ?? false
    priority =
      try fields.choice("priority", JobPriority.allCases.map(\.rawValue)).flatMap { JobPriority(rawValue: $0) }
      ?? .interactive
    jobOptions = try JobOptions(&fields)
    try readSize(&fields)
    try readSteps(&fields)
    try readSeed(&fields)
    try readOpenAIFields(&fields)
    cache = try StepCache.read(&fields)
    pipeline = try pipelines.name(try fields.string("pipeline"))
    outpainting = try Outpainting(&fields)
    object = try ObjectEdit(&fields)
    instructions = try EditInstruction.list(&fields, pipelines, maxPromptBytes: maxPromptBytes)
    loras = try RequestedAdapter.list(&fields)
    options = try pipelines.readOptions(&fields)
    let names = Set(options.values.flatMap(\.keys))
    optionFields = names.filter { fields.holds($0) }
    if kind != .generation, uploads.isEmpty { throw APIError(.missingField, "image is missing", param: "image") }
    try fields.refuseOthers()
  }

  private mutating func readPrompt(
    _ fields: inout FieldReader, _ kind: Kind, _ maxPromptBytes: Int
  ) throws(APIError) {
    let prompt = try fields.string("prompt", maxBytes: maxPromptBytes, tooLong: .promptTooLong)
    if kind == .variation {
      self.prompt = prompt ?? ""
      return
    }
    guard let prompt else { throw APIError(.missingField, "prompt is missing", param: "prompt") }
    guard !prompt.isEmpty else { throw APIError(.invalidValue, "prompt is empty", param: "prompt") }
    self.prompt = prompt
  }

  private mutating func readSize(_ fields: inout FieldReader) throws(APIError) {
    let text = try fields.nonEmptyString("size")
    width = try fields.integer("width", in: 1...Int(UInt16.max))
    height = try fields.integer("height", in: 1...Int(UInt16.max))
    if (width == nil) != (height == nil) {
      let missing = width == nil ? "width" : "height"
      throw APIError(.missingField, "\(missing) is missing: width and height go together", param: missing)
    }
    guard let text, text != "auto" else { return }
    let parts = text.split(separator: "x", omittingEmptySubsequences: false)
    guard parts.count == 2, let w = Self.pixels(parts[0]), let h = Self.pixels(parts[1]) else {
      throw APIError(
        .invalidValue,
        "size is \"\(text.prefix(40))\", but must be \"auto\" or WIDTHxHEIGHT in pixels, such as \"1328x1328\"",
        param: "size")
    }
    if let width, let height, (width, height) != (w, h) {
      throw APIError(
        .invalidValue, "size is \(text), but width and height are \(width) and \(height): give one of them",
        param: "size")
    }
    (width, height) = (w, h)
    hasSizeField = true
  }

  /// A whole number of pixels; one that is too large is for the model's limits to refuse.
  private static func pixels(_ text: Substring) -> Int? {
    guard (1...18).contains(text.utf8.count),
      text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
      text.first != "0"
    else { return nil }
    return Int(text)
  }

  private mutating func readSteps(_ fields: inout FieldReader) throws(APIError) {
    let range: ClosedRange<Int> = 1...100_000
    let short = try fields.integer("steps", in: range)
    let long = try fields.integer("num_inference_steps", in: range)
    if let short, let long, short != long {
      throw APIError(
        .invalidValue, "steps is \(short), but num_inference_steps is \(long): give one of them", param: "steps")
    }
    steps = short ?? long
    if short == nil { stepsField = "num_inference_steps" }
  }

  private mutating func readSeed(_ fields: inout FieldReader) throws(APIError) {
    seed = try fields.integer("seed", in: 0...Int.max)
    if let seed, seed > Int.max - Int(imageCount - 1) {
      throw APIError(
        .invalidValue, "seed is \(seed), but the last of \(imageCount) images would need a seed above \(Int.max)",
        param: "seed")
    }
  }

  /// Fields of OpenAI's API, most of them without a meaning for this model: what changes nothing is taken, what would
  /// give another result than asked
  /// for is refused.
  private mutating func readOpenAIFields(_ fields: inout FieldReader) throws(APIError) {
    // By OpenAI's API these models answer with addresses unless asked otherwise, and programs with their names built in
    // rely on that.
    let standard = model?.hasPrefix("dall-e-") == true ? ResultFormat.url : .base64
    let format = try fields.choice("response_format", ResultFormat.allCases.map(\.rawValue))
    resultFormat = format.flatMap { ResultFormat(rawValue: $0) } ?? standard
    encoding = try ImageEncoding(&fields)
    background =
      try fields.choice("background", BackgroundChoice.allCases.map(\.rawValue)).flatMap {
        BackgroundChoice(rawValue: $0)
      } ?? .auto
    guard background != .transparent || encoding.keepsTransparency else {
      throw APIError(
        .invalidValue,
        "background is \"transparent\", but JPEG has no transparency: use output_format \"png\" or \"webp\"",
        param: "background")
    }
    _ = try fields.choice("quality", ["auto", "standard", "hd", "low", "medium", "high", "xhigh", "max"])
    _ = try fields.choice("complexity", ["low", "medium", "high"])
    _ = try fields.choice("moderation", ["auto", "low"])
    _ = try fields.choice("style", ["vivid", "natural"])
    _ = try fields.choice("input_fidelity", ["low", "high"])
    _ = try fields.string("user")
    _ = try fields.string("safety_identifier")
    partialImageCount = try fields.integer("partial_images", in: 0...3) ?? 0
    for name in ["frame_count", "frame_duration_ms", "svg"] {
      try fields.refuse(name, because: "images are PNG, WebP or JPEG")
    }
  }
}
