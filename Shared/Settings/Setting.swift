/// One key of the configuration, for `--help`.
public struct Setting: Hashable, Sendable {
  /// `http.maxBodyBytes`: in the file an object `http` with a key `maxBodyBytes`.
  public var key: String
  /// What it is when nothing says otherwise.
  public var defaultText: String
  /// What it does, and what it may be.
  public var help: String

  /// A key and its documentation.
  public init(key: String, defaultText: String, help: String) {
    self.key = key
    self.defaultText = defaultText
    self.help = help
  }

  /// `--http-max-body-bytes`
  public var flag: String { "--" + Self.words(key).joined(separator: "-") }

  /// `QWEN_IMAGE_HTTP_MAX_BODY_BYTES`
  public var variable: String { "QWEN_IMAGE_" + Self.words(key).joined(separator: "_").uppercased() }

  private static func words(_ key: String) -> [String] {
    key.split(separator: ".").flatMap { part -> [String] in
      var words = [""]
      for character in part {
        if character.isUppercase { words.append("") }
        words[words.count - 1] += character.lowercased()
      }
      return words
    }
  }
}
