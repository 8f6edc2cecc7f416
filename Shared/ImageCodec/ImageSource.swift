import Hashing

/// How an image was made of other images, as ``ImageMetadata`` keep it: the pipeline, the files and everything that the
/// request says about them, with the values that were used where it says nothing.
///
/// The names in JSON are those of the HTTP API.
public struct ImageSource: Sendable, Equatable, Codable {
  /// An image file of the request.
  public struct Input: Sendable, Hashable, Codable {
    /// `image`, `control` or `mask`.
    public var role: String
    /// SHA-256 of the file as it was sent, in hexadecimal: what `sha256sum` prints.
    public var sha256: String

    /// A file.
    public init(role: String, file: [UInt8]) {
      self.role = role
      sha256 = SHA256.hash(file).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
  }

  /// A rectangle in pixels.
  public struct Box: Sendable, Equatable, Codable {
    var x: Int
    var y: Int
    var width: Int
    var height: Int

    /// See the properties.
    public init(x: Int, y: Int, width: Int, height: Int) {
      (self.x, self.y, self.width, self.height) = (x, y, width, height)
    }
  }

  /// A way in pixels, to the right and down.
  public struct Offset: Sendable, Equatable, Codable {
    var x: Int
    var y: Int

    /// See the properties.
    public init(x: Int, y: Int) { (self.x, self.y) = (x, y) }
  }

  /// Pixels that were made around the image.
  public struct Margins: Sendable, Equatable, Codable {
    var left: Int
    var top: Int
    var right: Int
    var bottom: Int
    var feather: Int

    /// What `outpainting` says.
    public init(_ outpainting: Outpainting) {
      left = outpainting.left
      top = outpainting.top
      right = outpainting.right
      bottom = outpainting.bottom
      feather = outpainting.feather
    }
  }

  /// One edit of several.
  public struct Edit: Sendable, Equatable, Codable {
    /// nil: it was too long to be kept; the image's prompt has all of them.
    public var prompt: String?
    /// nil: there was none, or as above.
    public var negativePrompt: String?
    /// How it used what the edit before had made.
    public var source: ImageSource

    /// See the properties.
    public init(prompt: String, negativePrompt: String?, source: ImageSource) {
      (self.prompt, self.negativePrompt, self.source) = (prompt, negativePrompt, source)
    }

    private enum CodingKeys: String, CodingKey {
      case prompt
      case negativePrompt = "negative_prompt"
    }

    /// Reads what ``encode(to:)`` has written.
    public init(from decoder: any Decoder) throws {
      let fields = try decoder.container(keyedBy: CodingKeys.self)
      prompt = try fields.decodeIfPresent(String.self, forKey: .prompt)
      negativePrompt = try fields.decodeIfPresent(String.self, forKey: .negativePrompt)
      source = try ImageSource(from: decoder)
    }

    /// The prompts and the source's fields as one object.
    public func encode(to encoder: any Encoder) throws {
      var fields = encoder.container(keyedBy: CodingKeys.self)
      try fields.encodeIfPresent(prompt, forKey: .prompt)
      try fields.encodeIfPresent(negativePrompt, forKey: .negativePrompt)
      try source.encode(to: encoder)
    }
  }

  /// The pipeline's name in the API.
  public var pipeline: String
  /// The request's files: images, control images, mask. nil: it is one edit of several.
  public var inputs: [Input]?
  /// How much of the image was made anew; nil, here and below: it has no meaning for the pipeline, or the request had
  /// none of it.
  public var strength: Double?
  /// References had about the square of it in pixels.
  public var outputResolution: Int?
  /// Pixels around the masked part, which alone was made anew.
  public var paddingMaskCrop: Int?
  /// Blur of the mask's edge.
  public var maskBlur: Double?
  /// Whether the image's own pixels came back where the mask is black.
  public var pasteBack: Bool?
  /// What was made around the image.
  public var outpaint: Margins?
  /// How much control images acted, one number for each.
  public var controlScale: [Double]?
  /// Where in the steps they began to act.
  public var controlStart: [Double]?
  /// Where they ended.
  public var controlEnd: [Double]?
  /// Where the object was.
  public var region: Box?
  /// Where it was, of several rectangles.
  public var boxes: [Box]?
  /// Where the object went.
  public var move: Offset?
  /// Its size afterwards.
  public var scale: Double?
  /// Layers that the image was taken apart into.
  public var layers: Int?
  /// Edits that were made one after the other.
  public var edits: [Edit]?

