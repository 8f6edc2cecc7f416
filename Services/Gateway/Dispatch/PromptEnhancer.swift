import ClusterCore
import GatewayPipelines

/// Rewrites prompts of clients that ask for it.
public protocol PromptEnhancer: Sendable {
  /// The request with rewritten prompts, before anything is done for it.
  ///
  /// - Parameters:
  ///   - request: one with a ``JobRequest/enhancement``.
  ///   - job: the name that the job will have.
  /// - Throws: UNAVAILABLE of the field ``PromptEnhancement/field`` when there are none.
  func enhanced(_ request: JobRequest, job: String) async throws(Status) -> JobRequest
}
