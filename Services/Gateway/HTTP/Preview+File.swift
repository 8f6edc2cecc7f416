import ClusterCore
import Foundation
import GatewayDispatch
import ImageCodec
import Provenance

extension ImageEncoding {
  /// Of previews whose format no client has chosen.
  static let preview = ImageEncoding(format: .jpeg, quality: 85)
}

extension Preview {
  /// Longest side of the files, in pixels.
  private static let maxSidePx = 512
  private static let encoder = {
    let queue = OperationQueue()
    queue.name = "preview-encoder"
    queue.maxConcurrentOperationCount = 1
    return queue
  }()

  /// The preview as a file, enlarged to the size of the image, but to 512 pixels a side at most.
  ///
  /// It takes some milliseconds, not on a thread that serves connections.
  package func file(as encoding: ImageEncoding, of size: ImageSize) async throws -> [UInt8] {
    let scale = min(1, Double(Self.maxSidePx) / Double(max(size.widthPx, size.heightPx)))
    let (width, height) = (max(1, Int(Double(size.widthPx) * scale)), max(1, Int(Double(size.heightPx) * scale)))
    return try await withCheckedThrowingContinuation { continuation in
      Self.encoder.addOperation {
        continuation.resume(
          with: Result {
            let file = try encoding.file(of: image.resized(width: width, height: height, filter: .bicubic))
            return try origin.map { try XMP.adding($0, to: file) } ?? file
          })
      }
    }
  }
}
