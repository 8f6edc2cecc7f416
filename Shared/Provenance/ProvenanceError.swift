import ImageCodec

/// Why nothing could be written into an image file about where it comes from.
public enum ProvenanceError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The file is not one of its format, or not one that the encoders of this software write.
  case malformed(ImageFileFormat, reason: String)
  /// Something is larger than allowed.
  case tooLarge(String, found: Int, limit: Int)
  /// Two entries of a CBOR map have one key.
  case repeatedKey
  /// The signature could not be made.
  case cannotSign(reason: String)

  /// The message for users and logs.
  public var description: String {
    switch self {
    case .malformed(let format, let reason): "malformed \(format) file: \(reason)"
    case .tooLarge(let what, let found, let limit): "\(found) \(what), the limit is \(limit)"
    case .repeatedKey: "two entries of a CBOR map have one key"
    case .cannotSign(let reason): "the manifest cannot be signed: \(reason)"
    }
  }
}
