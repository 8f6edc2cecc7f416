import ClusterCore
import Diffusion
import Kernels
import TensorCore

extension MMDiT: VelocityPredictor {
  /// Names everything that results depend on besides weights and inputs.
  public var numericsClass: String { QwenImageFamily.layers.numericsClass(compute) }

  /// The blocks of the trunk.
  public var blockCount: Int { trunk.blockCount }

  /// The first network tells which: one that reads masks was trained for inpainting.
  public var controlPipelines: [PipelineName] {
    guard let first = controlNetworks.first?.configuration else { return [] }
    return [first.extraConditionChannels > 0 ? .controlNetInpaint : .controlNet]
  }

  /// Most tokens of a pass that branches share: few tokens wait for weights; more keep the processor busy by themselves
  /// (Tests/Benchmarks/PERFORMANCE-LOG.md).
  public static let sharedTokensMax = 512

  /// What every step has in common: the prompt, the condition images, the control images, and the modulation vectors of
  /// the schedule.
  public struct Prepared: Sendable {
    let conditioning: Conditioning
    let modulation: ModulationTable
    /// One for all branches of an image; nil: there are no control images.
    let control: ControlledImage?
  }

  /// Projects prompts, condition images and control images, and computes the modulation vectors of the whole schedule.
  public func prepare(_ image: DenoisingInput, times: [Float]) throws(PipelineError) -> [Prepared] {
    try validate(image)
    let modulation = modulation(times: times), references = references(image.references)
    let control = image.controls.isEmpty ? nil : controlledImage(image, times: times)
    return image.prompts.map { prompt in
      Prepared(
        conditioning: condition(
          promptEmbeds: prompt.embeds, grid: image.grid, layers: image.layers, references: references),
        modulation: modulation, control: control)
    }
  }

  /// The network that reads a control image. A network that is alone was trained for several kinds of images and reads
  /// them all (diffusers `QwenImageMultiControlNetModel`); of several each reads its own.
  private func network(of control: ControlInput) -> Int { controlNetworks.count == 1 ? 0 : control.network }

  private func controlledImage(_ image: DenoisingInput, times: [Float]) -> ControlledImage {
    let promptEmbeds = image.prompts[0].embeds
    // A network that reads several control images sees the same prompt and times with each.
    let used = Set(image.controls.map(network))
    let shared = Dictionary(
      uniqueKeysWithValues: used.map { index in
        let trunk = controlNetworks[index].trunk
        return (
          index,
          (
            text: trunk.textTokens(promptEmbeds),
            rotary: trunk.rotary(images: [image.grid], textCount: promptEmbeds.shape[0]),
            modulation: trunk.modulation(times: times, isMemoryShort: streaming != nil)
          )
        )
      })
    return ControlledImage(
      image.controls.compactMap { control in
        let network = network(of: control)
        guard let shared = shared[network] else { return nil }
        return ControlledImage.Part(
          network: network, tokens: controlNetworks[network].conditionTokens(control.latents),
          text: shared.text, rotary: shared.rotary, modulation: shared.modulation,
          scales: Tensor(
            Array(repeating: control.scale, count: configuration.innerDim), shape: [configuration.innerDim]),
          range: control.range)
      })
  }

  /// Tokens of images and text.
  public func tokenCount(_ call: VelocityCall<Prepared>) -> Int { Branch(call, control: nil).tokenCount }

  /// Predicts one velocity [N, patch² × outChannels], fp32.
  public func velocity(_ call: VelocityCall<Prepared>, probe: Probe) -> Tensor {
    let control = controlResiduals([call])[0]
    for samples in control?.samples ?? [] {
      for (index, sample) in samples.enumerated() { probe.record("controlnet.sample.\(index)", sample) }
    }
    return self(Branch(call, control: control), probe: probe)
  }

  /// Predicts several velocities: every weight is read once for all that share a pass, and the residuals of control
  /// networks are computed once for all branches of an image's guidance.
  public func velocities(_ calls: [VelocityCall<Prepared>]) -> [Tensor] {
    let branches = zip(calls, controlResiduals(calls)).map { Branch($0, control: $1) }
    return Self.passes(branches, tokens: \.tokenCount).flatMap { self($0) }
  }

