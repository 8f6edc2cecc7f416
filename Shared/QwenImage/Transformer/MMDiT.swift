import ClusterCore
import Diffusion
import Kernels
import TensorCore
import Weights

/// The denoising network of Qwen-Image: a multimodal diffusion transformer that predicts the velocity of flow matching
/// (diffusers `QwenImageTransformer2DModel`).
///
/// The image stream has the tokens of the image that is made, or of several layers of it, and behind them those of the
/// images that it is made from. All take part in attention; the velocity is that of the former.
public struct MMDiT: Sendable {
  private(set) var trunk: TransformerTrunk
  private var out: Linear
  /// Bytes that the adapters beside the weights take.
  public private(set) var adapterBytes = 0
  /// For weights that do not all fit into memory; nil: they do.
  public let streaming: WeightStreaming?
  /// Networks whose residuals are added to the image stream, as `ControlInput.network` counts them.
  public let controlNetworks: [ControlNetwork]

  /// The checkpoint's configuration.
  public var configuration: TransformerConfiguration { trunk.configuration }
  /// The arithmetic the network runs on.
  public var compute: Compute { trunk.compute }

  /// Reads and prepares the weights of `transformer/`.
  ///
  /// - Parameters:
  ///   - residentMax: bytes of mapped weights that may stay in memory; nil: all.
  ///   - controlNetworks: of the same width.
  /// - Throws: `WeightsError` naming the file and tensor that is missing, misshapen or unexpected.
  public init(
    _ weights: ComponentWeights, configuration: TransformerConfiguration, compute: Compute, residentMax: Int? = nil,
    controlNetworks: [ControlNetwork] = []
  ) throws(WeightsError) {
    let reader = ModuleReader(weights, compute: compute, layers: QwenImageFamily.layers)
    trunk = try TransformerTrunk(reader, configuration, hasOutputNorm: true)
    out = try reader.linear(
      Self.outName, input: configuration.innerDim,
      output: configuration.patchSize * configuration.patchSize * configuration.outChannels)
    streaming = residentMax.flatMap { max in
      WeightStreaming(
        (0..<configuration.layerCount).map { reader.mapped(prefix: "transformer_blocks.\($0).") }, residentMax: max)
    }
    self.controlNetworks = controlNetworks
    try reader.finish(ignoring: Self.isUnused)
  }

  /// Whether a tensor only tells ComfyUI that the images that condition a step are at time 0, as the configuration
  /// says too (`zero_cond_t`).
  static func isUnused(_ name: String) -> Bool { name == "__index_timestep_zero__" }

  private static let outName = "proj_out"

  /// The network with adapters beside its weights; control networks stay as they are.
  public func adapted(by adapters: AdapterSet) throws(WeightsError) -> MMDiT {
    let updates = try LayerUpdates(adapters, for: adapterTargets, compute: compute)
    var network = self
    network.adapterBytes = updates.byteCount
    network.trunk = trunk.updated(by: updates)
    network.out = updates(Self.outName, out)
    return network
  }

  /// Checks whether an adapter is for this network.
  public var adapterCheck: AdapterCheck { adapterTargets.check }

  private var adapterTargets: AdapterTargets { AdapterTargets(ParameterInventory(transformer: configuration)) }

  // MARK: - What all steps have in common

  /// Images that condition every step, after `img_in`, which is the same in every step.
  public struct References: Sendable {
    let grids: [TokenGrid]
    /// Packed latents of all of them [R, inChannels], fp32.
    let latents: Tensor
    /// [R, inner], fp32.
    let tokens: Tensor
  }

  /// Prepares condition images, in the order of their numbers; nil: there are none.
  public func references(_ images: [ReferenceLatents]) -> References? {
    guard !images.isEmpty else { return nil }
    let latents = Tensor.stacking(images.map(\.latents))
    return References(grids: images.map(\.grid), latents: latents, tokens: trunk.imageTokens(latents))
  }

