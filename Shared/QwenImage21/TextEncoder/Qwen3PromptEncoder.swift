import Diffusion
import ImageCodec
import TensorCore

/// Prompt, perhaps with images, in, embeddings out: template, tokenizer, vision tower, language model (diffusers
/// `QwenImage21Pipeline.encode_prompt`).
public struct Qwen3PromptEncoder: PromptConditioner {
  private let tokenizer: Tokenizer
  private let model: Qwen3LanguageModel
  private let maxPromptTokens: Int
  /// Tokens between the dropped ones and the prompt, where it comes without images.
  private let headerTokens: Int
  private let suffixTokens: Int
  private let images: ImageReader?
  private let pixels: ClosedRange<Int>
  private let passes: PromptPasses<Qwen3DecoderLayer>

  /// Most images of a prompt.
  public static let imagesMax = 10
  /// Most tokens of all images of a prompt: ten images of the published size have 10,240.
  static let imageTokensMax = 16_384
  /// Bytes of keys and values that are kept of prompts with images: one image of the published size takes 150 MiB.
  private static let contextBytesMax = 512 << 20

  /// Combines a tokenizer and a model, checking that they fit each other and the template.
  ///
  /// - Parameters:
  ///   - maxPromptTokens: most tokens a prompt may have, without the template and images.
  ///   - images: reads the images of prompts; nil: prompts come without.
  ///   - processor: how the images are prepared.
  public init(
    tokenizer: Tokenizer, model: Qwen3LanguageModel, maxPromptTokens: Int, images: ImageReader? = nil,
    processor: ImageProcessorConfiguration = .qwen3Published
  ) throws(PipelineError) {
    let prefix = tokenizer.encode(Qwen3Template.prefix), vocabulary = model.configuration.vocabularySize
    guard prefix.count == Qwen3Template.prefixTokens else {
      throw .checkpoint(
        "processor/ splits the prompt template's prefix into \(prefix.count) tokens; the model was trained with "
          + "\(Qwen3Template.prefixTokens); it is another model's tokenizer, or added tokens are missing from "
          + "tokenizer.json or added_tokens.json")
    }
    guard tokenizer.idCount <= vocabulary else {
      throw .checkpoint("processor/ has \(tokenizer.idCount) token ids, but text_encoder/ embeds only \(vocabulary)")
    }
    let expected = model.configuration.imageTokenID, found = tokenizer.id(of: Qwen3Template.imageToken)
    guard found == expected else {
      throw .checkpoint(
        "processor/ gives \(Qwen3Template.imageToken) the id \(found.map(String.init) ?? "of no token"), but "
          + "image_token_id of text_encoder/config.json is \(expected)")
    }
    headerTokens = tokenizer.encode(Qwen3Template.userHeader).count
    suffixTokens = tokenizer.encode(Qwen3Template.suffix).count
    pixels = processor.minPixels...processor.maxPixels
    self.tokenizer = tokenizer
    self.model = model
    self.maxPromptTokens = maxPromptTokens
    self.images = images
    passes = PromptPasses(
      model.decoder, images: images, imageTokenID: expected, prefixes: [prefix], contextBytesMax: Self.contextBytesMax)
  }

  /// Names everything that results depend on besides weights and inputs.
  public var numericsClass: String { Qwen3LanguageModel.layers.numericsClass(model.compute) }

  // MARK: - Tokens

