import Diffusion
import Foundation
import Kernels
import TensorCore
import Weights

/// The denoising network of Qwen-Image-2.1: a diffusion transformer with one stream of text, references and the image
/// that is made, which predicts the velocity of flow matching (diffusers `QwenImage21Transformer2DModel`).
///
/// Text and references are modulated as at time 0 and never see the image, so that their keys and values are the same
/// in all steps: `prefixCache` computes them once, and the steps run the image's tokens only.
public struct SingleStreamTransformer: Sendable {
  /// The checkpoint's configuration.
  public let configuration: SingleStreamConfiguration
  /// The arithmetic the network runs on.
  public let compute: Compute
  /// For weights that do not all fit into memory; nil: they do.
  public let streaming: WeightStreaming?
  /// Whether keys and values of text and references are kept for all steps. Without them, every step computes the whole
  /// sequence again, to the same bytes.
  public let usesPrefixCache: Bool
  /// Most bytes that these may take for one image, all its branches of guidance together; nil: there is no limit.
  public let prefixCacheBytesMax: Int?
  /// Those of the last prompts and references.
  let keptCaches: RecentValues<[UInt8], PrefixCache>
  /// ``AdapterSet/fingerprint`` of the adapters beside the weights.
  private(set) var adapterFingerprint = ""
  /// Bytes that the adapters beside the weights take.
  public private(set) var adapterBytes = 0
  private var imageIn: Linear
  /// One added to the stored weight.
  private let textNorm: Tensor
  private var textIn: Linear
  private var textOut: Linear
  private var modulation: SharedModulation
  private var blocks: [SingleStreamBlock]
  private var out: Linear
  /// [inner], fp32.
  private let zeros: Tensor

  /// Which layers the quantised modes quantise: those of the blocks, but for the first. The modulation, which all
  /// blocks share and which acts on every token, stays in bf16; it is read once per schedule. Inputs are rotated: the
  /// products of the gated hidden layer, above all, are quantised badly without
  /// (`Tests/Benchmarks/PERFORMANCE-LOG.md`).
  public static let layers = LayerPrecision(
    version: 1, repeated: ["transformer_blocks."], modulations: [], rotatesInputs: true)

  /// Reads and prepares the weights of `transformer/`.
  ///
  /// - Parameters:
  ///   - layers: which layers the quantised modes quantise.
  ///   - residentMax: bytes of mapped weights that may stay in memory; nil: all.
  ///   - usesPrefixCache: see the property.
  ///   - prefixCacheBytesMax: see the property.
  ///   - prefixCacheKeptBytesMax: most bytes of keys and values that are kept for later images.
  /// - Throws: `WeightsError` naming the file and tensor that is missing, misshapen or unexpected.
  public init(
    _ weights: ComponentWeights, configuration: SingleStreamConfiguration, compute: Compute,
    layers: LayerPrecision = Self.layers, residentMax: Int? = nil, usesPrefixCache: Bool = true,
    prefixCacheBytesMax: Int? = nil, prefixCacheKeptBytesMax: Int = 0
  ) throws(WeightsError) {
    let reader = ModuleReader(weights, compute: compute, layers: layers)
    let dim = configuration.innerDim, context = configuration.contextDim
    self.configuration = configuration
    self.compute = compute
    self.usesPrefixCache = usesPrefixCache
    self.prefixCacheBytesMax = prefixCacheBytesMax
    keptCaches = RecentValues(byteCountMax: prefixCacheKeptBytesMax)
    numericsClass = layers.numericsClass(compute)
    imageIn = try reader.linear(LayerName.imageIn, input: configuration.channels, output: dim, bias: false)
    let norm = try reader.tensor("txt_in.text_norm.weight", [context])
    textNorm = Tensor(norm.floats().map { $0 + 1 }, shape: [context])
    textIn = try reader.linear(LayerName.textIn, input: context, output: dim, bias: false)
    textOut = try reader.linear(LayerName.textOut, input: dim, output: dim, bias: false)
    modulation = try SharedModulation(reader, configuration)
    var blocks: [SingleStreamBlock] = []
    for index in 0..<configuration.layerCount { blocks.append(try SingleStreamBlock(index, reader, configuration)) }
    self.blocks = blocks
    out = try reader.linear(LayerName.out, input: dim, output: configuration.channels, bias: false)
    zeros = Tensor.zeros([dim])
    streaming = residentMax.flatMap { max in
      WeightStreaming(
        (0..<configuration.layerCount).map { reader.mapped(prefix: "transformer_blocks.\($0).") }, residentMax: max)
    }
    try reader.finish()
  }