  /// What a prompt and the condition images contribute to every step: text tokens after `txt_in`, condition images
  /// after `img_in`, and the rotary tables of the joint sequence.
  public struct Conditioning: Sendable {
    /// [L, inner], fp32.
    let text: Tensor
    let rotary: RotaryTable
    /// [L, jointAttentionDim]: the embeddings this was made from.
    let promptEmbeds: Tensor
    /// Tokens of image number 0.
    let firstImageTokens: Int
    let references: References?

    /// Tokens of the condition images.
    var referenceTokens: Int { references?.tokens.shape[0] ?? 0 }
  }

  /// Prepares a prompt's embeddings [L, jointAttentionDim] for `layers` images of `grid` tokens, made from
  /// `references`.
  public func condition(
    promptEmbeds: Tensor, grid: TokenGrid, layers: Int = 1, references: References? = nil
  ) -> Conditioning {
    let images = Array(repeating: grid, count: layers) + (references?.grids ?? [])
    return Conditioning(
      text: trunk.textTokens(promptEmbeds), rotary: trunk.rotary(images: images, textCount: promptEmbeds.shape[0]),
      promptEmbeds: promptEmbeds, firstImageTokens: grid.tokenCount, references: references)
  }

  /// Computes the modulation vectors of all steps; `times` are the steps' sigmas.
  public func modulation(times: [Float]) -> ModulationTable {
    trunk.modulation(times: times, isMemoryShort: streaming != nil)
  }

  // MARK: - A step

  /// What a velocity is predicted from.
  public struct Branch: Sendable {
    /// Packed latents [N, inChannels], fp32.
    public var latents: Tensor
    /// The prompt and the condition images.
    public var conditioning: Conditioning
    /// The vectors of the schedule.
    public var modulation: ModulationTable
    /// Row of `modulation`.
    public var step: Int
    /// What control networks add to the image stream; nil: nothing.
    var control: ControlResiduals?
    /// What the branch keeps of earlier steps; nil: the whole network runs.
    var cache: BranchCache?

    /// See the properties.
    public init(latents: Tensor, conditioning: Conditioning, modulation: ModulationTable, step: Int) {
      self.latents = latents
      self.conditioning = conditioning
      self.modulation = modulation
      self.step = step
    }

    /// Tokens of the images.
    var imageTokens: Int { latents.shape[0] + conditioning.referenceTokens }

    /// Tokens of images and text.
    public var tokenCount: Int { imageTokens + conditioning.text.shape[0] }

    fileprivate var inTrunk: TransformerTrunk.Branch {
      TransformerTrunk.Branch(
        imageTokens: imageTokens, firstImageTokens: conditioning.firstImageTokens,
        textTokens: conditioning.text.shape[0], rotary: conditioning.rotary, modulation: modulation, step: step)
    }
  }

  /// Predicts the velocity at one step.
  ///
  /// - Returns: velocity [N, patch² × outChannels], fp32.
  public func callAsFunction(_ branch: Branch, probe: Probe = .none) -> Tensor {
    var streams = streams([branch])
    recordInputs(branch, x: streams.image, probe)
    runBlocks(&streams, [branch], updatesLastText: probe.isActive, probe: probe)
    guard probe.isActive else { return velocities(streams.image, [branch], probe: probe)[0] }
    // Recordings have the condition images' tokens too.
    let all = velocities(streams.image, [branch], includesReferences: true, probe: probe)[0]
    probe.record("out", all)
    return all.rows(0..<branch.latents.shape[0])
  }

  /// Predicts several velocities, of any steps and sizes, in one pass: every weight is read once for all of them.
  ///
  /// - Returns: per branch the same bytes as alone.
  public func callAsFunction(_ branches: [Branch]) -> [Tensor] {
    if branches.isEmpty { return [] }
    var streams = streams(branches)
    if branches.contains(where: { $0.cache != nil }) {
      runBlocksWithCaches(&streams, branches)
    } else {
      runBlocks(&streams, branches, updatesLastText: false)
    }
    return velocities(streams.image, branches, probe: .none)
  }

  /// The residual streams of a pass, the branches one after the other, fp32.
  @_spi(Benchmarks) public struct Streams {
    /// [ΣN, inner].
    public var image: Tensor
    /// [ΣL, inner].
    public var text: Tensor
  }

