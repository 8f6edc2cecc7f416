import Diffusion
import TensorCore

/// Prompt in, embeddings out: template, tokenizer, language model (diffusers `_get_qwen_prompt_embeds`).
public struct PromptEncoder: PromptConditioner {
  private let tokenizer: Tokenizer
  private let model: LanguageModel
  private let maxPromptTokens: Int
  private let templateSuffixTokens: Int
  private let prefix: LanguageModel.Prefix

  /// Rows dropped from the front of the hidden states: the template's tokens before the prompt.
  static let templatePrefixTokens = 34
  private static let templatePrefix =
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, "
    + "text, spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
  private static let templateSuffix = "<|im_end|>\n<|im_start|>assistant\n"

  /// The template's words, as the tokenizer's first step cuts them; tokens that are no words left out.
  static let templateWords: [[UInt8]] = {
    var words: [[UInt8]] = []
    for text in (templatePrefix + templateSuffix).split(separator: /<\|[a-z_]+\|>/) {
      WordSplitter.forEachWord(of: String(text)) { words.append(Array($0)) }
    }
    return words
  }()

  /// Combines a tokenizer and a model, checking that they fit each other and the template.
  ///
  /// - Parameter maxPromptTokens: most tokens a prompt may have, without the template.
  public init(tokenizer: Tokenizer, model: LanguageModel, maxPromptTokens: Int) throws(PipelineError) {
    let prefix = tokenizer.encode(Self.templatePrefix)
    guard prefix.count == Self.templatePrefixTokens else {
      throw .checkpoint(
        "tokenizer/ splits the prompt template's prefix into \(prefix.count) tokens; the model was trained with "
          + "\(Self.templatePrefixTokens); it is another model's tokenizer, or added tokens are missing from "
          + "tokenizer.json or added_tokens.json")
    }
    let vocabulary = model.configuration.vocabularySize
    guard tokenizer.idCount <= vocabulary else {
      throw .checkpoint("tokenizer/ has \(tokenizer.idCount) token ids, but text_encoder/ embeds only \(vocabulary)")
    }
    templateSuffixTokens = tokenizer.encode(Self.templateSuffix).count
    self.prefix = model.prefix(prefix)
    self.tokenizer = tokenizer
    self.model = model
    self.maxPromptTokens = maxPromptTokens
  }

  /// Names everything that results depend on besides weights and inputs.
  public var numericsClass: String { QwenImageFamily.layers.numericsClass(model.compute) }

  /// Splits `prompt` within the template.
  ///
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` when the prompt has too many tokens.
  public func tokens(_ prompt: PromptInput, field: String) throws(PipelineError) -> PromptTokens {
    let ids = tokenizer.encode(Self.templatePrefix + prompt.text + Self.templateSuffix)
    let promptTokens = ids.count - Self.templatePrefixTokens - templateSuffixTokens
    guard promptTokens <= maxPromptTokens else {
      throw .invalidRequest(field: field, reason: "has \(promptTokens) tokens; the limit is \(maxPromptTokens)")
    }
    // The template's prefix is remembered: its rows are not computed.
    return PromptTokens(ids: ids, droppedCount: Self.templatePrefixTokens)
  }

  /// Encodes several prompts in one pass.
  ///
  /// - Returns: per prompt its embeddings [L, hidden], fp32: the prompt's tokens and the five that close the
  ///   template. The same bytes as if it were encoded alone.
  public func encode(_ prompts: [PromptTokens]) -> [PromptConditioning] {
    // The added tokens of a prompt might join those of the prefix; then the prefix is not what was remembered.
    let count = Self.templatePrefixTokens, fits = prompts.map { Array($0.ids.prefix(count)) == prefix.ids }
    let rest = zip(prompts, fits).filter(\.1).map { Array($0.0.ids.dropFirst(count)) }
    var shared = rest.isEmpty ? [] : model(rest, after: prefix)[...]
    return zip(prompts, fits).map { tokens, fits in
      PromptConditioning(
        embeds: fits ? shared.removeFirst() : model(tokens.ids).rows(count..<tokens.ids.count))
    }
  }

  /// Encodes one prompt.
  ///
  /// - Parameter probe: receives intermediates of the whole sequence, the template's prefix included.
  public func encode(_ prompt: PromptTokens, probe: Probe) -> PromptConditioning {
    guard probe.isActive else { return encode([prompt])[0] }
    probe.record("input_ids", Tensor(prompt.ids.map(Float.init), shape: [prompt.ids.count]))
    let embeds = model(prompt.ids, probe: probe).rows(Self.templatePrefixTokens..<prompt.ids.count)
    return PromptConditioning(embeds: embeds)
  }
}