  /// The names of the layers outside of the blocks.
  private enum LayerName {
    static let imageIn = "img_in"
    static let textIn = "txt_in.in_layer"
    static let textOut = "txt_in.out_layer"
    static let out = "proj_out"
  }

  private var adapterTargets: AdapterTargets {
    let fused = (0..<configuration.layerCount).map { index in
      (
        SingleStreamBlock.LayerName.mlpGateAndUp.path(index),
        [SingleStreamBlock.LayerName.mlpGate, .mlpUp].map { $0.path(index) }
      )
    }
    return AdapterTargets(
      ParameterInventory(singleStream: configuration), fused: Dictionary(uniqueKeysWithValues: fused))
  }

  /// Checks whether an adapter is for this network.
  public var adapterCheck: AdapterCheck { adapterTargets.check }

  /// The network with adapters beside its weights.
  public func adapted(by adapters: AdapterSet) throws(WeightsError) -> SingleStreamTransformer {
    let updates = try LayerUpdates(adapters, for: adapterTargets, compute: compute)
    var network = self
    network.adapterBytes = updates.byteCount
    network.adapterFingerprint = adapters.fingerprint
    network.imageIn = updates(LayerName.imageIn, imageIn)
    network.textIn = updates(LayerName.textIn, textIn)
    network.textOut = updates(LayerName.textOut, textOut)
    network.modulation = modulation.updated(by: updates)
    network.blocks = blocks.map { $0.updated(by: updates) }
    network.out = updates(LayerName.out, out)
    return network
  }

  /// Opens the weights in a component's folder; see ``weights(from:)``.
  public static func weights(in folder: URL) throws(WeightsError) -> ComponentWeights {
    try weights(from: .folder(folder))
  }

  /// Opens weights; tensors have their published names. Other programs write them behind `model.diffusion_model.`, and
  /// the two layers at the entrance of a block's MLP as one, `gate_up`, in a file of any name.
  public static func weights(from source: ComponentSource) throws(WeightsError) -> ComponentWeights {
    try ComponentWeights(source, baseName: "diffusion_pytorch_model", acceptsAnyName: true) { _ in
      TensorNaming(rename: SingleFileNames.withoutPrefix) { name in
        let fused = ".img_mlp.gate_up.weight"
        guard name.hasSuffix(fused) else { return nil }
        return ["gate_layer", "proj"].map { "\(name.dropLast(fused.count)).img_mlp.\($0).weight" }
      }
    }
  }

  /// Names everything that results depend on besides weights and inputs.
  public let numericsClass: String

  // MARK: - What all steps have in common

  /// Packed latents [N, channels] → image tokens [N, inner], fp32.
  func imageTokens(_ latents: Tensor) -> Tensor { compute.linear(latents, imageIn, output: .fp32) }

  /// Prompt embeddings [L, contextDim] after `text_norm`.
  func normalised(_ promptEmbeds: Tensor) -> Tensor {
    compute.rmsNorm(promptEmbeds, weight: textNorm, epsilon: Float(configuration.normEpsilon))
  }

  /// Prompt embeddings [L, contextDim] → text tokens [L, inner], fp32.
  func textTokens(_ promptEmbeds: Tensor) -> Tensor {
    compute.linear(
      compute.linear(normalised(promptEmbeds), textIn, activation: .geluTanh), textOut, output: .fp32)
  }

