import TensorCore

/// Prompt → conditioning: tokenizer and language model.
public protocol PromptConditioner: Sendable {
  /// Names everything that results depend on besides weights and inputs.
  var numericsClass: String { get }

  /// Splits `prompt` within the family's template.
  ///
  /// - Parameter field: what the request calls the prompt, for errors.
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` when the prompt has too many tokens.
  func tokens(_ prompt: String, field: String) throws(PipelineError) -> PromptTokens

  /// Encodes several prompts in one pass.
  ///
  /// - Returns: per prompt the same bytes as if it were encoded alone.
  func encode(_ prompts: [PromptTokens]) -> [PromptConditioning]

  /// Encodes one prompt.
  ///
  /// - Parameter probe: receives intermediates under the reference's names.
  func encode(_ prompt: PromptTokens, probe: Probe) -> PromptConditioning
}

/// A prompt's tokens within the template.
public struct PromptTokens: Sendable {
  /// The ids of all tokens, the template's included.
  public let ids: [Int]
  /// Rows of the conditioning: what encoding costs.
  public let count: Int

  /// See the properties.
  public init(ids: [Int], count: Int) {
    self.ids = ids
    self.count = count
  }
}

/// What the denoising network knows of a prompt.
public struct PromptConditioning: Sendable {
  /// [L, width of the text encoder], fp32.
  public var embeds: Tensor

  /// See the property.
  public init(embeds: Tensor) { self.embeds = embeds }
}
