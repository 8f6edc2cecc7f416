/// The kind of work a worker does, an open set of names: `text-encoder`, `denoiser`, `vae-decoder`, or any other stage that a pipeline
/// names and an executable implements.
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
