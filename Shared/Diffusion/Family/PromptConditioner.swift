import ImageCodec
import TensorCore

/// Prompt, perhaps with images → conditioning: tokenizer, vision tower and language model.
public protocol PromptConditioner: Sendable {
  /// Names everything that results depend on besides weights and inputs.
  var numericsClass: String { get }

  /// Splits a prompt within the family's template.
  ///
  /// - Parameter field: what the request calls the prompt, for errors.
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` when the prompt has too many tokens, or images where the
  ///   conditioner was loaded without what reads them.
  func tokens(_ prompt: PromptInput, field: String) throws(PipelineError) -> PromptTokens

  /// Encodes several prompts in one pass.
  ///
  /// - Returns: per prompt the same bytes as if it were encoded alone.
  func encode(_ prompts: [PromptTokens]) -> [PromptConditioning]

  /// Encodes one prompt.
  ///
  /// - Parameter probe: receives intermediates under the reference's names.
  func encode(_ prompt: PromptTokens, probe: Probe) -> PromptConditioning
}

/// A prompt and the images that it speaks of.
public struct PromptInput: Sendable {
  /// Which of the family's templates the prompt is put into.
  public enum Template: Sendable {
    /// A prompt alone.
    case textToImage
    /// One image, then the prompt.
    case edit
    /// Numbered images, then the prompt.
    case editPlus
  }

  /// The prompt.
  public var text: String
  /// The template.
  public var template: Template
  /// RGB, in the size in which the pipeline shows them to the text encoder.
  public var images: [RasterImage]

  /// See the properties.
  public init(_ text: String, template: Template = .textToImage, images: [RasterImage] = []) {
    self.text = text
    self.template = template
    self.images = images
  }
}

/// A prompt's tokens within the template.
public struct PromptTokens: Sendable {
  /// The ids of all tokens, the template's included, with one for each row of the images.
  public let ids: [Int]
  /// Rows of the conditioning: what encoding costs.
  public let count: Int
  /// Where the template ends that precedes the prompt: rows that are left out.
  public let droppedCount: Int
  /// The prompt's images.
  public let images: [RasterImage]

  /// See the properties.
  public init(ids: [Int], droppedCount: Int, images: [RasterImage] = []) {
    self.ids = ids
    self.droppedCount = droppedCount
    self.images = images
    count = ids.count - droppedCount
  }
}

/// What the denoising network knows of a prompt.
public struct PromptConditioning: Sendable {
  /// [L, width of the text encoder], fp32.
  public var embeds: Tensor

  /// See the property.
  public init(embeds: Tensor) { self.embeds = embeds }
}
