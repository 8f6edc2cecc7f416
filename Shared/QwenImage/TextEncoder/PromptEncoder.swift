import Diffusion
import TensorCore

/// Prompt, perhaps with images, in, embeddings out: template, tokenizer, vision tower, language model (diffusers
/// `_get_qwen_prompt_embeds`).
public struct PromptEncoder: PromptConditioner {
  private let tokenizer: Tokenizer
  private let model: LanguageModel
  private let maxPromptTokens: Int
  private let templateSuffixTokens: Int
  private let images: ImageReader?
  private let passes: PromptPasses<DecoderLayer>

  /// Most tokens of all images of a prompt: that many has one image of the largest published size.
  static let imageTokensMax = 16_384

  /// Combines a tokenizer and a model, checking that they fit each other and the templates.
  ///
  /// - Parameters:
  ///   - maxPromptTokens: most tokens a prompt may have, without the template and images.
  ///   - images: reads the images of prompts; nil: prompts come without.
  public init(
    tokenizer: Tokenizer, model: LanguageModel, maxPromptTokens: Int, images: ImageReader? = nil
  ) throws(PipelineError) {
    var prefixes = [try Self.prefix(.textToImage, tokenizer)]
    let vocabulary = model.configuration.vocabularySize
    guard tokenizer.idCount <= vocabulary else {
      throw .checkpoint("tokenizer/ has \(tokenizer.idCount) token ids, but text_encoder/ embeds only \(vocabulary)")
    }
    if images != nil {
      let expected = model.configuration.imageTokenID, found = tokenizer.id(of: ChatTemplate.imageToken)
      guard found == expected else {
        throw .checkpoint(
          "tokenizer/ gives \(ChatTemplate.imageToken) the id \(found.map(String.init) ?? "of no token"), but "
            + "image_token_id of text_encoder/config.json is \(expected)")
      }
      prefixes.append(try Self.prefix(.editing, tokenizer))
    }
    self.images = images
    passes = PromptPasses(
      model.decoder, images: images, imageTokenID: model.configuration.imageTokenID, prefixes: prefixes)
    templateSuffixTokens = tokenizer.encode(ChatTemplate.suffix).count
    self.tokenizer = tokenizer
    self.model = model
    self.maxPromptTokens = maxPromptTokens
  }

  /// The tokens of a template's prefix, as many as the model was trained with.
  private static func prefix(_ template: ChatTemplate, _ tokenizer: Tokenizer) throws(PipelineError) -> [Int] {
    let prefix = tokenizer.encode(template.prefix)
    guard prefix.count == template.prefixTokens else {
      throw .checkpoint(
        "tokenizer/ splits the prompt template's prefix into \(prefix.count) tokens; the model was trained with "
          + "\(template.prefixTokens); it is another model's tokenizer, or added tokens are missing from "
          + "tokenizer.json or added_tokens.json")
    }
    return prefix
  }

  /// Names everything that results depend on besides weights and inputs.
  public var numericsClass: String { QwenImageFamily.layers.numericsClass(model.compute) }

  // MARK: - Tokens

  /// Splits `prompt` within its template.
  ///
  /// - Throws: `PipelineError.invalidRequest` when the prompt has too many tokens, or images that do
  ///   not fit the template, are too narrow or too many, or cannot be read because the vision tower was not loaded.
  public func tokens(_ prompt: PromptInput, field: String) throws(PipelineError) -> PromptTokens {
    try checkImages(of: prompt, field)
    let ids = tokenizer.encode(ChatTemplate.text(of: prompt))
    guard prompt.template != .textToImage, let images else {
      let dropped = ChatTemplate.textToImage.prefixTokens
      try checkLength(ids.count - dropped, field)
      return PromptTokens(ids: ids, droppedCount: dropped)
    }
    let dropped = ChatTemplate.editing.prefixTokens, places = ids.indices.filter { isImage(ids[$0]) }
    guard places.count == prompt.images.count else {
      throw .invalidRequest(
        field: field, reason: "contains \(ChatTemplate.imageToken), which stands for an image; remove it")
    }
    // Behind an image's token is <|vision_end|>, then the prompt.
    try checkLength(ids.count - (places.last.map { $0 + 2 } ?? dropped), field)
    let counts = prompt.images.map { images.grid(of: $0).tokenCount }, total = counts.reduce(0, +)
    guard total <= Self.imageTokensMax else {
      throw .invalidRequest(
        field: "image",
        reason: "has \(total) tokens in the text encoder, all images together; the limit is \(Self.imageTokensMax)")
    }
    var expanded: [Int] = [], done = 0
    for (place, count) in zip(places, counts) {
      expanded += ids[done..<place]
      expanded += Array(repeating: ids[place], count: count)
      done = place + 1
    }
    return PromptTokens(ids: expanded + ids[done...], droppedCount: dropped, images: prompt.images.map(\.rgb))
  }

  private func isImage(_ id: Int) -> Bool { id == model.configuration.imageTokenID }

  private func checkLength(_ tokens: Int, _ field: String) throws(PipelineError) {
    let promptTokens = tokens - templateSuffixTokens
    guard promptTokens <= maxPromptTokens else {
      throw .invalidRequest(field: field, reason: "has \(promptTokens) tokens; the limit is \(maxPromptTokens)")
    }
  }

  private func checkImages(of prompt: PromptInput, _ field: String) throws(PipelineError) {
    let count = prompt.images.count
    if prompt.template == .textToImage {
      guard count == 0 else {
        throw .invalidRequest(field: field, reason: "comes with images, which text-to-image does not take")
      }
      return
    }
    guard let images else {
      throw .invalidRequest(
        field: field, reason: "is about images, but this text encoder was loaded without its vision tower")
    }
    guard prompt.template != .edit || count == 1 else {
      throw .invalidRequest(field: "image", reason: "must be one; there are \(count)")
    }
    for image in prompt.images { try images.check(image, field: "image") }
  }

  // MARK: - Embeddings

  /// Encodes several prompts. Those with the same template and images share a pass.
  ///
  /// - Returns: per prompt its embeddings [L, hidden], fp32: its images, the prompt's tokens and the five that close
  ///   the template. The same bytes as if it were encoded alone.
  public func encode(_ prompts: [PromptTokens]) -> [PromptConditioning] {
    passes.embeddings(prompts).map { PromptConditioning(embeds: $0) }
  }

  /// Encodes one prompt.
  ///
  /// - Parameter probe: receives intermediates of the whole sequence, the template's prefix included.
  public func encode(_ prompt: PromptTokens, probe: Probe) -> PromptConditioning {
    PromptConditioning(embeds: passes.embeddings(prompt, probe: probe))
  }
}