  /// The streams before the first block.
  @_spi(Benchmarks) public func streams(_ branches: [Branch]) -> Streams {
    var image = trunk.imageTokens(Tensor.stacking(branches.map(\.latents)))
    if branches.contains(where: { $0.conditioning.references != nil }) {
      let rows = consecutiveRows(branches.map { $0.latents.shape[0] })
      image = Tensor.stacking(
        zip(branches, rows).flatMap { branch, rows in
          [image.rows(rows)] + (branch.conditioning.references.map { [$0.tokens] } ?? [])
        })
    }
    return Streams(image: image, text: Tensor.stacking(branches.map(\.conditioning.text)))
  }

  /// Runs all blocks, or those of `range`; the text behind the last one is needed by recordings and
  /// benchmarks.
  @_spi(Benchmarks) public func runBlocks(
    _ streams: inout Streams, _ branches: [Branch], range: Range<Int>? = nil, updatesLastText: Bool,
    probe: Probe = .none
  ) {
    let rows = consecutiveRows(branches.map(\.imageTokens))
    trunk.run(
      &streams, branches.map(\.inTrunk), range: range ?? 0..<trunk.blockCount, updatesLastText: updatesLastText,
      probe: probe
    ) { index, image in
      for (branch, rows) in zip(branches, rows) {
        branch.control?.add(after: index, of: trunk.blockCount, to: &image, rows: rows, compute)
      }
      streaming?.ended(index)
    }
  }

  private func velocities(
    _ x: Tensor, _ branches: [Branch], includesReferences: Bool = false, probe: Probe
  ) -> [Tensor] {
    let counts = branches.map { includesReferences ? $0.imageTokens : $0.latents.shape[0] }
    let sources = consecutiveRows(branches.map(\.imageTokens)), rows = consecutiveRows(counts)
    var normed = MutableTensor(
      uninitialized: [counts.reduce(0, +), configuration.innerDim], compute.activationDType)
    for (branch, (source, rows)) in zip(branches, zip(sources, rows)) {
      let (scale, shift) = branch.modulation.finalScaleAndShift(step: branch.step)
      compute.layerNormModulate(
        x.rows(source.lowerBound..<source.lowerBound + rows.count), shift: shift, scale: scale,
        epsilon: TransformerBlock.normEpsilon, into: &normed, rowsFrom: rows.lowerBound)
    }
    let y = normed.finish()
    probe.record("norm_out", y)
    let velocity = compute.linear(y, out, output: .fp32)
    return rows.map { velocity.rows($0) }
  }

  private func recordInputs(_ branch: Branch, x: Tensor, _ probe: Probe) {
    guard probe.isActive else { return }
    let (conditioning, modulation, step) = (branch.conditioning, branch.modulation, branch.step)
    let textRows = 0..<conditioning.text.shape[0]
    let imageRows = textRows.upperBound..<conditioning.rotary.cos.shape[0]
    probe.record(
      "in.hidden_states", Tensor.stacking([branch.latents] + (conditioning.references.map { [$0.latents] } ?? [])))
    probe.record("in.encoder_hidden_states", conditioning.promptEmbeds)
    probe.record("in.timestep", Tensor([modulation.times[step]], shape: [1]))
    probe.record("img_in", x)
    probe.record("txt_norm", trunk.normalised(conditioning.promptEmbeds))
    probe.record("txt_in", conditioning.text)
    probe.record("temb", modulation.imageRows(of: modulation.timeEmbedding, step: step))
    probe.record("block.0.img_mod", modulation.imageRows(of: modulation.image[0], step: step))
    probe.record("block.0.txt_mod", modulation.text[0].rows(step..<step + 1))
    for (name, rows) in [("img", imageRows), ("txt", textRows)] {
      probe.record("rope.\(name).cos", conditioning.rotary.cos.rows(rows))
      probe.record("rope.\(name).sin", conditioning.rotary.sin.rows(rows))
    }
  }
}
