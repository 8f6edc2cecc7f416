import CZlib
import Foundation

/// The decompressed bytes of a gzip file.
package func gunzip(_ url: URL) throws -> [UInt8] {
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
