import ClusterCore
import TensorCore

/// What a later attempt resumes from: one tensor.
public struct LoopCheckpoint: Sendable {
  /// Steps of the schedule that need not be made again; steps that are left out count.
  public let completedSteps: Int
  /// Packed latents after them [N, C], fp32; of samplers with history and of step caches that extrapolate velocities
  /// [1 + h, N, C]: the latents, the sampler's history, velocities, oldest first.
  public let state: Tensor

  init(completedSteps: Int, _ state: SamplerState, velocities: [Tensor]) {
    self.completedSteps = completedSteps
    let planes = [state.latents] + state.history + velocities
    self.state =
      planes.count == 1
      ? state.latents
      : Tensor.stacking(planes).reshaped(Shape([planes.count] + state.latents.shape.dimensions))
  }
}

extension DenoisingInput {
  /// Resumes at step `firstStep` from the state of a ``LoopCheckpoint`` after as many steps.
  public mutating func resume(at firstStep: Int, from state: Tensor) {
    self.firstStep = firstStep
    latents = state
  }

  /// The steps whose velocities a resumed step cache extrapolates from, oldest first.
  var supportingSteps: [Int] {
    guard let cache, cache.method.isPlanned else { return [] }
    return cache.support(of: firstStep - startStep, of: steps - startStep).map { startStep + $0 }
  }

  /// What the loop begins with: the sampler's state, and velocities of ``supportingSteps``.
  ///
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` when the latents do not come with what sampler and step
  ///   cache have after the steps that are done.
  func resumed() throws(PipelineError) -> (state: SamplerState, velocities: [Tensor]) {
    let made = firstStep - startStep, shape = latents.shape.dimensions
    guard startStep >= 0, made >= 0 else {
      throw .invalidRequest(field: "first_step", reason: "is \(firstStep), before step \(startStep)")
    }
    let history = sampling.sampler.history(after: made), count = history + supportingSteps.count
    let found = shape.count == 3 ? shape[0] - 1 : 0
    // What else may be wrong with the latents is for the network to say.
    guard (shape.count == 3) == (count > 0), found == count else {
      throw .invalidRequest(
        field: "latents",
        reason: "are \(shape), with \(found) tensors of earlier steps; after \(made) steps there must be \(count), "
          + "of the sampler \(sampling.sampler.rawValue) \(history)")
    }
    guard count > 0 else { return (SamplerState(latents: latents), []) }
    let rows = shape[1], all = latents.reshaped([shape[0] * rows, shape[2]])
    let planes = (0...count).map { all.rows($0 * rows..<($0 + 1) * rows) }
    return (SamplerState(latents: planes[0], history: Array(planes[1..<1 + history])), Array(planes[(1 + history)...]))
  }
}
