import Foundation
import Hashing
import ImageCodec
import Templates

/// An image of a batch: the fields of its request by their names in the API, its input files, and where it goes.
package struct BatchRow: Equatable {
  /// Names of fields that are files.
  private static let fileFields: Set = ["image", "image[]", "mask", "control_image"]
  private static let outputField = "output"
  static let maxRows = 100_000
  static let maxBytes = 64 << 20

  /// From 1, in the order of the file.
  package var number: Int
  /// For messages.
  package var line: Int
  /// For messages, where the row is one of another table; nil: number and line.
  package var ownTitle: String?
  /// What messages call it.
  var title: String { ownTitle ?? "row \(number) (line \(line))" }
  /// In order; values as forms have them.
  package var fields: [(name: String, value: String)] = []
  /// Field and path, in order.
  package var files: [(name: String, path: String)] = []
  /// The path below the output directory; nil: the row's number.
  package var output: String?

  package static func == (one: BatchRow, other: BatchRow) -> Bool {
    one.number == other.number && one.line == other.line && one.output == other.output
      && one.fields.elementsEqual(other.fields, by: ==) && one.files.elementsEqual(other.files, by: ==)
  }

  /// The rows of a file.
  ///
  /// - Parameters:
  ///   - text: a table with a header, or a JSON object on each line.
  ///   - isTable: which of the two.
  /// - Throws: an ``OutputError`` that names the line.
  package static func rows(of text: String, isTable: Bool, name: String) throws -> [BatchRow] {
    var rows: [BatchRow] = []
    do {
      rows = isTable ? try tableRows(CSV(text)) : try objectRows(text)
    } catch {
      throw OutputError(name: name, reason: "\(error)")
    }
    guard !rows.isEmpty else { throw OutputError(name: name, reason: "it has no rows") }
    guard rows.count <= maxRows else {
      throw OutputError(name: name, reason: "it has \(rows.count) rows; the limit is \(maxRows)")
    }
    return rows
  }

  private static func tableRows(_ table: CSV) throws(CSV.Failure) -> [BatchRow] {
    var rows: [BatchRow] = []
    for (line, values) in table.rows {
      var row = BatchRow(number: rows.count + 1, line: line)
      // What is left empty is left to the defaults. Several files are separated by semicolons.
      for (name, value) in zip(table.header, values) where !value.isEmpty {
        let isFile = fileFields.contains(name)
        for part in isFile ? value.split(separator: ";").map(String.init) : [value] { try row.add(name, part) }
      }
      rows.append(row)
    }
    return rows
  }

  private static func objectRows(_ text: String) throws(CSV.Failure) -> [BatchRow] {
    var rows: [BatchRow] = []
    for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
      guard !line.allSatisfy(\.isWhitespace) else { continue }
      let value = try? JSONSerialization.jsonObject(with: Data(line.utf8))
      guard let object = value as? [String: Any] else {
        throw CSV.Failure(line: index + 1, reason: "it is not a JSON object")
      }
      var row = BatchRow(number: rows.count + 1, line: index + 1)
      for (name, value) in object.sorted(by: { $0.key < $1.key }) where !(value is NSNull) {
        let parts = fileFields.contains(name) ? value as? [Any] ?? [value] : [value]
        for part in parts { try row.add(name, Self.text(part)) }
      }
      rows.append(row)
    }
    return rows
  }

  /// A value as a form has it: texts as they are, anything else as JSON.
  private static func text(_ value: Any) -> String {
    if let text = value as? String { return text }
    let data = try? JSONSerialization.data(withJSONObject: value, options: [.fragmentsAllowed, .sortedKeys])
    return data.map { String(decoding: $0, as: UTF8.self) } ?? ""
  }

  private mutating func add(_ name: String, _ value: String) throws(CSV.Failure) {
    switch name {
    case Self.outputField:
      guard !value.hasPrefix("/"), !value.split(separator: "/").contains("..") else {
        throw CSV.Failure(line: line, reason: "output is \(value), but must be a path below the output directory")
      }
      output = value
    case _ where Self.fileFields.contains(name): files.append((name, value))
    default: fields.append((name, value))
    }
  }

  /// The request: the same bytes for the same row and files.
  ///
  /// - Parameter directory: of the batch's file, to which the paths of the row are relative.
  /// - Returns: a form, and a key that is that of no other row.
  func request(in directory: URL) throws -> (form: UploadForm, key: String) {
    var reader = InputFileReader()
    let inputs = try files.map { name, path in
      (name, try reader.read(directory.appending(path: path).path, "line \(line): \(name)"))
    }
    var hash = SHA256()
    hash.update(Array("\(number)".utf8))
    for (name, value) in fields { hash.update(Array("\0\(name)\0\(value)".utf8)) }
    for (name, file) in inputs { hash.update(Array("\0\(name)\0\(file.bytes.count)\0".utf8) + file.bytes) }
    let digest = hash.finalize().map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    var form = UploadForm(boundary: "qwen-image-\(digest.prefix(32))")
    if !fields.contains(where: { $0.name == "priority" }) { form.add("priority", "batch") }
    for (name, value) in fields { form.add(name, value) }
    for (name, file) in inputs { form.add(name, file) }
    return (form, "batch-\(digest)")
  }
}
