import ClusterCore
import Scheduling
import Wire

/// The tasks that several pipelines are made of.
extension PipelineTask {
  /// Prompt → embeddings [tokens, width]. Equal prompts of one model are encoded once.
  ///
  /// - Parameter field: the request field that holds the prompt: failures that blame the prompt name it.
  static func encode(_ prompt: String, field: String, _ spec: ImageSpec) -> PipelineTask {
    let rule = TensorRule(TensorName.promptEmbeds) { tensor in
      tensor.shape.count == 2 && tensor.shape[0] > 0 ? nil : "has the shape \(tensor.shape), not [tokens, width]"
    } problemOfBody: { body in
      if case .encodeResponse = body { nil } else { "encode_response was expected" }
    }
    let plan = TaskPlan(stage: .textEncoder, content: prompt, field: field)
    var task = PipelineTask(plan: plan, output: rule) { _ in
      TaskMessage(.encodeRequest(EncodeRequest(modelID: spec.card.model.id, prompt: prompt)))
    }
    task.promptTokens = { $0.shape[0] }
    return task
  }

  /// Embeddings and noise → packed latents, step by step; each step can be a checkpoint.
  ///
  /// - Parameter prompts: places of the tasks that encode the prompt and, for true CFG, the negative prompt.
  static func denoise(_ spec: ImageSpec, prompts: [Int]) -> PipelineTask {
    let rule = TensorRule(TensorName.latents, problem: { problem(ofLatents: $0, spec) }) { body in
      switch body {
      case .denoiseResponse, .progress: nil
      default: "denoise_response was expected"
      }
    }
    let plan = TaskPlan(
      stage: .denoiser, inputs: prompts, stepCount: spec.steps,
      cost: Double(spec.steps) * Double(spec.tokenCount) * Double(prompts.count))
    return PipelineTask(plan: plan, output: rule, checkpoint: rule) { input in
      let request = DenoiseRequest(
        modelID: spec.card.model.id, size: spec.size, steps: spec.steps, trueCFGScale: spec.trueCFGScale,
        seed: spec.seed,
        firstStep: input.resume?.completedSteps ?? 0, checkpointIntervalSeconds: input.checkpointInterval / .seconds(1))
      var tensors = zip(input.inputs, [TensorName.promptEmbeds, TensorName.negativePromptEmbeds]).map { $0.renamed($1) }
      if let resume = input.resume { tensors.append(resume.state.renamed(TensorName.latents)) }
      return TaskMessage(.denoiseRequest(request), tensors)
    }
  }

  /// Packed latents → a PNG that carries the image's parameters.
  ///
  /// - Parameter latents: place of the task that gives the latents.
  static func decode(_ spec: ImageSpec, latents: Int) -> PipelineTask {
    let rule = TensorRule(TensorName.image) { tensor in
      tensor.dtype == .uint8 && tensor.bytes.count > 0
        ? nil : "is \(tensor.dtype.rawValue) \(tensor.shape), not the bytes of a file"
    } problemOfBody: { body in
      guard case .decodeResponse(let response) = body else { return "decode_response was expected" }
      return response.mediaType == "image/png" && response.size == spec.size
        ? nil : "it is \(response.mediaType) of \(response.size), not a PNG of \(spec.size)"
    }
    let plan = TaskPlan(stage: .vaeDecoder, inputs: [latents], cost: Double(spec.tokenCount))
    return PipelineTask(plan: plan, output: rule) { input in
      let request = DecodeRequest(modelID: spec.card.model.id, size: spec.size, textEntries: spec.textEntries)
      return TaskMessage(.decodeRequest(request), input.inputs.prefix(1).map { $0.renamed(TensorName.latents) })
    }
  }

  private static func problem(ofLatents tensor: WireTensor, _ spec: ImageSpec) -> String? {
    tensor.shape == spec.latentsShape ? nil : "has the shape \(tensor.shape), not \(spec.latentsShape)"
  }
}
