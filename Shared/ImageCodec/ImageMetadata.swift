import ClusterCore
import Foundation

/// What an image depends on, as it is kept in a PNG file: for galleries in the line that they read, and for programs as
/// JSON.
///
/// The gateway and the command that draws without one make the same texts of the same values.
public struct ImageMetadata: Sendable, Equatable {
  /// Keyword of the text that holds everything as JSON. No other program uses it.
  public static let keyword = "qwen-image-cluster"
  /// Keyword of the text that galleries and A1111's web UI read. ComfyUI's `prompt` and `workflow` hold graphs and are
  /// not used.
  public static let parametersKeyword = "parameters"
  /// Most UTF-8 bytes of one text: a message to a VAE decoder carries more, and JPEG's EXIF data, which are 64 KiB at
  /// most, hold one and the values of another.
  public static let maxTextBytes = 60 << 10
  /// Most noise levels of an image.
  public static let maxSigmas = 256
  /// The software that makes the images.
  public static let software = "qwen-image-cluster"

  /// The model's name.
  public var model: String
  /// SHA-256 of the model's configurations, in hexadecimal.
  public var fingerprint: String?
  /// What was drawn.
  public var prompt: String
  /// What was steered away from; nil: there was no guidance.
  public var negativePrompt: String?
  /// Strength of classifier-free guidance; 1: there was none.
  public var trueCFGScale: Double
  /// Denoising steps.
  public var steps: Int
  /// Width in pixels.
  public var width: Int
  /// Height in pixels.
  public var height: Int
  /// Seed of the initial noise.
  public var seed: UInt64
  /// The version of the software.
  public var softwareVersion: String
  /// How it was made of other images; nil: it was made of the prompt alone.
  public var source: ImageSource?
  /// Noise levels of the steps that the request gave; nil, here and below: it gave none.
  public var sigmas: [Double]?
  /// How one step led to the next, by its name in requests; nil: by Euler's method.
  public var sampler: String?
  /// The name of the schedule that the request asked for.
  public var schedule: String?
  /// Steps with guidance, from the first that was made; nil: all of them.
  public var cfgSteps: Int?
  /// `opaque`: what the model has left transparent was put over white.
  public var background: String?
  /// Which steps left out parts of the network.
  public var cache: StepCache?
  /// Adapters beside the model's weights, in their order; empty, which is not kept: there were none.
  public var loras: [AppliedAdapter] = []

  /// An adapter that an image was made with.
  public struct AppliedAdapter: Sendable, Equatable, Codable {
    /// The name of its file.
    public var name: String
    /// SHA-256 of its contents, in hexadecimal.
    public var sha256: String
    /// How much of it acted.
    public var scale: Double

    /// See the properties.
    public init(name: String, sha256: String, scale: Double) {
      self.name = String(name.prefix(ImageMetadata.maxLoraNameCharacters))
      self.sha256 = sha256
      self.scale = scale
    }
  }

  /// Most adapters of an image.
  public static let maxLoras = 16
  private static let maxNameBytes = 32
  private static let maxLoraNameCharacters = 128

  /// The values of an image; noise levels, background and adapters are set afterwards.
  ///
  /// - Parameters:
  ///   - negativePrompt: without effect, and not kept, unless `trueCFGScale` is above 1.
  ///   - trueCFGScale: without effect, and kept as 1, without a negative prompt.
  public init(
    model: String, fingerprint: String?, prompt: String, negativePrompt: String?, trueCFGScale: Double, steps: Int,
    width: Int, height: Int,
    seed: UInt64, softwareVersion: String, source: ImageSource? = nil
  ) {
    let isGuided = trueCFGScale > 1 && negativePrompt != nil
    self.model = model
    self.fingerprint = fingerprint
    self.prompt = prompt
    self.negativePrompt = isGuided ? negativePrompt : nil
    self.trueCFGScale = isGuided ? trueCFGScale : 1
    self.steps = steps
    self.width = width
    self.height = height
    self.seed = seed
    self.softwareVersion = softwareVersion
    self.source = source
  }

  /// The texts of a PNG file. Prompts that would make one longer than ``maxTextBytes`` are cut in it, and it says so.
  public var texts: [PNG.Text] {
    [PNG.Text("Software", Self.software), PNG.Text(Self.parametersKeyword, parameters), PNG.Text(Self.keyword, record)]
  }
}

// MARK: - JSON

/// The JSON; most names are those of the HTTP API, so that it can be sent to draw the image again. An image that was
/// made of others has those of ``ImageSource`` too.
private struct Record: Codable {
  var values: Values
  var source: ImageSource?

  private enum CodingKeys: CodingKey {
    case pipeline
  }

  init(values: Values, source: ImageSource?) {
    self.values = values
    self.source = source
  }

