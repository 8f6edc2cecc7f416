import ClusterCore
import Foundation
import HTTPClient

extension GatewayClient {
  /// A request for a job with images, as it is sent, however often.
  struct Upload: Sendable {
    /// The same key has the gateway make one job of it.
    let key: String
    let contentType: String
    let body: [UInt8]

    /// - Parameter key: nil: a random one.
    init(_ form: UploadForm, key: String?) {
      self.key = key ?? UUID().uuidString
      contentType = form.contentType
      body = form.bytes
    }
  }

  /// Submits a job, and again when the connection breaks, as ``persistently(_:)`` says.
  ///
  /// A task that is cancelled waits a moment for the answer, because there may be a job to cancel.
  ///
  /// - Parameter cancelsWithTask: whether the job is cancelled with the task.
  func submit(_ upload: Upload, cancelsWithTask: Bool = true) async throws -> Job {
    let submission = Task {
      try await persistently(hint: "--key \(upload.key) asks for the same job") { try await submitOnce(upload) }
    }
    let job = try await withTaskCancellationHandler {
      try await submission.value
    } onCancel: {
      Task {
        try? await Task.sleep(for: Self.cancellationGrace)
        submission.cancel()
      }
    }
    guard Task.isCancelled else { return job }
    if cancelsWithTask { await cancelQuietly(job.id) }
    throw CancellationError()
  }

  private func submitOnce(_ upload: Upload) async throws -> Job {
    var request = request("POST", "/v1/jobs")
    request.headers += [("content-type", upload.contentType), ("idempotency-key", upload.key)]
    request.body = upload.body
    return try decode(try await answer(to: request))
  }

  /// A file of a finished image, asked for again when the connection breaks.
  ///
  /// - Parameter layer: of an image with layers, from 0 at the bottom.
  func image(of id: String, index: Int, layer: Int?) async throws -> Data {
    let layer = layer.map { "&layer=\($0)" } ?? ""
    return try image(try await persistently { try await data(path(of: id) + "/result?index=\(index)\(layer)") })
  }

  /// The layers of a job's first image, from the bottom up; nil instead if it has none.
  func layers(of job: Job) throws(GatewayClientError) -> [Int?] {
    guard let count = job.images.first?.layers else { return [nil] }
    guard (1...LayerCount.limit.upperBound).contains(count) else {
      throw .notGateway(address, reason: "it says that the image has \(count) layers")
    }
    return Array(0..<count)
  }

  /// Cancels a job, if that can be done at once; also in a task that is cancelled itself.
  func cancelQuietly(_ id: String) async {
    var request = request("DELETE", path(of: id))
    request.timeout = Self.cancellationGrace
    _ = try? await Task { [request] in try await answer(to: request) }.value
  }

  /// Calls `operation`, and again when the connection broke, for up to a minute. A gateway that never was there is an
  /// error at once; one that was is waited for.
  ///
  /// - Parameter hint: what else can be done when the minute is over, for users.
  private func persistently<Result>(
    hint: String? = nil, _ operation: () async throws -> Result
  ) async throws -> Result {
    var brokenSince: ContinuousClock.Instant?, wait = Duration.milliseconds(500)
    while true {
      do {
        return try await operation()
      } catch  where Self.isBreak(error, wasConnected: brokenSince != nil) {
        let since = brokenSince ?? .now
        brokenSince = since
        guard .now - since < Self.patience else {
          if let hint { Terminal.note(hint) }
          throw error
        }
      }
      try await Task.sleep(for: wait)
      wait = min(wait * 2, .seconds(8))
    }
  }

  private static let patience = Duration.seconds(60)
  private static let cancellationGrace = Duration.seconds(5)

  /// Whether an error says nothing of the request, only of the way to the gateway, which may be starting again.
  private static func isBreak(_ error: any Error, wasConnected: Bool) -> Bool {
    switch error {
    case let error as HTTPClientError:
      error.kind == .broken || wasConnected && [.unreachable, .connectTimedOut].contains(error.kind)
    case GatewayClientError.refused(let status, _, _): wasConnected && [502, 503, 504].contains(status)
    default: false
    }
  }
}
