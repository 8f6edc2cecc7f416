import ClusterCore
import TensorCore

/// The steps of a job with a step cache, or without one: which of them run the network, what the others use instead,
/// and from where a later attempt can resume.
struct CachedSteps {
  /// Of block methods, for the network; nil: every call runs all of it.
  let blocks: BlockCache?
  private let settings: StepCache?
  /// The job's steps, of the whole schedule's.
  private let steps: Range<Int>
  private let sigmas: [Float]
  /// The last step that ran the whole network, and the state before it; nil where no checkpoint needs that.
  private var lastComputed: (step: Int, state: SamplerState?)?
  /// Planned methods: velocities of the last steps that ran the network, at most as many as an extrapolation needs.
  private var history: [(step: Int, velocity: Tensor)] = []

  /// - Parameter velocities: of the last steps that ran the network, oldest first, as ``DenoisingInput/resumed()``
  ///   has them.
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` when the settings do not fit steps, sampler and network.
  init(
    _ input: DenoisingInput, _ schedule: FlowMatchSchedule, blockCount: Int, _ velocities: [Tensor]
  ) throws(PipelineError) {
    let start = input.startStep
    steps = start..<input.steps
    sigmas = schedule.sigmas
    settings = input.cache
    blocks = input.cache.flatMap { $0.method.isPlanned ? nil : BlockCache($0) }
    do {
      try input.cache?.validate(steps: steps.count, blocks: blockCount)
    } catch {
      throw .invalidRequest(field: error.path, reason: error.reason)
    }
    guard settings == nil || input.sampling.sampler.evaluatesOnce else {
      throw .invalidRequest(
        field: "cache", reason: "\(input.sampling.sampler.rawValue) evaluates the network twice a step")
    }
    history = zip(input.supportingSteps, velocities).map { ($0, $1) }
    lastComputed = history.last.map { ($0.step, nil) }
  }

  private func mustCompute(_ step: Int) -> Bool {
    settings?.mustCompute(
      step - steps.lowerBound, of: steps.count, after: lastComputed.map { $0.step - steps.lowerBound }) ?? true
  }

  /// The velocity at a step: of the network, which `predict` runs, or extrapolated.
  mutating func velocity(at step: Int, from state: SamplerState, predict: () -> Tensor) -> Tensor {
    guard let settings else { return predict() }
    if let blocks {
      blocks.begin(mustCompute: mustCompute(step))
      defer { if blocks.hasComputed { lastComputed = (step, state) } }
      return predict()
    }
    guard mustCompute(step) else { return extrapolated(to: step) }
    let velocity = predict()
    lastComputed = (step, nil)
    history = Array((history + [(step, velocity)]).suffix(settings.order + 1))
    return velocity
  }

  /// Bytes that are kept for the next steps.
  var byteCount: Int { (blocks?.byteCount ?? 0) + history.reduce(0) { $0 + $1.velocity.byteCount } }

  /// Whether a step has run the whole network.
  func hasComputed(_ step: Int) -> Bool { settings == nil || lastComputed?.step == step }

  /// From where a later attempt can resume once `completed` steps of the schedule are done.
  ///
  /// Of a block method that is the state before the last step that ran the whole network: it is run again, and leaves
  /// what later steps use. Where the next step runs the network in any case it is the present state. Planned methods
  /// keep their velocities in the state.
  func checkpoint(after completed: Int, _ state: SamplerState) -> LoopCheckpoint {
    guard blocks != nil, let lastComputed, let before = lastComputed.state, !mustCompute(completed) else {
      return LoopCheckpoint(completedSteps: completed, state, velocities: history.map(\.velocity))
    }
    return LoopCheckpoint(completedSteps: lastComputed.step, before, velocities: [])
  }

  /// The polynomial through the last velocities over the noise level, at that of `step`: Lagrange's form, in double.
  private func extrapolated(to step: Int) -> Tensor {
    // Steps at one noise level, which a schedule may have, are one point: the later one.
    let points = history.indices.filter { index in
      history[(index + 1)...].allSatisfy { sigmas[$0.step] != sigmas[history[index].step] }
    }.map { (sigma: Double(sigmas[history[$0].step]), velocity: history[$0].velocity) }
    let sigma = Double(sigmas[step])
    let weights = points.indices.map { own in
      points.indices.reduce(1.0) { product, other in
        own == other ? product : product * (sigma - points[other].sigma) / (points[own].sigma - points[other].sigma)
      }
    }
    guard points.count > 1 else { return points[0].velocity }
    var sum = [Double](repeating: 0, count: points[0].velocity.elementCount)
    for (weight, point) in zip(weights, points) {
      point.velocity.withElements(as: Float.self) { velocity in
        for index in sum.indices { sum[index] += weight * Double(velocity[index]) }
      }
    }
    return Tensor(sum.map { Float($0) }, shape: points[0].velocity.shape)
  }
}
