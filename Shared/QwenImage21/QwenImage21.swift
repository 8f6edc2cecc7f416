/// Qwen-Image-2.1 and 2.1-Turbo: the second family.
public enum QwenImage21 {
  /// As documents and the command line call it.
  static let name = "qwen-image-2.1"
}
