import CImageCodec

extension codec_file {
  /// The encoder's reason for failing.
  var message: String { withUnsafeBytes(of: error) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) } }

  /// The file.
  var contents: [UInt8] { Array(UnsafeBufferPointer(start: bytes, count: byte_count)) }

  /// Calls `body` with the place for a reason.
  mutating func withMessage<Result>(_ body: (UnsafeMutablePointer<CChar>) -> Result) -> Result {
    withUnsafeMutableBytes(of: &error) { body($0.baseAddress!.assumingMemoryBound(to: CChar.self)) }
  }
}

extension codec_header {
  /// The decoder's reason for failing.
  var message: String { withUnsafeBytes(of: error) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) } }
}
