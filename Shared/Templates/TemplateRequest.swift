import StrictJSON

/// One image that a template and a row ask for.
public struct TemplateRequest: Hashable, Sendable {
  /// The row's number, from 1.
  public var row: Int
  /// The line of the row in its table; nil: there was none.
  public var line: Int?
  /// The name of the size; nil: the template has none.
  public var size: String?
  /// The name of the language; nil: the template has none.
  public var language: String?
  /// Where its file goes, below a folder and without an extension.
  public var output: String
  /// The fields of the request, by their names in the API.
  public var fields: JSONObject
  /// The values of the slots of kind file, by the field of the request: paths on the command line, data URLs in the
  /// API.
  public var files: [(field: String, values: [String])] {
    get { fileFields.map { ($0.field, $0.values) } }
    set { fileFields = newValue.map { FileField(field: $0.field, values: $0.values) } }
  }
  private var fileFields: [FileField] = []

  private struct FileField: Hashable {
    var field: String
    var values: [String]
  }

  /// What to draw.
  public var prompt: String { fields["prompt"]?.text ?? "" }

  init(row: TemplateRow, size: String?, language: String?, output: String, fields: JSONObject) {
    self.row = row.number
    line = row.line
    (self.size, self.language) = (size, language)
    self.output = output
    self.fields = fields
  }

  /// The request with its files as the API and `qwen-image batch` take it.
  ///
  /// - Parameter withOutput: whether it says where the file goes, in the member `output`.
  public func json(withOutput: Bool) -> JSON {
    var members = fields
    for file in fileFields {
      // Only `image` may be several.
      members[file.field] =
        file.values.count == 1 && file.field != "image"
        ? .string(file.values[0]) : .array(file.values.map { .string($0) })
    }
    if withOutput { members["output"] = .string(output) }
    return .object(members)
  }

  /// What a person calls it: `row 3, size square, language zh`.
  public var title: String {
    "row \(row)" + (size.map { ", size \($0)" } ?? "") + (language.map { ", language \($0)" } ?? "")
  }
}
