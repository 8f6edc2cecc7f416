/// The kind of work a worker does, an open set of names: `text-encoder`, `denoiser`, `vae-decoder`, or any other stage
/// that a pipeline names and an executable implements.
public struct StageName: Hashable, Sendable, Comparable, CustomStringConvertible {
  /// As the wire, logs, metrics and the HTTP API show it.
  public let text: String

  /// The stage named `text`; nil unless that is 1 to ``maxLength`` characters of a–z, 0–9 and hyphens.
  public init?(_ text: String) {
    guard NameRule.allows(text, maxLength: Self.maxLength) else { return nil }
    self.text = text
  }

  private init(known text: String) { self.text = text }

  /// The longest name, in ASCII characters.
  public static let maxLength = 64

  /// Prompt → prompt embeddings.
  public static let textEncoder = StageName(known: "text-encoder")
  /// Noise and prompt embeddings → latents, step by step.
  public static let denoiser = StageName(known: "denoiser")
  /// Image → latents.
  public static let vaeEncoder = StageName(known: "vae-encoder")
  /// Latents → image.
  public static let vaeDecoder = StageName(known: "vae-decoder")

  /// For logs and messages.
  public var description: String { text }
  /// In alphabetical order.
  public static func < (left: StageName, right: StageName) -> Bool { left.text < right.text }
}

/// What a client can ask a model for, an open set of names: `text-to-image`, `edit`, `inpaint` …
public struct PipelineName: Hashable, Sendable, Comparable, CustomStringConvertible {
  /// As model cards, the journal, metrics and the HTTP API show it.
  public let text: String

  /// The pipeline named `text`; nil unless that is 1 to ``maxLength`` characters of a–z, 0–9 and hyphens.
  public init?(_ text: String) {
    guard NameRule.allows(text, maxLength: Self.maxLength) else { return nil }
    self.text = text
  }

  private init(known text: String) { self.text = text }

  /// The longest name, in ASCII characters.
  public static let maxLength = 64

  /// A prompt → an image.
  public static let textToImage = PipelineName(known: "text-to-image")
  /// A prompt and an image → an image that begins with it.
  public static let imageToImage = PipelineName(known: "img2img")
  /// A prompt, an image and a mask → the image with its masked part made anew.
  public static let inpaint = PipelineName(known: "inpaint")
  /// A prompt about one image → an image.
  public static let edit = PipelineName(known: "edit")
  /// A prompt about several images → an image.
  public static let editPlus = PipelineName(known: "edit-plus")
  /// A prompt about an image, and a mask → the image with its masked part made anew.
  public static let editInpaint = PipelineName(known: "edit-inpaint")
  /// A prompt and control images → an image.
  public static let controlNet = PipelineName(known: "controlnet")
  /// A prompt, a control image and a mask → an image, made anew where the mask is white.
  public static let controlNetInpaint = PipelineName(known: "controlnet-inpaint")

  /// Whether a denoiser needs a control network for it.
  public var isForControl: Bool { [.controlNet, .controlNetInpaint].contains(self) }
  /// An image → its layers.
  public static let layered = PipelineName(known: "layered")

  /// Several edits, each of what the one before has made.
  public static let editSequence = PipelineName(known: "edit-sequence")

  /// Whether a request says how much of the image is made anew.
  public var takesStrength: Bool { [.imageToImage, .inpaint, .editInpaint].contains(self) }

  /// Whether a request may say how large networks see its images.
  public var takesOutputResolution: Bool { [.edit, .editPlus].contains(self) }

  /// Whether the image's own pixels may come back where its mask is black.
  public var keepsPixels: Bool { [.inpaint, .editInpaint].contains(self) }

  /// Whether the text encoder sees the request's images.
  public var showsImagesToEncoder: Bool { [.edit, .editPlus, .editInpaint].contains(self) }

  /// For logs and messages.
  public var description: String { text }
  /// In alphabetical order.
  public static func < (left: PipelineName, right: PipelineName) -> Bool { left.text < right.text }
}

/// Lower-case words with hyphens: safe in file names, URLs, metric labels and terminals.
private enum NameRule {
  static func allows(_ text: String, maxLength: Int) -> Bool {
    (1...maxLength).contains(text.utf8.count)
      && text.utf8.allSatisfy {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0)
          || $0 == UInt8(ascii: "-")
      }
  }
}