  /// Computes the modulation vectors of all steps; `times` are the steps' sigmas.
  func modulation(times: [Float]) -> SharedModulationTable {
    modulation.table(times: times, compute: compute, isMemoryShort: streaming != nil)
  }

  /// What a prompt and references contribute to every step.
  struct Conditioning: Sendable {
    let sequence: JointSequence
    /// Tables of the whole sequence.
    let rotary: RotaryTable
    /// The tokens before the image that is made, before the first block [P, inner], fp32.
    let prefix: Tensor
    let modulation: SharedModulationTable
    /// What these leave in the blocks; nil: every step computes it again.
    var cache: PrefixCache?
    /// What the prefix was made from, for recordings.
    let promptEmbeds: Tensor
    let references: Tensor?
  }

  /// Prepares a prompt, without the cache.
  ///
  /// - Parameters:
  ///   - references: latents of all references [R, channels], and their tokens [R, inner]; nil: there are none.
  func condition(
    _ prompt: PromptConditioning, sequence: JointSequence, references: (latents: Tensor, tokens: Tensor)?,
    modulation: SharedModulationTable
  ) -> Conditioning {
    let text = textTokens(prompt.embeds)
    var referenceRows = 0
    let parts = sequence.prefix.map { part in
      if case .text(let rows) = part.kind { return text.rows(rows) }
      referenceRows += part.rows.count
      return references!.tokens.rows(referenceRows - part.rows.count..<referenceRows)
    }
    return Conditioning(
      sequence: sequence, rotary: AxialRotary.table(axes: configuration.ropeAxes, positions: sequence.positions),
      prefix: Tensor.stacking(parts), modulation: modulation, cache: nil, promptEmbeds: prompt.embeds,
      references: references?.latents)
  }

  /// Computes what the tokens before the image leave in every block, of several branches in one pass.
  func prefixCaches(_ branches: [Conditioning]) -> [PrefixCache] {
    let rows = consecutiveRows(branches.map(\.sequence.prefixCount))
    var x = Tensor.stacking(branches.map(\.prefix))
    let spans = zip(branches, rows).map { branch, rows in span(of: .prefix, branch, step: nil, rows: rows) }
    var layers: [[SingleStreamBlock.KeysAndValues]] = branches.map { _ in [] }
    for (index, block) in blocks.enumerated() {
      let all = block(&x, spans, updatesTokens: index + 1 < blocks.count, compute: compute, probe: .none)
      for branch in branches.indices { layers[branch].append(all[branch]) }
      streaming?.ended(index)
    }
    return layers.map { PrefixCache(layers: $0) }
  }

  // MARK: - A step

  /// What a velocity is predicted from.
  struct Branch {
    /// Packed latents [N, channels], fp32.
    let latents: Tensor
    let conditioning: Conditioning
    let step: Int
    /// What the branch keeps of earlier steps; nil: the whole network runs.
    var cache: BranchCache?

    /// Tokens in a pass.
    var tokenCount: Int { latents.shape[0] + (conditioning.cache == nil ? conditioning.sequence.prefixCount : 0) }
  }

  /// Predicts several velocities, of any steps and sizes, in one pass: every weight is read once for all of them.
  ///
  /// - Returns: per branch [N, channels], fp32, the same bytes as alone.
  func callAsFunction(_ branches: [Branch]) -> [Tensor] {
    if branches.isEmpty { return [] }
    let parts = branches.map { $0.conditioning.cache == nil ? SequencePart.all : .target }
    let tokens = consecutiveRows(branches.map { $0.latents.shape[0] })
    let images = imageTokens(Tensor.stacking(branches.map(\.latents)))
    var x = Tensor.stacking(
      branches.indices.flatMap { index in
        (parts[index] == .all ? [branches[index].conditioning.prefix] : []) + [images.rows(tokens[index])]
      })
    let rows = consecutiveRows(branches.map(\.tokenCount))
    if branches.contains(where: { $0.cache != nil }) {
      runBlocksWithCaches(&x, branches, rows)
    } else {
      runBlocks(0..<blocks.count, &x, branches, rows)
    }
    let ends = zip(rows, tokens).map { $0.upperBound - $1.count..<$0.upperBound }
    let targets = Tensor.stacking(ends.map { x.rows($0) })
    let scales = zip(branches, tokens).map { ($1, $0.conditioning.modulation.outputScale(row: $0.step)) }
    let velocity = compute.linear(normalised(targets, scales), out, output: .fp32)
    return tokens.map { velocity.rows($0) }
  }

