import ClusterCore
import Diffusion
import Metrics
import StageRuntime
import StageSupport
import Synchronization
import TensorCore
import Wire

/// Makes the two predictions of guided steps together with another worker, while there is one. The bytes are those that
/// this worker makes alone, which it does whenever the other one does not answer in time.
final class AssistedPrediction<Prepared: Sendable>: Sendable {
  typealias Call = VelocityCall<Prepared>

  private struct State {
    var isThere = false
    /// Predictions that the assistant was asked for.
    var calls = 0
    /// Of them, in a row without an answer in time.
    var missed = 0
  }

  private let state = Mutex(State())
  private let context: TaskContext
  private let alone: @Sendable ([Call]) -> [Tensor]

  /// With so many missed in a row, the assistant is too slow to be of use.
  private static var missedMax: Int { 2 }

  /// Predictions of a task, which `alone` makes without another worker.
  init(_ context: TaskContext, alone: @escaping @Sendable ([Call]) -> [Tensor]) {
    self.context = context
    self.alone = alone
  }

  /// The velocities of one step's branches.
  @Sendable func velocities(_ calls: [Call]) -> [Tensor] {
    // With a cache one branch decides for both, and each keeps what it has computed.
    guard calls.count == 2, calls[1].cache == nil, let call = ask(calls[1]) else { return alone(calls) }
    let start = ContinuousClock.now
    let own = alone([calls[0]])
    // An assistant that is as fast has finished by now; made here, the prediction takes as long again.
    let limit = (ContinuousClock.now - start) / 2 + .milliseconds(250)
    let other = answer(to: call, like: calls[1].latents, within: limit)
    state.withLock { $0.missed = other == nil ? $0.missed + 1 : 0 }
    Counter(
      label: "qwenimage_denoiser_assisted_predictions_total",
      dimensions: [("outcome", other == nil ? "missed" : "made")]
    ).increment()
    return own + (other.map { [$0] } ?? alone([calls[1]]))
  }

  /// Asks for a prediction; nil: there is no worker to ask.
  private func ask(_ call: Call) -> Int? {
    let number: Int? = state.withLock { state in
      if context.takeExchange(.lost) != nil { state.isThere = false }
      if context.takeExchange(.ready) != nil { (state.isThere, state.missed) = (true, 0) }
      guard state.isThere, state.missed < Self.missedMax else { return nil }
      state.calls += 1
      return state.calls
    }
    guard let number else { return nil }
    context.exchange(
      Exchange(.state, call: number, step: call.step), tensors: [WireTensor(TensorName.latents, call.latents)])
    return number
  }

  private func answer(to call: Int, like latents: Tensor, within limit: Duration) -> Tensor? {
    let end = ContinuousClock.now + limit
    while let (message, tensors) = context.takeExchange(.velocity, within: max(.zero, end - .now)) {
      guard message.call == call else { continue }
      let velocity = tensors.first { $0.name == TensorName.velocity }?.tensor()
      return velocity.flatMap { $0.dtype == .fp32 && $0.shape == latents.shape ? $0 : nil }
    }
    return nil
  }
}

/// The other side: predictions of one branch for a worker that makes the steps, until that needs them no more.
struct BranchServer {
  private let context: TaskContext

  /// A worker that asks for nothing for this long is gone.
  private static let silenceMax = Duration.seconds(600)

  init(_ context: TaskContext) {
    self.context = context
  }

  /// Answers what is asked.
  ///
  /// - Parameters:
  ///   - steps: of the image.
  ///   - latents: what latents are like.
  ///   - prepare: gives the prediction.
  /// - Throws: CANCELLED when it is over, which is how it ends; what `prepare` throws; INVALID_ARGUMENT for latents
  ///   that are not like the image's.
  func serve(steps: Int, like latents: Tensor, _ prepare: () throws -> (Tensor, Int) -> Tensor) throws -> Never {
    let predict = try prepare()
    context.exchange(Exchange(.ready))
    var heardAt = ContinuousClock.now
    while true {
      try context.checkCancelled()
      guard let (message, tensors) = context.takeExchange(.state, within: .seconds(1)) else {
        guard ContinuousClock.now - heardAt < Self.silenceMax else {
          throw Status(.unavailable, "the denoiser that is assisted has not asked for \(Self.silenceMax)")
        }
        continue
      }
      heardAt = .now
      guard let state = tensors.first(where: { $0.name == TensorName.latents })?.tensor(), state.dtype == .fp32,
        state.shape == latents.shape, message.step < steps
      else {
        throw Status(
          .invalidArgument, "step \(message.step) of \(steps), or its latents are not F32 \(latents.shape)",
          field: TensorName.latents)
      }
      let velocity = predict(state, message.step)
      context.exchange(
        Exchange(.velocity, call: message.call), tensors: [WireTensor(TensorName.velocity, velocity)])
    }
  }
}
