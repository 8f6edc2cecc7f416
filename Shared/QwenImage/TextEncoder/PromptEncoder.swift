import Diffusion
import ImageCodec
import TensorCore

/// Prompt, perhaps with images, in, embeddings out: template, tokenizer, vision tower, language model (diffusers
/// `_get_qwen_prompt_embeds`).
public struct PromptEncoder: PromptConditioner {
  private let tokenizer: Tokenizer
  private let model: LanguageModel
  private let maxPromptTokens: Int
  private let templateSuffixTokens: Int
  private let textPrefix: LanguageModel.Prefix
  private let editing: Editing?

  /// What prompts with images need.
  private struct Editing: Sendable {
    let images: ImageReader
    let prefix: LanguageModel.Prefix
    let contexts = RecentValues<ContextKey, Context>(byteCountMax: 256 << 20)
  }

  /// What several prompts have in common: their tokens up to the end of their images.
  private struct ContextKey: Hashable, Sendable {
    var ids: [Int]
    var images: [ImageReader.Digest]
  }

  private struct Context: Sendable {
    var prefix: LanguageModel.Prefix
    /// The embeddings' rows that it has, [rows, hidden]; nil: none.
    var rows: Tensor?
  }

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
    let textPrefix = try Self.prefix(.textToImage, tokenizer)
    let vocabulary = model.configuration.vocabularySize
    guard tokenizer.idCount <= vocabulary else {
      throw .checkpoint("tokenizer/ has \(tokenizer.idCount) token ids, but text_encoder/ embeds only \(vocabulary)")
    }
    self.textPrefix = model.prefix(textPrefix)
    if let images {
      let expected = model.configuration.imageTokenID, found = tokenizer.id(of: ChatTemplate.imageToken)
      guard found == expected else {
        throw .checkpoint(
          "tokenizer/ gives \(ChatTemplate.imageToken) the id \(found.map(String.init) ?? "of no token"), but "
            + "image_token_id of text_encoder/config.json is \(expected)")
      }
      editing = Editing(images: images, prefix: model.prefix(try Self.prefix(.editing, tokenizer)))
    } else {
      editing = nil
    }
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
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` when the prompt has too many tokens, or images that do
  ///   not fit the template, are too narrow or too many, or cannot be read because the vision tower was not loaded.
  public func tokens(_ prompt: PromptInput, field: String) throws(PipelineError) -> PromptTokens {
    try checkImages(of: prompt, field)
    let ids = tokenizer.encode(ChatTemplate.text(of: prompt))
    guard prompt.template != .textToImage, let editing else {
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
    let counts = prompt.images.map { editing.images.grid(of: $0).tokenCount }, total = counts.reduce(0, +)
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
    return PromptTokens(ids: expanded + ids[done...], droppedCount: dropped, images: prompt.images)
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
    guard let editing else {
      throw .invalidRequest(
        field: field, reason: "is about images, but this text encoder was loaded without its vision tower")
    }
    guard prompt.template != .edit || count == 1 else {
      throw .invalidRequest(field: "image", reason: "must be one; there are \(count)")
    }
    for image in prompt.images { try editing.images.check(image, field: "image") }
  }

  // MARK: - Embeddings

  /// Encodes several prompts. Those with the same template and images share a pass, and what all of their tokens up to
  /// the end of the images cost.
  ///
  /// - Returns: per prompt its embeddings [L, hidden], fp32: its images, the prompt's tokens and the five that close
  ///   the template. The same bytes as if it were encoded alone.
  public func encode(_ prompts: [PromptTokens]) -> [PromptConditioning] {
    let keys = prompts.map(contextKey), sequences = prompts.map(sequence)
    let contexts = contexts(keys, prompts, sequences)
    var embeds = [Tensor?](repeating: nil, count: prompts.count)
    for key in Set(keys) {
      let members = keys.indices.filter { keys[$0] == key }
      if let context = contexts[key] {
        let rests = members.map { sequences[$0][key.ids.count..<sequences[$0].ids.count] }
        for (member, rows) in zip(members, model(rests, after: context.prefix)) {
          embeds[member] = Tensor.stacking((context.rows.map { [$0] } ?? []) + [rows])
        }
      } else {
        // The added tokens of a prompt might join those of the template; then no beginning was remembered.
        for member in members {
          embeds[member] = model(sequences[member]).rows(
            prompts[member].droppedCount..<prompts[member].ids.count)
        }
      }
    }
    return embeds.compactMap { $0 }.map { PromptConditioning(embeds: $0) }
  }

  /// Encodes one prompt.
  ///
  /// - Parameter probe: receives intermediates of the whole sequence, the template's prefix included.
  public func encode(_ prompt: PromptTokens, probe: Probe) -> PromptConditioning {
    guard probe.isActive else { return encode([prompt])[0] }
    probe.record("input_ids", Tensor(prompt.ids.map(Float.init), shape: [prompt.ids.count]))
    var sequence = sequence(prompt)
    if let editing, !prompt.images.isEmpty {
      sequence.setRows(editing.images.rows(of: prompt.images, probe: probe))
    }
    return PromptConditioning(
      embeds: model(sequence, probe: probe).rows(prompt.droppedCount..<prompt.ids.count))
  }

  /// Where the tokens of the prompt's images begin.
  private func places(_ prompt: PromptTokens) -> [(start: Int, grid: TokenGrid)] {
    guard let editing else { return [] }
    var places: [(start: Int, grid: TokenGrid)] = [], next = 0
    for image in prompt.images {
      let grid = editing.images.grid(of: image)
      guard let start = prompt.ids[next...].firstIndex(where: isImage) else {
        preconditionFailure("\(prompt.images.count) images, but tokens of \(places.count)")
      }
      places.append((start, grid))
      next = start + grid.tokenCount
    }
    return places
  }

  private func sequence(_ prompt: PromptTokens) -> TokenSequence { TokenSequence(prompt.ids, places: places(prompt)) }

  /// The beginning that a prompt shares with others; without tokens where it shares none.
  private func contextKey(_ prompt: PromptTokens) -> ContextKey {
    if let last = places(prompt).last {
      // Behind an image's tokens is <|vision_end|>, an added token that joins no other.
      let ids = prompt.ids.prefix(last.start + last.grid.tokenCount + 1)
      return ContextKey(ids: Array(ids), images: prompt.images.map(ImageReader.digest))
    }
    let prefix = remembered(prompt.ids, droppedCount: prompt.droppedCount)
    return ContextKey(ids: prefix?.ids ?? [], images: [])
  }

  /// The template's prefix, if the tokens begin with it.
  private func remembered(_ ids: [Int], droppedCount: Int) -> LanguageModel.Prefix? {
    [textPrefix, editing?.prefix].compactMap { $0 }.first {
      $0.ids.count == droppedCount && ids.starts(with: $0.ids)
    }
  }

  /// The contexts of all prompts; those that are not remembered are computed.
  private func contexts(
    _ keys: [ContextKey], _ prompts: [PromptTokens], _ sequences: [TokenSequence]
  ) -> [ContextKey: Context] {
    var contexts: [ContextKey: Context] = [:], missing: [ContextKey: Int] = [:]
    for (index, key) in keys.enumerated() where contexts[key] == nil && !key.ids.isEmpty {
      if key.images.isEmpty {
        contexts[key] = remembered(key.ids, droppedCount: key.ids.count).map { Context(prefix: $0, rows: nil) }
      } else if let context = editing?.contexts[key] {
        contexts[key] = context
      } else if missing[key] == nil {
        missing[key] = index
      }
    }
    guard let editing, !missing.isEmpty else { return contexts }
    let order = missing.sorted { $0.value < $1.value }
    var rows = editing.images.rows(of: order.flatMap { prompts[$0.value].images })[...]
    for (key, index) in order {
      var sequence = sequences[index]
      sequence.setRows(Array(rows.prefix(key.images.count)))
      rows.removeFirst(key.images.count)
      contexts[key] = context(key, sequence, droppedCount: prompts[index].droppedCount)
    }
    return contexts
  }

  private func context(_ key: ContextKey, _ sequence: TokenSequence, droppedCount: Int) -> Context {
    let earlier = remembered(sequence.ids, droppedCount: droppedCount), start = earlier?.ids.count ?? 0
    let (prefix, hidden) = model.prefix(sequence[start..<key.ids.count], after: earlier)
    let context = Context(prefix: prefix, rows: hidden.rows(droppedCount - start..<hidden.shape[0]))
    editing?.contexts.insert(context, for: key, byteCount: prefix.byteCount + hidden.byteCount)
    return context
  }
}
