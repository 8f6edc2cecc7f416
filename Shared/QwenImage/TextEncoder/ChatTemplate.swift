import Diffusion

/// The texts around a prompt. What stands before it is left out of the embeddings.
struct ChatTemplate {
  /// What stands before the images and the prompt.
  let prefix: String
  /// The tokens of ``prefix`` by the model's own tokenizer: rows dropped from the front of the hidden states.
  let prefixTokens: Int

  /// For prompts alone (diffusers `QwenImagePipeline`).
  static let textToImage = ChatTemplate(
    system: "Describe the image by detailing the color, shape, size, texture, quantity, "
      + "text, spatial relationships of the objects and background:",
    prefixTokens: 34)
  /// For prompts with images (diffusers `QwenImageEditPipeline` and `QwenImageEditPlusPipeline`).
  static let editing = ChatTemplate(
    system: "Describe the key features of the input image (color, shape, size, texture, objects, background), "
      + "then explain how the user's text instruction should alter or modify the image. Generate a new image that "
      + "meets the user's requirements while maintaining consistency with the original input where appropriate.",
    prefixTokens: 64)
  /// What stands behind every prompt.
  static let suffix = "<|im_end|>\n<|im_start|>assistant\n"

  /// The token that stands for the rows of an image.
  static let imageToken = "<|image_pad|>"
  private static let image = "<|vision_start|>\(imageToken)<|vision_end|>"

  private init(system: String, prefixTokens: Int) {
    prefix = "<|im_start|>system\n\(system)<|im_end|>\n<|im_start|>user\n"
    self.prefixTokens = prefixTokens
  }

  /// The whole text of a prompt, each image as one ``imageToken``.
  static func text(of prompt: PromptInput) -> String {
    switch prompt.template {
    case .textToImage: textToImage.prefix + prompt.text + suffix
    case .edit: editing.prefix + image + prompt.text + suffix
    case .editPlus:
      editing.prefix + prompt.images.indices.map { "Picture \($0 + 1): \(image)" }.joined() + prompt.text + suffix
    }
  }

  /// The words of the template, as the tokenizer's first step cuts them; tokens that are no words left out.
  var words: [[UInt8]] {
    var words: [[UInt8]] = []
    for text in (prefix + Self.suffix).split(separator: /<\|[a-z_]+\|>/) {
      WordSplitter.forEachWord(of: String(text)) { words.append(Array($0)) }
    }
    return words
  }
}
