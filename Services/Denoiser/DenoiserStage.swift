import ClusterCore
import Diffusion
import ImageCodec
import Kernels
import Metrics
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
  let assists = true
  private let networks: AdaptedNetworks<Predictor>
  /// Velocities of the jobs that run at the same time, if there are credits for several.
  private let passes: Batcher<NetworkCalls<Predictor>, [Tensor]>

  init(_ predictor: Predictor, _ loading: StageLoading) throws {
    var card = loading.card
    card.pipelines.removeAll { $0.isForControl && !predictor.controlPipelines.contains($0) }
    card.limits.maxReferenceTokens = predictor.referenceTokensMax
    card.limits.denoiserBlocks = predictor.blockCount
    self.card = card
    componentFingerprint = try loading.model.componentFingerprint(
      .transformer, beside: loading.predictor.controlNetworks)
    numericsClass = predictor.numericsClass
    var limits = loading.batch
    limits.maxWeight = Predictor.sharedTokensMax
    passes = Batcher(limits) { NetworkCalls.velocities($0) }
    denoiser = Diffusion.Denoiser(
      predictor, scheduler: loading.model.scheduler, guidance: loading.model.family.guidance)
    let library = try loading.adapterDirectory.map {
      try AdapterLibrary($0, check: predictor.adapterCheck, note: loading.note)
    }
    networks = AdaptedNetworks(predictor, library: library, byteCountMax: loading.adapterBytesMax)
  }

  /// What requests may name.
  var servedAdapters: ServedAdapters { networks.served }

  /// The loop around a network; jobs on the same network share its passes.
  private func loop(around network: AdaptedNetworks<Predictor>.Network) -> Diffusion.Denoiser<Predictor> {
    let predictor = network.predictor
    return denoiser.around(predictor).predicting { [passes] calls in
      passes(
        NetworkCalls(network: network, calls: calls), weight: calls.reduce(0) { $0 + predictor.tokenCount($1) })
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
    let loop = loop(around: try networks.network(with: request.adapters))
    let input = try input(of: task, request), steps = request.steps - request.startStep
    guard request.branch == 0 else {
      try BranchServer(context).serve(steps: request.steps, like: input.latents) {
        let predict = try reportingStatus { try loop.branch(request.branch, of: input) }
        // It takes part in shared passes only while it is asked for something.
        return { latents, step in passes.participating { predict(latents, step) } }
      }
    }
    let denoiser = loop.predicting(by: AssistedPrediction(context, alone: loop.predict).velocities)
    let previewMap = try previewMap(of: task)
    let start = ContinuousClock.now
    var reports = Pace(every: Self.reportInterval, from: start)
    var checkpoints = Pace(every: .seconds(request.checkpointIntervalSeconds), from: start)
    var reported = (steps: request.firstStep, at: start), kept = request.firstStep
    var cacheBytes = 0
    let counters = ["whole", "part"].map {
      Counter(label: "qwenimage_denoiser_steps_total", dimensions: [("network", $0)])
    }
    let latents = try reportingStatus {
      try passes.participating {
        try denoiser(input) { step in
          counters[step.isComputed ? 0 : 1].increment()
          cacheBytes = max(cacheBytes, step.cacheBytes)
          let now = ContinuousClock.now, completed = step.completedSteps - request.startStep
          let isLast = completed == steps
          // With a step cache, what can be resumed may be the state of an earlier step.
          let resumable = step.checkpoint.completedSteps - request.startStep
          // The last step's latents are the response.
          let isCheckpoint = !isLast && resumable > kept && checkpoints.isDue(at: now)
          if isLast || isCheckpoint || reports.isDue(at: now) {
            let stepSeconds = (now - reported.at) / .seconds(1) / Double(completed - reported.steps)
            var progress = Progress(completedSteps: completed, steps: steps, stepSeconds: stepSeconds)
            var tensors: [WireTensor] = []
            if isCheckpoint {
              tensors = [WireTensor(TensorName.latents, step.checkpoint.state)]
              (kept, progress.checkpointSteps) = (resumable, resumable == completed ? 0 : resumable)
            }
            if let previewMap {
              let patch = card.latents.patch
              tensors.append(WireTensor(previewMap.image(of: step.expectedLatents, input.grid, patch: patch)))
            }
            context.progress(.progress(progress), tensors: tensors)
            reported = (completed, now)
          }
          try context.checkCancelled()
        }
      }
    }
    Gauge(label: "qwenimage_denoiser_prefix_cache_bytes").record(denoiser.predictor.keptBytes)
    Gauge(label: "qwenimage_denoiser_adapter_bytes").record(networks.byteCount)
    Gauge(label: "qwenimage_denoiser_step_cache_bytes").record(cacheBytes)
    let response = DenoiseResponse(steps: steps, computeSeconds: (ContinuousClock.now - start) / .seconds(1))
    return StageOutput(.denoiseResponse(response), tensors: [WireTensor(TensorName.latents, latents)])
  }

  private func previewMap(of task: StageTask) throws(Status) -> PreviewMap? {
    guard let tensor = task.tensor(TensorName.previewMap) else { return nil }
    guard let map = PreviewMap(weights: tensor.tensor()), map.channels == card.latents.channels else {
      throw Status(
        .invalidArgument,
        "\(TensorName.previewMap) is \(tensor.dtype) \(tensor.shape), or not of finite numbers; expected F32 "
          + "[\(card.latents.channels + 1), side, side, 3]",
        field: TensorName.previewMap)
    }
    return map
  }

  private func input(of task: StageTask, _ request: DenoiseRequest) throws -> DenoisingInput {
    let grid = try card.grid(of: request.size)
    var input = DenoisingInput(
      prompt: PromptConditioning(marked: try task.requiredTensor(TensorName.promptEmbeds).tensor()),
      negativePrompt: task.tensor(TensorName.negativePromptEmbeds).map { PromptConditioning(marked: $0.tensor()) },
      latents: noise(of: request, grid), grid: grid, steps: request.steps,
      firstStep: request.startStep + request.firstStep, trueCFGScale: request.trueCFGScale)
    input.layers = max(request.layers, 1)
    if !request.sigmas.isEmpty { input.sigmas = request.sigmas }
    (input.startStep, input.sampling, input.seed) = (request.startStep, request.sampling, request.seed)
    input.cache = request.cache
    for (index, size) in request.references.enumerated() {
      let latents = try task.requiredTensor(TensorName.reference(index)).tensor()
      input.references.append(ReferenceLatents(latents: latents, grid: try card.grid(of: size)))
    }
    for control in request.controls {
      input.controls.append(
        ControlInput(
          latents: try task.requiredTensor(control.tensor).tensor(), network: control.network,
          scale: Float(control.scale), range: control.range))
    }
    if let image = task.tensor(TensorName.imageLatents)?.tensor() {
      try begin(&input, with: image, request, task)
    } else if request.startStep > 0 || request.mask != nil {
      throw Status(
        .invalidArgument, "the tensor \(TensorName.imageLatents) is missing", field: TensorName.imageLatents)
    }
    if request.firstStep > 0 {
      input.resume(at: input.firstStep, from: try task.requiredTensor(TensorName.latents).tensor())
    }
    return input
  }

  private func noise(of request: DenoiseRequest, _ grid: TokenGrid) -> Tensor {
    switch request.noise {
    case .torchCPU, .torchCPUWithSigmas, .torchCPUWithOptions:
      return InitialNoise.torchCPU(
        seed: request.seed, grid: grid, card.latents, layers: max(request.layers, 1),
        after: Array(repeating: grid, count: request.precedingDraws))
    }
  }

  /// The latents begin with those of an image, which is kept where a mask is black.
  private func begin(
    _ input: inout DenoisingInput, with image: Tensor, _ request: DenoiseRequest, _ task: StageTask
  ) throws {
    guard image.shape == input.latents.shape, image.dtype == .fp32 else {
      throw Status(
        .invalidArgument,
        "\(TensorName.imageLatents) is \(image.dtype) \(image.shape); expected F32 \(input.latents.shape)",
        field: TensorName.imageLatents)
    }
    if let mask = request.mask {
      guard mask.preparation.size == request.size else {
        throw Status(.invalidArgument, "mask is \(mask.preparation.size), the image \(request.size)", field: "mask")
      }
      input.inpainting = Inpainting(
        image: image, noise: input.latents, mask: ImageEncoder.packedMask(try task.image(mask).luma, card.latents))
    }
    input.latents = try reportingStatus { try denoiser.schedule(input) }.noised(
      image, with: input.latents, before: request.startStep)
  }
}

extension WireTensor {
  /// A preview.
  fileprivate init(_ preview: RasterImage) {
    self.init(TensorName.preview, bytes: preview.pixels)
    shape = [preview.height, preview.width, preview.channels]
  }
}