  init(from decoder: any Decoder) throws {
    values = try Values(from: decoder)
    let fields = try decoder.container(keyedBy: CodingKeys.self)
    source = fields.contains(.pipeline) ? try ImageSource(from: decoder) : nil
  }

  func encode(to encoder: any Encoder) throws {
    try values.encode(to: encoder)
    try source?.encode(to: encoder)
  }
}

/// What every image has.
private struct Values: Codable {
  var software = ImageMetadata.software
  var softwareVersion: String
  var model: String
  var fingerprint: String?
  var prompt: String
  var negativePrompt: String?
  var trueCFGScale: Double
  var steps: Int
  var size: String
  var seed: UInt64
  var sigmas: [Double]?
  var sampler: String?
  var schedule: String?
  var cfgSteps: Int?
  var background: String?
  var cache: StepCache?
  var loras: [ImageMetadata.AppliedAdapter]?
  /// Fields that were too long to be kept whole.
  var cut: [String]?

  enum CodingKeys: String, CodingKey {
    case software, model, fingerprint, prompt, steps, size, seed, sigmas, sampler, schedule, background, cache, loras,
      cut
    case cfgSteps = "cfg_steps"
    case softwareVersion = "software_version"
    case negativePrompt = "negative_prompt"
    case trueCFGScale = "true_cfg_scale"
  }
}

extension ImageMetadata {
  private var record: String {
    let bounded = source?.bounded
    var record = Record(
      values: Values(
        softwareVersion: softwareVersion, model: model, fingerprint: fingerprint, prompt: "", negativePrompt: nil,
        trueCFGScale: trueCFGScale, steps: steps, size: "\(width)x\(height)", seed: seed, sigmas: sigmas,
        sampler: sampler, schedule: schedule, cfgSteps: cfgSteps, background: background, cache: cache,
        loras: loras.isEmpty ? nil : loras), source: bounded?.source)
    var (prompts, cut) = prompts(besides: Self.json(record).utf8.count + 100)
    if bounded?.isCut == true { cut.append("edit_instructions") }
    record.values.prompt = prompts.prompt
    record.values.negativePrompt = prompts.negative
    record.values.cut = cut.isEmpty ? nil : cut
    return Self.json(record)
  }

  private static func json(_ value: some Encodable) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    // A scale that is no number is refused wherever one is read.
    guard let data = try? encoder.encode(value) else { preconditionFailure("metadata with a non-finite number") }
    return String(decoding: data, as: UTF8.self)
  }

  /// The values that an image's texts hold; nil: the image is not one of this software's.
  ///
  /// - Throws: ``PNGError/invalidText(keyword:reason:)`` when the text is there but cannot be read.
  public init?(texts: [PNG.Text]) throws(PNGError) {
    guard let text = texts.first(where: { $0.keyword == Self.keyword })?.text else { return nil }
    let record: Record
    do {
      record = try JSONDecoder().decode(Record.self, from: Data(text.utf8))
    } catch {
      throw .invalidText(keyword: Self.keyword, reason: "it is not the JSON that this software writes")
    }
    let values = record.values
    guard values.trueCFGScale.isFinite else {
      throw .invalidText(keyword: Self.keyword, reason: "its true_cfg_scale is not a number")
    }
    guard values.sigmas?.count ?? 0 <= Self.maxSigmas, values.background?.utf8.count ?? 0 <= 16 else {
      throw .invalidText(keyword: Self.keyword, reason: "its sigmas or its background are too long")
    }
    guard [values.sampler, values.schedule].allSatisfy({ $0?.utf8.count ?? 0 <= Self.maxNameBytes }) else {
      throw .invalidText(keyword: Self.keyword, reason: "the name of its sampler or its schedule is too long")
    }
    guard values.loras?.count ?? 0 <= Self.maxLoras,
      values.loras?.allSatisfy({ $0.name.count <= Self.maxLoraNameCharacters && $0.sha256.utf8.count <= 64 }) ?? true
    else {
      throw .invalidText(keyword: Self.keyword, reason: "its loras are too many, or their names too long")
    }
    if let problem = record.source?.problem { throw .invalidText(keyword: Self.keyword, reason: problem) }
    let sides = values.size.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) }
    guard sides.count == 2, let width = sides[0], let height = sides[1] else {
      throw .invalidText(keyword: Self.keyword, reason: "its size is not WIDTHxHEIGHT")
    }
    self.init(
      model: values.model, fingerprint: values.fingerprint, prompt: values.prompt,
      negativePrompt: values.negativePrompt,
      trueCFGScale: values.trueCFGScale, steps: values.steps, width: width, height: height, seed: values.seed,
      softwareVersion: values.softwareVersion, source: record.source)
    (sigmas, background, cache, loras) = (values.sigmas, values.background, values.cache, values.loras ?? [])
    (sampler, schedule, cfgSteps) = (values.sampler, values.schedule, values.cfgSteps)
  }
}

