import Foundation
import Journal
import Scheduling
import Wire

extension StoredPayload {
  /// A copy of the tensor's bytes.
  init(_ tensor: WireTensor, id: UInt64) {
    self.init(
      id: id, name: tensor.name, dtype: tensor.dtype.rawValue, shape: tensor.shape, bytes: tensor.bytes.withUnsafeBytes { Data($0) })
  }

  /// The tensor; nil when the description and the bytes do not agree.
  var tensor: WireTensor? {
    guard let dtype = WireDType(rawValue: dtype), WireTensor.byteCount(shape: shape, dtype: dtype) == bytes.count else { return nil }
    return WireTensor(name: name, dtype: dtype, shape: shape, bytes: bytes.withUnsafeBytes { FrameBuffer(copying: $0) })
  }
}

extension StoredFailure {
  init(_ failure: Failure) { self.init(code: failure.code.rawValue, message: failure.message, field: failure.field) }

  var failure: Failure { Failure(StatusCode(rawValue: code) ?? .unknown, message, field: field) }
}

extension Failure {
  /// What clients are told when the journal does not do its part.
  init(_ error: JournalError) {
    switch error {
    case .full: self.init(.resourceExhausted, "\(error)", retryAfterSeconds: 60, resource: .storage)
    case .duplicate: self.init(.alreadyExists, "\(error)")
    case .tooLarge: self.init(.invalidArgument, "\(error)")
    case .corrupt: self.init(.dataLoss, "\(error)")
    case .foreign, .inUse, .failed: self.init(.internal, "\(error)")
    }
  }
}