  /// Runs blocks in one pass; `rows` are those of each branch in `x`.
  func runBlocks(_ range: Range<Int>, _ x: inout Tensor, _ branches: [Branch], _ rows: [Range<Int>]) {
    let spans = zip(branches, rows).map { branch, rows in
      let part = branch.conditioning.cache == nil ? SequencePart.all : .target
      return span(of: part, branch.conditioning, step: branch.step, rows: rows)
    }
    for index in range {
      blocks[index](&x, spans, compute: compute, probe: .none)
      streaming?.ended(index)
    }
  }

  /// Predicts one velocity, and records intermediates as the reference does: of the whole sequence, unless
  /// `recordsTargetOnly`.
  func callAsFunction(_ branch: Branch, recordsTargetOnly: Bool, probe: Probe) -> Tensor {
    let conditioning = branch.conditioning, prefixCount = conditioning.sequence.prefixCount
    let part = recordsTargetOnly ? SequencePart.target : .all
    let images = imageTokens(branch.latents)
    recordInputs(branch, images, part, probe)
    var x = part == .target ? images : Tensor.stacking([conditioning.prefix, images])
    probe.record("block_in.0", x)
    let span = span(of: part, conditioning, step: branch.step, rows: 0..<x.shape[0])
    for (index, block) in blocks.enumerated() {
      let all = block(&x, [span], compute: compute, probe: probe)[0]
      probe.record("kv.\(index).k", all.keys.rows(0..<prefixCount))
      probe.record("kv.\(index).v", all.values.rows(0..<prefixCount))
      streaming?.ended(index)
    }
    let table = conditioning.modulation
    let scales = span.modulation.indices.map { index in
      let isPrefix = index + 1 < span.modulation.count
      return (span.modulation[index].rows, table.outputScale(row: isPrefix ? table.prefixRow : branch.step))
    }
    let y = normalised(x, scales)
    probe.record("norm_out", y)
    let all = compute.linear(y, out, output: .fp32)
    probe.record("out", all)
    return all.rows(all.shape[0] - images.shape[0]..<all.shape[0])
  }

  /// A block by itself: what is done in it for one step of an image.
  @_spi(Benchmarks) public struct BlockPass: Sendable {
    let tokens: Tensor
    let span: SingleStreamBlock.Span
  }

  /// What block `index` would do if it were the first one: of the image's tokens, with keys and values of those before
  /// it, or of all.
  @_spi(Benchmarks) public func pass(
    ofBlock index: Int, _ call: VelocityCall<Prepared>, usesPrefixCache: Bool
  ) -> BlockPass {
    var conditioning = call.branch.conditioning
    let images = imageTokens(call.latents)
    guard usesPrefixCache else {
      let tokens = Tensor.stacking([conditioning.prefix, images])
      return BlockPass(
        tokens: tokens, span: span(of: .all, conditioning, step: call.step, rows: 0..<tokens.shape[0]))
    }
    var prefix = conditioning.prefix
    let before = span(of: .prefix, conditioning, step: nil, rows: 0..<prefix.shape[0])
    let all = blocks[index](&prefix, [before], updatesTokens: false, compute: compute, probe: .none)[0]
    conditioning.cache = PrefixCache(layers: Array(repeating: all, count: index + 1))
    return BlockPass(
      tokens: images, span: span(of: .target, conditioning, step: call.step, rows: 0..<images.shape[0]))
  }

