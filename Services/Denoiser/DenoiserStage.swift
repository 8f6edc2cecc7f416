import ClusterCore
import Kernels
import QwenImage
import StageRuntime
import StageSupport
import TensorCore
import Wire

/// Prompt embeddings → latents, with the latents of finished steps as checkpoints on the way.
struct DenoiserStage: Stage {
  let name = StageName.denoiser
  let card: ModelCard
  let componentFingerprint: String
  let numericsClass: String
  private let denoiser: QwenImage.Denoiser
  /// Velocities of the jobs that run at the same time, if there are credits for several.
  private let passes: Batcher<[MMDiT.Branch], [Tensor]>

  init(_ loading: StageLoading) throws {
    card = ModelCard(loading.model, loading.profile)
    componentFingerprint = try loading.model.componentFingerprint(.transformer)
    let denoiser = try QwenImage.Denoiser(model: loading.model, loading: loading.weights, pool: loading.pool)
    numericsClass = denoiser.numericsClass
    var limits = loading.batch
    limits.maxWeight = MMDiT.sharedTokensMax
    let passes = Batcher<[MMDiT.Branch], [Tensor]>(limits) { jobs in
      var velocities = denoiser.velocities(jobs.flatMap { $0 })[...]
      return jobs.map { job in
        defer { velocities.removeFirst(job.count) }
        return Array(velocities.prefix(job.count))
      }
    }
    self.passes = passes
    self.denoiser = denoiser.predicting { passes($0, weight: $0.reduce(0) { $0 + $1.tokenCount }) }
  }

  /// Steps of a few milliseconds are not each worth a message, which takes a tenth of one.
  private static let reportInterval = Duration.milliseconds(50)

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

  private func input(of task: StageTask, _ request: DenoiseRequest) throws -> QwenImage.Denoiser.Input {
    let grid = try TokenGrid(request.size)
    guard request.size.widthPx * request.size.heightPx <= card.limits.maxPixels else {
      throw Status(
        .invalidArgument, "size is \(request.size); the limit is \(card.limits.maxPixels) pixels", field: "size")
    }
    let latents: Tensor
    if request.firstStep > 0 {
      latents = try task.requiredTensor(TensorName.latents).tensor()
    } else {
      switch request.noise {
      case .torchCPU:
        latents = InitialNoise.torchCPU(seed: request.seed, grid: grid, latentChannels: card.latents.channels)
      }
    }
    return QwenImage.Denoiser.Input(
      promptEmbeds: try task.requiredTensor(TensorName.promptEmbeds).tensor(),
      negativePromptEmbeds: task.tensor(TensorName.negativePromptEmbeds)?.tensor(), latents: latents, grid: grid,
      steps: request.steps, firstStep: request.firstStep, trueCFGScale: request.trueCFGScale)
  }
}