  /// Splits `prompt` within its template. Its images have the size in which the autoencoder encodes them, and may have
  /// alpha: the language model sees them over white.
  ///
  /// - Throws: `PipelineError.invalidRequest` when the prompt has too many tokens, or images that are
  ///   too many, of sizes that cannot be read, or cannot be read because the vision tower was not loaded.
  public func tokens(_ prompt: PromptInput, field: String) throws(PipelineError) -> PromptTokens {
    try checkImages(of: prompt, field)
    let ids = tokenizer.encode(Qwen3Template.text(of: prompt)), imageToken = model.configuration.imageTokenID
    let places = ids.indices.filter { ids[$0] == imageToken }, dropped = Qwen3Template.prefixTokens
    guard places.count == prompt.images.count else {
      throw .invalidRequest(
        field: field, reason: "contains \(Qwen3Template.imageToken), which stands for an image; remove it")
    }
    // Behind an image's token is <|vision_end|>, then the prompt.
    let promptTokens = ids.count - (places.last.map { $0 + 2 } ?? dropped + headerTokens) - suffixTokens
    guard promptTokens <= maxPromptTokens else {
      throw .invalidRequest(field: field, reason: "has \(promptTokens) tokens; the limit is \(maxPromptTokens)")
    }
    guard let images else { return PromptTokens(ids: ids, droppedCount: dropped) }
    let counts = prompt.images.map { images.grid(of: $0).tokenCount }, total = counts.reduce(0, +)
    guard total <= Self.imageTokensMax else {
      throw .invalidRequest(
        field: "image",
        reason: "has \(total) tokens in the text encoder, all images together; the limit is \(Self.imageTokensMax)")
    }
    var expanded: [Int] = [], done = 0
    for (place, count) in zip(places, counts) {
      expanded += ids[done..<place]
      expanded += Array(repeating: imageToken, count: count)
      done = place + 1
    }
    return PromptTokens(ids: expanded + ids[done...], droppedCount: dropped, images: prompt.images.map(\.overWhite))
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
    guard (1...Self.imagesMax).contains(count) else {
      throw .invalidRequest(field: "image", reason: "must be 1 to \(Self.imagesMax); there are \(count)")
    }
    for image in prompt.images {
      let edge = images.tokenEdgePx, size = "\(image.width)×\(image.height)"
      guard image.width % edge == 0, image.height % edge == 0 else {
        throw .invalidRequest(field: "image", reason: "is \(size) pixels; both sides must be multiples of \(edge)")
      }
      // The autoencoder encodes the same pixels: the text encoder cannot take them in another size.
      guard pixels.contains(image.width * image.height) else {
        throw .invalidRequest(
          field: "image",
          reason: "has \(size) pixels after it was resized; this model takes \(pixels.lowerBound) to "
            + "\(pixels.upperBound) pixels: choose another output resolution")
      }
      try images.check(image, field: "image")
    }
  }

  // MARK: - Embeddings

  /// Encodes several prompts. Those with the same images share a pass.
  ///
  /// - Returns: per prompt its embeddings [L, hidden], fp32: the user header, what is around its images, the prompt's
  ///   tokens and the five that close the template; and where its images are. The same bytes as if it were encoded
  ///   alone.
  public func encode(_ prompts: [PromptTokens]) -> [PromptConditioning] {
    zip(prompts, passes.embeddings(prompts)).map { conditioning($0, $1) }
  }

  /// Encodes one prompt.
  ///
  /// - Parameter probe: receives intermediates of the whole sequence, the template's prefix included.
  public func encode(_ prompt: PromptTokens, probe: Probe) -> PromptConditioning {
    conditioning(prompt, passes.embeddings(prompt, probe: probe))
  }

  private func conditioning(_ prompt: PromptTokens, _ embeds: Tensor) -> PromptConditioning {
    let imageToken = model.configuration.imageTokenID
    // The network has latents in the place of these rows. Between the tokens of two images are others.
    var slots: [Range<Int>] = []
    for (row, id) in prompt.ids[prompt.droppedCount...].enumerated() where id == imageToken {
      if let last = slots.last, last.upperBound == row {
        slots[slots.count - 1] = last.lowerBound..<row + 1
      } else {
        slots.append(row..<row + 1)
      }
    }
    return slots.isEmpty
      ? PromptConditioning(embeds: embeds) : PromptConditioning(embeds: embeds, withoutImageRows: slots)
  }
}
