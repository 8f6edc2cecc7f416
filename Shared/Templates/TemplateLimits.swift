/// What templates and their rows may have at most. Both come from outside.
public enum TemplateLimits {
  /// Bytes of a template.
  public static let templateBytes = 256 << 10
  /// Bytes of a table of rows.
  public static let tableBytes = 16 << 20
  /// Levels of nesting of a template.
  public static let depth = 8
  /// Values of a template, those within others too.
  public static let values = 8192
  /// Characters of the names of templates, slots, sizes and languages.
  public static let nameLength = 32
  /// Slots of a template.
  public static let slots = 64
  /// Values that a slot allows, and words of a brand.
  public static let words = 256
  /// Sizes of a template.
  public static let sizes = 16
  /// Languages of a template.
  public static let languages = 16
  /// Tags of a template; one of the job's is the template's name.
  public static let tags = 15
  /// Bytes of a prompt, before and after its slots are filled.
  public static let promptBytes = 16 << 10
  /// Characters of the text of a slot.
  public static let textLength = 4096
  /// Characters of a description.
  public static let descriptionLength = 1024
  /// Rows of a table.
  public static let rows = 10_000
  /// Requests that rows, sizes and languages make.
  public static let requests = 10_000
  /// Bytes of all requests.
  public static let requestBytes = 64 << 20
  /// Characters of the name of an image's file.
  public static let outputLength = 160
  /// Mistakes that are reported at a time.
  public static let problems = 100
}