  /// Runs block `index`, to be timed by itself.
  ///
  /// - Returns: the tokens behind it [n, inner], fp32.
  @_spi(Benchmarks) public func runBlock(_ index: Int, _ pass: BlockPass) -> Tensor {
    var x = pass.tokens
    blocks[index](&x, [pass.span], compute: compute, probe: .none)
    return x
  }

  private func normalised(_ x: Tensor, _ scales: [(rows: Range<Int>, scale: Tensor)]) -> Tensor {
    compute.scaledLayerNorm(x, scales, zeros: zeros, epsilon: Float(configuration.normEpsilon))
  }

  /// The tokens of a sequence that take part in a pass.
  private enum SequencePart {
    case prefix, target, all
  }

  /// - Parameter step: of the image that is made, if it takes part.
  private func span(
    of part: SequencePart, _ branch: Conditioning, step: Int?, rows: Range<Int>
  ) -> SingleStreamBlock.Span {
    let sequence = branch.sequence, table = branch.modulation
    let tokens =
      switch part {
      case .prefix: 0..<sequence.prefixCount
      case .target: sequence.target
      case .all: 0..<sequence.target.upperBound
      }
    let parts = sequence.parts.filter { tokens.contains($0.rows.lowerBound) }
    // Where the image that is made begins in the pass.
    let end = part == .prefix ? rows.upperBound : rows.upperBound - sequence.target.count
    var modulation: [(rows: Range<Int>, vectors: ModulationVectors)] = []
    if part != .target { modulation.append((rows.lowerBound..<end, table.vectors(row: table.prefixRow))) }
    if let step { modulation.append((end..<rows.upperBound, table.vectors(row: step))) }
    return SingleStreamBlock.Span(
      rows: rows, modulation: modulation, rotary: branch.rotary.rows(tokens),
      before: part == .target ? branch.cache : nil,
      visibility: parts.map {
        ($0.rows.lowerBound - tokens.lowerBound..<$0.rows.upperBound - tokens.lowerBound, $0.isCausal)
      })
  }

  // MARK: - Recording

  private func recordInputs(_ branch: Branch, _ images: Tensor, _ part: SequencePart, _ probe: Probe) {
    let conditioning = branch.conditioning, sequence = conditioning.sequence, table = conditioning.modulation
    probe.record("in.timestep", Tensor([table.times[branch.step]], shape: [1]))
    probe.record("temb", table.rows(of: table.timeEmbedding, step: branch.step))
    probe.record("modulation", table.rows(of: table.raw, step: branch.step))
    guard part == .all else { return }
    probe.record("in.hidden_states", Tensor.stacking((conditioning.references.map { [$0] } ?? []) + [branch.latents]))
    probe.record("txt_norm", normalised(conditioning.promptEmbeds))
    probe.record("txt_in", textTokens(conditioning.promptEmbeds))
    let references = conditioning.references.map { [imageTokens($0)] } ?? []
    probe.record("img_in", Tensor.stacking(references + [images]))
    probe.record("rope.cos", conditioning.rotary.cos)
    probe.record("rope.sin", conditioning.rotary.sin)
    func numbers(_ number: (JointSequence.Part) -> Float, tokensEach: Int = 1) -> Tensor {
      let values = sequence.parts.flatMap {
        Array(repeating: number($0), count: $0.isCausal ? $0.rows.count : $0.rows.count / tokensEach)
      }
      return Tensor(values, shape: [values.count])
    }
    func image(_ part: JointSequence.Part) -> Int? { if case .image(let number) = part.kind { number } else { nil } }
    probe.record("image_ids", numbers { Float(image($0) ?? -1) })
    probe.record("target_token_mask", numbers { $0.rows == sequence.target ? 1 : 0 })
    probe.record(
      "in.img_mask",
      numbers({ image($0) == nil ? 0 : 1 }, tokensEach: SingleStreamTransformer.tokensPerSlot))
  }

  /// Tokens that take the place of one row of the text encoder: 2 × 2 of an image.
  static let tokensPerSlot = 4
}
