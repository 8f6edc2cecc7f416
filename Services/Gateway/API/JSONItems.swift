/// The elements of a JSON array, or the lines of JSON lines, each as it stands there: to be read one by one.
public enum JSONItems {
  /// Takes an array apart. Only its own brackets and commas are looked at: what stands between them is whatever its
  /// reader takes it for.
  ///
  /// - Throws: when `bytes` are no array, or have more than `maxCount` elements.
  public static func elements(of bytes: [UInt8], maxCount: Int) throws(APIError) -> [[UInt8]] {
    var place = bytes.firstIndex { !isSpace($0) } ?? bytes.endIndex
    guard place < bytes.endIndex, bytes[place] == UInt8(ascii: "[") else {
      throw APIError(.invalidJSON, "the body is not a JSON array")
    }
    place += 1
    var items: [[UInt8]] = [], start = place, depth = 0, isInString = false
    while place < bytes.endIndex {
      let byte = bytes[place]
      if isInString {
        if byte == UInt8(ascii: "\\") { place += 1 }
        isInString = byte != UInt8(ascii: "\"")
        place += 1
        continue
      }
      switch byte {
      case UInt8(ascii: "\""): isInString = true
      case UInt8(ascii: "["), UInt8(ascii: "{"): depth += 1
      case UInt8(ascii: "]") where depth == 0:
        guard bytes[(place + 1)...].allSatisfy(isSpace) else {
          throw APIError(.invalidJSON, "something follows the array of the body")
        }
        if !(items.isEmpty && bytes[start..<place].allSatisfy(isSpace)) {
          try append(bytes[start..<place], to: &items, maxCount: maxCount)
        }
        return items
      case UInt8(ascii: "]"), UInt8(ascii: "}"): depth -= 1
      case UInt8(ascii: ",") where depth == 0:
        try append(bytes[start..<place], to: &items, maxCount: maxCount)
        start = place + 1
      default: break
      }
      place += 1
    }
    throw APIError(.invalidJSON, "the array of the body has no end")
  }

  /// Takes JSON lines apart; empty lines count for nothing.
  ///
  /// - Throws: when there are more than `maxCount`.
  public static func lines(of bytes: [UInt8], maxCount: Int) throws(APIError) -> [[UInt8]] {
    var items: [[UInt8]] = []
    for line in bytes.split(separator: UInt8(ascii: "\n")) where !line.allSatisfy(isSpace) {
      try append(line, to: &items, maxCount: maxCount)
    }
    return items
  }

  private static func append(_ item: ArraySlice<UInt8>, to items: inout [[UInt8]], maxCount: Int) throws(APIError) {
    guard items.count < maxCount else {
      throw APIError(.invalidValue, "the body has more than \(maxCount) items, which is the limit")
    }
    items.append(Array(item))
  }

  private static func isSpace(_ byte: UInt8) -> Bool { [0x20, 0x09, 0x0A, 0x0D].contains(byte) }
}
