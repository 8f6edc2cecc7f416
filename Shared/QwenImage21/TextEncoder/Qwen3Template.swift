import Diffusion

/// The text around a prompt (diffusers `QwenImage21Pipeline`). Its system message is left out of the embeddings; the
/// user header behind it is not.
enum Qwen3Template {
  /// The system message.
  static let prefix = "<|im_start|>system\nComprehend and analyze the provided prompt.<|im_end|>\n"
  /// The tokens of ``prefix`` by the model's own tokenizer: rows dropped from the front of the hidden states.
  static let prefixTokens = 14
  /// What stands before the images and the prompt.
  static let userHeader = "<|im_start|>user\n"
  /// What stands behind every prompt.
  static let suffix = "<|im_end|>\n<|im_start|>assistant\n"

  /// The token that stands for the rows of an image.
  static let imageToken = "<|image_pad|>"

  /// The whole text of a prompt, each image as one ``imageToken``. A prompt without any text is one space.
  static func text(of prompt: PromptInput) -> String {
    let images = prompt.images.indices.map { "<image\($0 + 1)><|vision_start|>\(imageToken)<|vision_end|>" }
    return prefix + userHeader + images.joined(separator: " ") + (prompt.text.isEmpty ? " " : prompt.text) + suffix
  }

  /// The words of the template for prompts alone, as the tokenizer's first step cuts them; tokens that are no words
  /// left out.
  static let words: [[UInt8]] = {
    var words: [[UInt8]] = []
    for text in (prefix + userHeader + suffix).split(separator: /<\|[a-z_]+\|>/) {
      WordSplitter.forEachWord(of: String(text)) { words.append(Array($0)) }
    }
    return words
  }()
}
