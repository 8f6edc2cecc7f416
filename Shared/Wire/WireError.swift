import ClusterCore

/// Why a message cannot be sent or understood. Every case names the field at fault, as a path in the .proto files.
public enum WireError: Error, Sendable, Equatable {
  /// The structure of a frame or of the message is broken.
  case malformed(field: String, reason: String)
  /// More bytes than allowed.
  case tooLarge(field: String, bytes: Int, limit: Int)
  /// More elements than allowed.
  case tooMany(field: String, count: Int, limit: Int)
  /// The sender speaks another protocol version.
  case unsupportedVersion(found: UInt32, supported: UInt32)
  /// Text that is not valid UTF-8 or holds a NUL.
  case invalidText(field: String, reason: String)
  /// A number that the enumeration does not define.
  case unknownValue(field: String, value: Int)
  /// Text where a name of a–z, 0–9 and hyphens must be.
  case notAName(field: String, value: String)
  /// A required field is absent.
  case missing(field: String)
  /// A message of a later version: the field of the envelope that holds it.
  case unknownBody(number: UInt32)
  /// A value outside what the field allows.
  case outOfRange(field: String, value: String, allowed: String)
  /// A tensor's bytes are not those that its sender described.
  case checksumMismatch(tensor: String, described: UInt32, computed: UInt32)
  /// The envelope is not the one that was sent.
  case brokenSeal(reason: String)
  /// A tensor's frame does not have the length that its shape asks for.
  case sizeMismatch(tensor: String, expected: Int, found: Int)
  /// The message has more or fewer frames than its descriptors announce.
  case frameCount(expected: Int, found: Int)
}

extension WireError: CustomStringConvertible {
  /// One sentence for people, with field, value and limit.
  public var description: String {
    switch self {
    case .malformed(let field, let reason): "\(field): \(reason)"
    case .tooLarge(let field, let bytes, let limit): "\(field): \(bytes) bytes, at most \(limit) allowed"
    case .tooMany(let field, let count, let limit): "\(field): \(count) elements, at most \(limit) allowed"
    case .unsupportedVersion(let found, let supported): "protocol_version: \(found), only \(supported) is supported"
    case .invalidText(let field, let reason): "\(field): \(reason)"
    case .unknownValue(let field, let value): "\(field): unknown value \(value)"
    case .notAName(let field, let value):
      "\(field): \(value.prefix(80)), but a name of a–z, 0–9 and hyphens is required"
    case .missing(let field): "\(field): missing"
    case .unknownBody(let number): "body: field \(number), which is not known"
    case .outOfRange(let field, let value, let allowed): "\(field): \(value), but \(allowed) is required"
    case .checksumMismatch(let tensor, let described, let computed):
      "tensor \(tensor): CRC-32 \(described) described, \(computed) computed"
    case .brokenSeal(let reason): "message: \(reason)"
    case .sizeMismatch(let tensor, let expected, let found):
      "tensor \(tensor): \(expected) bytes expected, \(found) found"
    case .frameCount(let expected, let found): "message: \(expected) frames expected, \(found) found"
    }
  }

  /// The field at fault, as a path in the .proto files, or the tensor.
  public var field: String {
    switch self {
    case .malformed(let field, _), .tooLarge(let field, _, _), .tooMany(let field, _, _), .invalidText(let field, _),
      .unknownValue(let field, _), .notAName(let field, _), .missing(let field), .outOfRange(let field, _, _):
      field
    case .unsupportedVersion: "protocol_version"
    case .unknownBody: "body"
    case .checksumMismatch(let tensor, _, _), .sizeMismatch(let tensor, _, _): tensor
    case .frameCount, .brokenSeal: "message"
    }
  }

  /// What to answer the sender.
  public var status: Status {
    let code: StatusCode =
      switch self {
      case .unsupportedVersion, .unknownBody: .unimplemented
      case .checksumMismatch, .brokenSeal: .dataLoss
      default: .invalidArgument
      }
    return Status(code, description, field: field)
  }
}
