import ClusterCore
import GatewayAPI
import GatewayPipelines
import Wire

/// Judges what clients ask for, and what they would get.
public protocol ContentReviewer: Sendable {
  /// Whether images are judged as well as requests: then no client sees one before, not even a preview.
  var judgesResults: Bool { get }

  /// Judges a request, before anything is done for it.
  ///
  /// - Parameter job: the name that the job will have.
  /// - Throws: PERMISSION_DENIED of the field ``APIError/promptField`` when it is refused; another status when there is
  ///   no judgement, and without one there are no images.
  func review(_ request: JobRequest, job: String) async throws(Status)

  /// Judges a finished image, before any client gets it.
  ///
  /// - Parameters:
  ///   - result: the image's files.
  ///   - image: what was asked for.
  ///   - index: its place in the job.
  /// - Throws: as above, of the field ``APIError/resultField``.
  func review(_ result: WireTensor, of image: ImageSpec, job: String, index: Int) async throws(Status)
}
