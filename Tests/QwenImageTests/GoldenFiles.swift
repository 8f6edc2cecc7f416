import CZlib
import Foundation
import Weights

/// The decompressed bytes of a gzip file.
func gunzip(_ url: URL) throws -> [UInt8] {
  guard let file = gzopen(url.path, "rb") else { throw CocoaError(.fileReadUnknown) }
  defer { gzclose(file) }
  var result: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 1 << 20)
  while true {
    let count = gzread(file, &buffer, UInt32(buffer.count))
    guard count >= 0 else { throw CocoaError(.fileReadCorruptFile) }
    if count == 0 { return result }
    result += buffer[..<Int(count)]
  }
}

extension JSON {
  /// The member of an object.
  subscript(key: String) -> JSON? { if case .object(let members) = self { members[key] } else { nil } }
  /// The elements of an array.
  var elements: [JSON]? { if case .array(let elements) = self { elements } else { nil } }
  /// The value of a string.
  var text: String? { if case .string(let text) = self { text } else { nil } }
  /// The value of an integer.
  var integer: Int? { if case .number(_, let integer) = self { integer } else { nil } }
  /// The value of a number.
  var number: Double? { if case .number(let number, _) = self { number } else { nil } }
  /// The elements of an array of integers.
  var integers: [Int]? { elements?.compactMap(\.integer) }
}
