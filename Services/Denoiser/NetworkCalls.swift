import Diffusion
import TensorCore

/// What one job wants predicted for a step, and by which network.
struct NetworkCalls<Predictor: VelocityPredictor>: Sendable {
  let network: AdaptedNetworks<Predictor>.Network
  let calls: [VelocityCall<Predictor.Prepared>]

  /// The velocities of several jobs: those on networks with the same adapters share passes.
  static func velocities(_ jobs: [NetworkCalls]) -> [[Tensor]] {
    var velocities = jobs.map { _ in [Tensor]() }
    for index in jobs.indices where velocities[index].isEmpty {
      let network = jobs[index].network
      let sharing = jobs.indices.filter { jobs[$0].network.key == network.key }
      var results = network.predictor.velocities(sharing.flatMap { jobs[$0].calls })[...]
      for job in sharing {
        velocities[job] = Array(results.prefix(jobs[job].calls.count))
        results = results.dropFirst(jobs[job].calls.count)
      }
    }
    return velocities
  }
}
