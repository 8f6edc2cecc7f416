import Scheduling
import Wire

/// Scheduler's names ↔ the wire's.
extension TaskReference {
  init(_ attempt: AttemptID) {
    self.init(jobID: attempt.task.job.text, taskID: "\(attempt.task.index)", attempt: attempt.number)
  }

  /// nil: not a name that a gateway gives.
  var attemptID: AttemptID? {
    guard let index = Int(taskID), "\(index)" == taskID, attempt > 0 else { return nil }
    return AttemptID(task: TaskID(job: JobID(jobID), index: index), number: attempt)
  }
}

extension Stage {
  init(_ kind: StageKind) {
    self =
      switch kind {
      case .textEncoder: .textEncoder
      case .denoiser: .denoiser
      case .vaeDecoder: .vaeDecoder
      }
  }
}

extension Failure {
  init(_ status: Status) {
    let code = Scheduling.StatusCode(rawValue: UInt32(status.code.rawValue)) ?? .unknown
    self.init(code, status.message, field: status.field.isEmpty ? nil : status.field)
  }
}

extension ImageJob {
  /// The message that hands a task of this job's plan to a stage.
  ///
  /// - Parameters:
  ///   - index: the task's place in the plan.
  ///   - inputs: the outputs of the tasks that it needs, in the plan's order.
  ///   - resume: steps already done, and the latents after them.
  ///   - checkpointInterval: how often latents come back.
  func request(
    index: Int, inputs: [WireTensor], resume: (steps: Int, latents: WireTensor)?, checkpointInterval: Duration
  ) -> (body: Body, tensors: [WireTensor]) {
    switch plan.tasks[index].stage {
    case .textEncoder:
      return (.encodeRequest(EncodeRequest(modelID: card.modelID, prompt: index == 0 ? prompt : negativePrompt ?? "")), [])
    case .denoiser:
      let request = DenoiseRequest(
        modelID: card.modelID, size: size, steps: steps, trueCFGScale: trueCFGScale, seed: seed, firstStep: resume?.steps ?? 0,
        checkpointIntervalSeconds: checkpointInterval / .seconds(1))
      var tensors = zip(inputs, [TensorName.promptEmbeds, TensorName.negativePromptEmbeds]).map { $0.renamed($1) }
      if let resume { tensors.append(resume.latents.renamed(TensorName.latents)) }
      return (.denoiseRequest(request), tensors)
    case .vaeDecoder:
      let request = DecodeRequest(modelID: card.modelID, size: size, textEntries: textEntries)
      return (.decodeRequest(request), inputs.prefix(1).map { $0.renamed(TensorName.latents) })
    }
  }

  /// The output that an answer brings, if it is what the task must give.
  func output(of envelope: Envelope, index: Int) throws(Failure) -> WireTensor {
    switch (envelope.body, plan.tasks.indices.contains(index) ? plan.tasks[index].stage : nil) {
    case (.encodeResponse(let response), .textEncoder):
      let tensor = try Self.tensor(TensorName.promptEmbeds, of: envelope)
      guard tensor.shape.count == 2, tensor.shape[0] == response.promptTokens, tensor.shape[0] > 0 else {
        throw Failure(.internal, "the text encoder's prompt_embeds have the shape \(tensor.shape) for \(response.promptTokens) tokens")
      }
      return tensor
    case (.denoiseResponse, .denoiser): return try latents(of: envelope)
    case (.decodeResponse(let response), .vaeDecoder):
      let tensor = try Self.tensor(TensorName.image, of: envelope)
      guard response.mediaType == "image/png", response.size == size, tensor.dtype == .u8, tensor.bytes.count > 0 else {
        throw Failure(
          .internal, "the VAE decoder answered with \(response.mediaType) of \(response.size) in \(tensor.dtype), not a PNG of \(size)")
      }
      return tensor
    default: throw Failure(.internal, "the worker answered with \(envelope.body.name), which does not belong to its task")
    }
  }

  /// Packed latents of this job's size.
  func latents(of envelope: Envelope) throws(Failure) -> WireTensor {
    let tensor = try Self.tensor(TensorName.latents, of: envelope)
    let shape = card.latents.packedShape(of: size)
    guard tensor.shape == shape else {
      throw Failure(.internal, "the denoiser's latents have the shape \(tensor.shape), not \(shape)")
    }
    return tensor
  }

  private static func tensor(_ name: String, of envelope: Envelope) throws(Failure) -> WireTensor {
    guard let tensor = envelope.tensor(name) else {
      throw Failure(.internal, "the worker's \(envelope.body.name) lacks the tensor \(name)")
    }
    return tensor
  }
}

extension WireTensor {
  fileprivate func renamed(_ name: String) -> WireTensor {
    var tensor = self
    tensor.name = name
    return tensor
  }
}