  /// The residuals for each call; nil for those without control images.
  private func controlResiduals(_ calls: [VelocityCall<Prepared>]) -> [ControlResiduals?] {
    /// A step of an image: what its branches of guidance have in common.
    struct ImageStep {
      let control: ControlledImage
      let latents: Tensor
      let step: Int
    }
    guard calls.contains(where: { $0.branch.control != nil }) else { return Array(repeating: nil, count: calls.count) }
    var steps: [ImageStep] = []
    let stepOfCall = calls.map { call -> Int? in
      guard let control = call.branch.control else { return nil }
      let known = steps.firstIndex {
        $0.control === control && $0.step == call.step && $0.latents.hasSameFloats(as: call.latents)
      }
      if known == nil { steps.append(ImageStep(control: control, latents: call.latents, step: call.step)) }
      return known ?? steps.count - 1
    }
    var samples = steps.map { Array(repeating: [Tensor](), count: $0.control.parts.count) }
    for (number, network) in controlNetworks.enumerated() {
      let runs = steps.indices.flatMap { step in
        let parts = steps[step].control.parts
        return parts.indices.filter { parts[$0].network == number && parts[$0].acts(at: steps[step].step) }
          .map { (step: step, part: $0) }
      }
      let branches = runs.map {
        ControlNetwork.Branch(
          latents: steps[$0.step].latents, image: steps[$0.step].control.parts[$0.part], step: steps[$0.step].step)
      }
      let found = Self.passes(branches, tokens: \.tokenCount).flatMap { network($0) }
      for (run, found) in zip(runs, found) { samples[run.step][run.part] = found }
    }
    return stepOfCall.map { step in
      step.map { ControlResiduals(samples: samples[$0].filter { !$0.isEmpty }) }
    }
  }
}

extension MMDiT.Branch {
  fileprivate init(_ call: VelocityCall<MMDiT.Prepared>, control: ControlResiduals?) {
    self.init(
      latents: call.latents, conditioning: call.branch.conditioning, modulation: call.branch.modulation, step: call.step
    )
    self.control = control
    cache = call.cache
  }
}

// MARK: - Validation

extension MMDiT {
  /// Most control images of an image.
  static let controlsMax = 8
  /// Most condition images of an image.
  static let referencesMax = 16
  /// Most layers of an image, the composite included.
  static let layersMax = 64

  fileprivate func validate(_ image: DenoisingInput) throws(PipelineError) {
    for (field, prompt) in zip(["prompt_embeds", "negative_prompt_embeds"], image.prompts) {
      let embeds = prompt.embeds, width = configuration.jointAttentionDim
      guard embeds.shape.rank == 2, embeds.shape[0] > 0, embeds.shape[1] == width, embeds.dtype == .fp32 else {
        throw .invalidRequest(
          field: field, reason: "is \(embeds.dtype.rawValue) \(embeds.shape); expected F32 [tokens, \(width)]")
      }
    }
    let layersMax = configuration.useLayer3DRope ? Self.layersMax : 1
    guard (1...layersMax).contains(image.layers) else {
      throw .invalidRequest(field: "layers", reason: "is \(image.layers); this model makes 1 to \(layersMax)")
    }
    try image.latents.require([image.layers * image.grid.tokenCount, configuration.inChannels], field: "latents")
    guard image.references.count <= Self.referencesMax else {
      throw .invalidRequest(
        field: "references", reason: "are \(image.references.count); at most \(Self.referencesMax) are possible")
    }
    for (index, reference) in image.references.enumerated() {
      guard reference.grid.height > 0, reference.grid.width > 0 else {
        throw .invalidRequest(
          field: "references[\(index)]", reason: "has a grid of \(reference.grid.height)×\(reference.grid.width) tokens"
        )
      }
      try reference.latents.require(
        [reference.grid.tokenCount, configuration.inChannels], field: "references[\(index)]")
    }
    try validateControls(image)
  }

  private func validateControls(_ image: DenoisingInput) throws(PipelineError) {
    guard !image.controls.isEmpty else { return }
    // The control networks that exist were trained for one image without references.
    guard image.references.isEmpty, image.layers == 1 else {
      throw .invalidRequest(field: "controls", reason: "cannot be combined with references or layers")
    }
    guard image.controls.count <= Self.controlsMax else {
      throw .invalidRequest(
        field: "controls", reason: "are \(image.controls.count); at most \(Self.controlsMax) are possible")
    }
    for (index, control) in image.controls.enumerated() {
      let field = "controls[\(index)]"
      guard controlNetworks.indices.contains(network(of: control)) else {
        throw .invalidRequest(
          field: "control_image",
          reason: "number \(index + 1) is for control network \(control.network + 1), but \(controlNetworks.count) are "
            + "loaded: of several networks each reads one image, one alone reads all")
      }
      guard control.scale.isFinite else {
        throw .invalidRequest(field: field, reason: "has the scale \(control.scale); it must be finite")
      }
      guard control.range.lowerBound >= 0, control.range.upperBound <= 1 else {
        throw .invalidRequest(
          field: field,
          reason: "acts from \(control.range.lowerBound) to \(control.range.upperBound); the limits are 0, 1")
      }
      let channels = controlNetworks[network(of: control)].configuration.conditionChannels
      try control.latents.require([image.grid.tokenCount, channels], field: field)
    }
  }
}

extension Tensor {
  /// Whether another fp32 tensor has the same shape and bytes.
  fileprivate func hasSameFloats(as other: Tensor) -> Bool {
    guard shape == other.shape else { return false }
    return withElements(as: UInt32.self) { own in
      other.withElements(as: UInt32.self) { others in own.indices.allSatisfy { own[$0] == others[$0] } }
    }
  }
}
