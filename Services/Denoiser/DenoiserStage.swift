import ClusterCore
import Diffusion
import Kernels
import StageRuntime
import StageSupport
import TensorCore
import Wire

/// Prompt embeddings → latents, with the latents of finished steps as checkpoints on the way.
struct DenoiserStage<Predictor: VelocityPredictor>: Stage {
  let name = StageName.denoiser
  let card: ModelCard
  let componentFingerprint: String
  let numericsClass: String
  private let denoiser: Diffusion.Denoiser<Predictor>
  /// Velocities of the jobs that run at the same time, if there are credits for several.
  private let passes: Batcher<[VelocityCall<Predictor.Prepared>], [Tensor]>

  init(_ predictor: Predictor, _ loading: StageLoading) throws {
    card = loading.card
    componentFingerprint = try loading.model.componentFingerprint(.transformer)
    numericsClass = predictor.numericsClass
    var limits = loading.batch
    limits.maxWeight = Predictor.sharedTokensMax
    let passes = Batcher<[VelocityCall<Predictor.Prepared>], [Tensor]>(limits) { jobs in
      var velocities = predictor.velocities(jobs.flatMap { $0 })[...]
      return jobs.map { job in
        defer { velocities.removeFirst(job.count) }
        return Array(velocities.prefix(job.count))
      }
    }
    self.passes = passes
    let denoiser = Diffusion.Denoiser(
      predictor, scheduler: loading.model.scheduler, guidance: loading.model.family.guidance)
    self.denoiser = denoiser.predicting { calls in
      passes(calls, weight: calls.reduce(0) { $0 + predictor.tokenCount($1) })
    }
  }

  /// Steps of a few milliseconds are not each worth a message, which takes a tenth of one.
  private static var reportInterval: Duration { .milliseconds(50) }

  func run(_ task: StageTask, context: TaskContext) throws -> StageOutput {
    guard case .denoiseRequest(let request) = task.request else {
      throw Status(.unimplemented, "a denoiser does not answer \(task.request.name)")
    }
    guard (1...card.limits.maxSteps).contains(request.steps) else {
      throw Status(
        .invalidArgument, "steps is \(request.steps); it must be between 1 and \(card.limits.maxSteps)", field: "steps")
    }
    let input = try input(of: task, request)
    let start = ContinuousClock.now
    var reports = Pace(every: Self.reportInterval, from: start)
    var checkpoints = Pace(every: .seconds(request.checkpointIntervalSeconds), from: start)
    var reported = (steps: request.firstStep, at: start)
    let latents = try reportingStatus {
      try passes.participating {
        try denoiser(input) { completed, latents in
          let now = ContinuousClock.now, isLast = completed == request.steps
          // The last step's latents are the response.
          let isCheckpoint = !isLast && checkpoints.isDue(at: now)
          if isLast || isCheckpoint || reports.isDue(at: now) {
            let stepSeconds = (now - reported.at) / .seconds(1) / Double(completed - reported.steps)
            let progress = Progress(completedSteps: completed, steps: request.steps, stepSeconds: stepSeconds)
            context.progress(
              .progress(progress), tensors: isCheckpoint ? [WireTensor(TensorName.latents, latents)] : [])
            reported = (completed, now)
          }
          try context.checkCancelled()
        }
      }
    }
    let response = DenoiseResponse(steps: request.steps, computeSeconds: (ContinuousClock.now - start) / .seconds(1))
    return StageOutput(.denoiseResponse(response), tensors: [WireTensor(TensorName.latents, latents)])
  }

  private func input(of task: StageTask, _ request: DenoiseRequest) throws -> DenoisingInput {
    let grid = try card.grid(of: request.size)
    let latents: Tensor
    if request.firstStep > 0 {
      latents = try task.requiredTensor(TensorName.latents).tensor()
    } else {
      switch request.noise {
      case .torchCPU: latents = InitialNoise.torchCPU(seed: request.seed, grid: grid, card.latents)
      }
    }
    return DenoisingInput(
      prompt: PromptConditioning(embeds: try task.requiredTensor(TensorName.promptEmbeds).tensor()),
      negativePrompt: task.tensor(TensorName.negativePromptEmbeds).map { PromptConditioning(embeds: $0.tensor()) },
      latents: latents, grid: grid, steps: request.steps, firstStep: request.firstStep,
      trueCFGScale: request.trueCFGScale)
  }
}
