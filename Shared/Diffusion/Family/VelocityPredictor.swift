import ClusterCore
import TensorCore
import Weights

/// Latents, conditioning and step → velocity: the denoising network.
///
/// What does not change between the steps of an image is computed once, by ``prepare(_:times:)``; a resume prepares
/// again, and must get the same bytes.
public protocol VelocityPredictor: Sendable {
  /// One branch of guidance, prepared for all steps of an image: projected conditioning, rotary tables, modulation,
  /// caches.
  associatedtype Prepared: Sendable

  /// Names everything that results depend on besides weights and inputs.
  var numericsClass: String { get }
  /// The pipelines that the control networks which were loaded beside it are for.
  var controlPipelines: [PipelineName] { get }
  /// Bytes that are kept of what was prepared, for later images of the same prompt and references.
  var keptBytes: Int { get }
  /// Most tokens of references of an image, all branches of guidance together; nil: any number.
  var referenceTokensMax: Int? { get }
  /// Blocks that the network runs one after the other; step caches leave out some of them.
  var blockCount: Int { get }
  /// Most tokens of a pass that several calls share: with more, bringing them together costs time.
  static var sharedTokensMax: Int { get }

  /// The network with adapters beside its weights instead of those that it has; without any, as it was loaded. The two
  /// share the weights. What one has prepared is not for the other.
  ///
  /// - Throws: `WeightsError` naming the file, and the tensor that does not fit the network.
  func adapted(by adapters: AdapterSet) throws(WeightsError) -> Self

  /// Bytes that the adapters beside the weights take.
  var adapterBytes: Int { get }

  /// Checks whether an adapter is for this network, as far as the names and shapes of its tensors say, and throws an
  /// error that names the file, and a tensor that does not fit. It does not hold the network.
  var adapterCheck: AdapterCheck { get }

  /// Prepares the branches of an image.
  ///
  /// - Parameter times: noise levels of all steps of the schedule, whichever are left.
  /// - Returns: one branch for each of `image.prompts`.
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` when the input does not fit the model.
  func prepare(_ image: DenoisingInput, times: [Float]) throws(PipelineError) -> [Prepared]

  /// Tokens that a pass for this call has.
  func tokenCount(_ call: VelocityCall<Prepared>) -> Int

  /// Predicts several velocities, of any images and steps, in as few passes as are worth sharing. Calls of one image
  /// are in the order of its branches.
  ///
  /// - Returns: per call a tensor like its latents, fp32, with the same bytes as alone.
  func velocities(_ calls: [VelocityCall<Prepared>]) -> [Tensor]

  /// Predicts one velocity.
  ///
  /// - Parameter probe: receives intermediates under the reference's names.
  func velocity(_ call: VelocityCall<Prepared>, probe: Probe) -> Tensor
}

/// Throws when an adapter is not for a network.
public typealias AdapterCheck = @Sendable (Adapter) throws(WeightsError) -> Void

/// What one velocity is predicted from.
public struct VelocityCall<Prepared: Sendable>: Sendable {
  /// The branch of guidance.
  public var branch: Prepared
  /// Packed latents before the step, fp32.
  public var latents: Tensor
  /// The step, from 0.
  public var step: Int
  /// What the branch keeps of earlier steps; nil: the whole network runs.
  public var cache: BranchCache?

  /// See the properties.
  public init(branch: Prepared, latents: Tensor, step: Int, cache: BranchCache? = nil) {
    self.cache = cache
    self.branch = branch
    self.latents = latents
    self.step = step
  }
}

extension VelocityPredictor {
  /// No control networks.
  public var controlPipelines: [PipelineName] { [] }
  /// Nothing is kept.
  public var keptBytes: Int { 0 }
  /// A network that cannot be divided.
  public var blockCount: Int { 1 }
  /// Any number.
  public var referenceTokensMax: Int? { nil }
  /// A network without adapters takes none.
  public func adapted(by adapters: AdapterSet) throws(WeightsError) -> Self {
    for member in adapters.members { try adapterCheck(member.adapter) }
    return self
  }
  /// None.
  public var adapterBytes: Int { 0 }
  /// Refuses any.
  public var adapterCheck: AdapterCheck {
    { (adapter) throws(WeightsError) in
      throw .malformedHeader(file: adapter.file.path, reason: "the model takes no adapters")
    }
  }
}