  private enum CodingKeys: String, CodingKey {
    case pipeline, inputs, strength, outpaint, region, boxes, move, scale, layers
    case outputResolution = "output_resolution"
    case paddingMaskCrop = "padding_mask_crop"
    case maskBlur = "mask_blur"
    case pasteBack = "paste_back"
    case controlScale = "control_scale"
    case controlStart = "control_start"
    case controlEnd = "control_end"
    case edits = "edit_instructions"
  }

  /// A pipeline and its files, which may come in any order of roles.
  public init(pipeline: String, inputs: [Input]) {
    self.pipeline = pipeline
    let roles = ["image", "control", "mask"]
    self.inputs = inputs.isEmpty ? nil : roles.flatMap { role in inputs.filter { $0.role == role } }
  }
}

// MARK: - Names and values for people

extension ImageSource {
  /// What galleries show, in the names of A1111's web UI where it has some.
  var parameters: [(name: String, value: String)] {
    func list(_ numbers: [Double]?) -> String? { numbers?.map(\.shortText).joined(separator: ", ") }
    func text(_ box: Box) -> String { "\(box.x) \(box.y) \(box.width)x\(box.height)" }
    let values: [(String, String?)] = [
      ("Pipeline", pipeline), ("Denoising strength", strength?.shortText),
      ("Output resolution", outputResolution.map { "\($0)" }),
      ("Padding mask crop", paddingMaskCrop.map { "\($0)" }), ("Mask blur", maskBlur?.shortText),
      ("Paste back", pasteBack.map { "\($0)" }),
      (
        "Outpaint",
        outpaint.map { "left \($0.left), top \($0.top), right \($0.right), bottom \($0.bottom), feather \($0.feather)" }
      ), ("Control scale", list(controlScale)), ("Control start", list(controlStart)),
      ("Control end", list(controlEnd)), ("Region", region.map(text)),
      ("Boxes", boxes?.map(text).joined(separator: ", ")), ("Move", move.map { "\($0.x) \($0.y)" }),
      ("Scale", scale?.shortText), ("Layers", layers.map { "\($0)" }),
      ("Edits", edits?.map { $0.source.line }.joined(separator: "; ")),
      ("Inputs", inputs?.map { "\($0.role) \($0.sha256)" }.joined(separator: ", ")),
    ]
    return values.compactMap { name, value in value.map { (name, $0) } }
  }

  private var line: String { parameters.map { "\($0): \($1)" }.joined(separator: ", ") }
}

extension Double {
  /// As people write it: without a fraction if it is whole.
  var shortText: String { self == rounded() && abs(self) < 1e9 ? "\(Int(self))" : "\(self)" }
}

// MARK: - Limits

extension ImageSource {
  /// The most that the prompts of several edits may take; longer ones are only in the image's own prompt.
  private static let maxPromptBytes = 16 << 10

  /// The source as it is written: prompts of edits are left out if they are too long together.
  var bounded: (source: ImageSource, isCut: Bool) {
    let texts = (edits ?? []).flatMap { [$0.prompt, $0.negativePrompt] }.compactMap { $0 }
    // An escaped character takes six bytes.
    guard texts.reduce(0, { $0 + $1.utf8.count }) > Self.maxPromptBytes / 6 else { return (self, false) }
    var source = self
    source.edits = edits?.map { edit in
      var edit = edit
      (edit.prompt, edit.negativePrompt) = (nil, nil)
      return edit
    }
    return (source, true)
  }

  /// What no image of this software has, in a record that comes from anywhere; nil: nothing.
  var problem: String? {
    let lists = [controlScale, controlStart, controlEnd].flatMap { $0 ?? [] }
    let numbers = [strength, maskBlur, scale].compactMap { $0 } + lists
    if !numbers.allSatisfy(\.isFinite) { return "one of its numbers is too large" }
    if pipeline.utf8.count > 64 { return "its pipeline's name is too long" }
    let counts = [
      ("inputs", inputs?.count), ("boxes", boxes?.count), ("control_scale", controlScale?.count),
      ("control_start", controlStart?.count), ("control_end", controlEnd?.count), ("edit_instructions", edits?.count),
    ]
    if let (name, count) = counts.first(where: { $0.1 ?? 0 > 32 }) { return "its \(name) has \(count ?? 0) elements" }
    if inputs?.contains(where: { $0.role.utf8.count > 16 || $0.sha256.utf8.count > 64 }) == true {
      return "one of its inputs is no role with a SHA-256"
    }
    if edits?.contains(where: { $0.source.edits != nil }) == true { return "its edits have edits" }
    return edits?.lazy.compactMap(\.source.problem).first
  }
}
