import StrictJSON

/// What the images of a batch have in common: a prompt with slots, sizes, languages, fixed fields of the requests, and
/// the rules of a brand. ``expanded(_:)`` makes requests of it and rows.
public struct Template: Hashable, Sendable {
  /// A value that every row gives, or that has a default.
  public struct Slot: Hashable, Sendable {
    /// What a value is.
    public enum Kind: String, CaseIterable, Sendable {
      /// Words of the prompt.
      case text
      /// An image file.
      case file
    }

    /// As prompts and columns name it.
    public var name: String
    /// What a value is.
    public var kind = Kind.text
    /// Whether each row must have a value.
    public var isRequired = false
    /// Of rows without a value; nil: it is required.
    public var standard: String?
    /// The values that it may have; empty: any.
    public var allowed: [String] = []
    /// Characters of a value at most.
    public var maxLength = TemplateLimits.textLength
    /// For people.
    public var summary = ""
  }

  /// A size of the images.
  public struct Size: Hashable, Sendable {
    /// As names of files have it.
    public var name: String
    /// In pixels.
    public var width: Int
    /// In pixels.
    public var height: Int
  }

  /// A language of the prompts.
  public struct Language: Hashable, Sendable {
    /// As names of files, and columns such as `word.zh`, have it.
    public var name: String
    /// Instead of the template's; nil: the template's.
    public var prompt: TemplateText?
    /// Instead of the template's; nil: the template's.
    public var negativePrompt: TemplateText?
    /// Instead of the brand's; nil: the brand's.
    public var prefix: String?
    /// Instead of the brand's; nil: the brand's.
    public var suffix: String?
    /// Instead of the brand's; empty: the brand's.
    public var colours: [String] = []
    /// What the values of a slot are in this language, by slot and value.
    public var words: [String: [String: String]] = [:]
  }

  /// The noise that images begin with.
  public enum Seed: Hashable, Sendable {
    /// All with the same.
    case fixed(Int)
    /// Each row with its own: its number and this one added. Sizes and languages of a row share it.
    case row(base: Int)
  }

  /// What must hold for all prompts, whatever the rows say.
  public struct Brand: Hashable, Sendable {
    /// Before every prompt.
    public var prefix = ""
    /// After every prompt.
    public var suffix = ""
    /// Behind the prompt, before the suffix: `, colours: red, white`.
    public var colours: [String] = []
    /// Words of which every prompt has all.
    public var requiredWords: [String] = []
    /// Words that no prompt has.
    public var forbiddenWords: [String] = []
    /// Characters of the text of a slot at most, unless the slot has a list of allowed values.
    public var maxTextLength: Int?
    /// Characters of a prompt at most.
    public var maxPromptLength: Int?
  }

  /// A tag of the jobs is `template:` and the name.
  public var name: String
  /// For people.
  public var summary = ""
  /// What to draw.
  public var prompt: TemplateText
  /// What to steer away from; nil: the model's own.
  public var negativePrompt: TemplateText?
  /// In the template's order.
  public var slots: [Slot] = []
  /// Each row is made in each; empty: in the model's own size.
  public var sizes: [Size] = []
  /// Each row is made in each; empty: in the template's own.
  public var languages: [Language] = []
  /// The slots whose files are the fields `image`, `mask` and `control_image` of the requests.
  public var inputs: [Input] = []
  /// Further fields of the requests, the same for all.
  public var fields: JSONObject = [:]
  /// The noise.
  public var seed = Seed.row(base: 0)
  /// The rules of the brand.
  public var brand = Brand()
  /// The names of the images' files; nil: row, size and language.
  public var output: TemplateText?
  /// Further tags of the jobs.
  public var tags: [String] = []

  /// A field of requests that is images.
  public struct Input: Hashable, Sendable {
    /// By its name in the API.
    public var field: String
    /// In order.
    public var slots: [String]
  }

  /// The slot called `name`.
  func slot(_ name: String) -> Slot? { slots.first { $0.name == name } }
}