// MARK: - The line that galleries read

extension ImageMetadata {
  /// The names that end a prompt for readers: some look for their first occurrence, some for their last, some at the
  /// start of lines only.
  private static let markers = ["negative prompt", "steps"]

  /// The prompts, and a last line of names and values.
  private var parameters: String {
    let values = [
      ("Steps", "\(steps)"), ("Sampler", SamplerTitle.sampler(sampler)), ("CFG scale", trueCFGScale.shortText),
      ("Seed", "\(seed)"),
      ("Size", "\(width)x\(height)"),
      ("Model", model), ("Version", "\(Self.software) \(softwareVersion)"),
    ]
    let levels = sigmas.map { [("Sigmas", $0.map(\.shortText).joined(separator: ", "))] } ?? []
    let named = schedule.map { [("Schedule type", SamplerTitle.schedule($0))] } ?? []
    let guided = cfgSteps.map { [("CFG steps", "\($0)")] } ?? []
    let result =
      (background.map { [("Background", $0)] } ?? []) + (cache.map { [("Step cache", $0.description)] } ?? [])
    let adapters =
      loras.isEmpty ? [] : [("LoRAs", loras.map { "\($0.name): \($0.scale.shortText)" }.joined(separator: ", "))]
    let line = (values + levels + named + guided + result + adapters + (source?.parameters ?? []))
      .map { "\($0): \(Self.quotedValue($1))" }.joined(separator: ", ")
    let (prompts, cut) = prompts(besides: line.utf8.count + 100)
    var lines = [Self.readable(prompts.prompt) + (cut.contains("prompt") ? "…" : "")]
    if let negative = prompts.negative.map(Self.readable), !negative.allSatisfy(\.isWhitespace) {
      lines.append("Negative prompt: \(negative)" + (cut.contains("negative_prompt") ? "…" : ""))
    }
    return (lines + [line]).joined(separator: "\n")
  }

  /// A prompt that no reader takes for more than a prompt: a space goes before the colon of what would end it. Newlines
  /// are kept, other control characters are not.
  private static func readable(_ text: String) -> String {
    var result = String.UnicodeScalarView()
    for scalar in text.replacing("\r\n", with: "\n").unicodeScalars {
      switch scalar {
      case ":" where markers.contains(where: { ends(result, with: $0) }): result.append(contentsOf: " :".unicodeScalars)
      case "\r": result.append("\n")
      case "\n": result.append(scalar)
      default: result.append(scalar.properties.generalCategory == .control ? " " : scalar)
      }
    }
    return String(result)
  }

  /// Whether the last characters are those of `marker`, in any case.
  private static func ends(_ text: String.UnicodeScalarView, with marker: String) -> Bool {
    var rest = text[...]
    for expected in marker.unicodeScalars.reversed() {
      guard let found = rest.popLast(), found.isASCII, String(found).lowercased() == String(expected) else {
        return false
      }
    }
    return true
  }

  /// A value as A1111 writes it: as JSON if it holds what separates values.
  private static func quotedValue(_ text: String) -> String {
    let isPlain = !text.unicodeScalars.contains { [",", ":", "\n", "\""].contains($0) }
    return isPlain ? text : json(text)
  }
}

// MARK: - Lengths

extension ImageMetadata {
  /// The prompts, cut where they and `others` bytes would be longer than a text may be; and the names of those that
  /// were cut.
  private func prompts(besides others: Int) -> (prompts: (prompt: String, negative: String?), cut: [String]) {
    let space = max(0, Self.maxTextBytes - others)
    // Half of the space is each one's, and what the other leaves.
    let negative = negativePrompt.map { Self.cut($0, toBytes: max(space / 2, space - Self.bytes(self.prompt))) }
    let prompt = Self.cut(self.prompt, toBytes: space - (negative.map { Self.bytes($0.text) } ?? 0))
    let cut = (prompt.isCut ? ["prompt"] : []) + (negative?.isCut ?? false ? ["negative_prompt"] : [])
    return ((prompt.text, negative?.text), cut)
  }

  private static func cut(_ text: String, toBytes limit: Int) -> (text: String, isCut: Bool) {
    guard bytes(text) > limit else { return (text, false) }
    var count = 0
    let end = text.unicodeScalars.firstIndex {
      count += bytes($0)
      return count > limit
    }
    return (String(text.unicodeScalars[..<(end ?? text.endIndex)]), true)
  }

  private static func bytes(_ text: String) -> Int { text.unicodeScalars.reduce(0) { $0 + bytes($1) } }

  /// The most bytes that a character takes in either text.
  private static func bytes(_ scalar: Unicode.Scalar) -> Int {
    switch scalar {
    case "\n", "\r", "\t", "\"", "\\", ":": 2
    case "\u{0}"..<"\u{20}": 6
    default: UTF8.width(scalar)
    }
  }
}
