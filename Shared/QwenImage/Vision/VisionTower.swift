import Diffusion
import Kernels
import TensorCore
import Weights

/// The vision tower of Qwen2.5-VL: patches of images in, rows for the language model out (transformers
/// `Qwen2_5_VisionTransformerPretrainedModel`).
///
/// In the quantised modes its layers stay in bf16; see ``QwenImageFamily/layers``.
public struct VisionTower: Sendable {
  /// The checkpoint's configuration.
  public let configuration: VisionConfiguration
  private let compute: Compute
  private let patchEmbedding: Linear
  private let blocks: [VisionBlock]
  private let merger: VisionMerger
  /// Bytes of packed weights that are parts of mapped files.
  package let mappedByteCount: Int

  private static let prefix = "visual."

  /// Reads the tensors `visual.…` of `text_encoder/`.
  ///
  /// - Throws: `WeightsError` naming the file and tensor that is missing, misshapen or unexpected.
  public init(
    _ weights: ComponentWeights, configuration: VisionConfiguration, compute: Compute
  ) throws(WeightsError) {
    let reader = ModuleReader(weights, compute: compute, layers: QwenImageFamily.layers)
    self.configuration = configuration
    self.compute = compute
    let (hidden, patch) = (configuration.hiddenSize, configuration.patchSize)
    // A convolution whose kernel is as large as its step: a product with each patch.
    let kernel = try reader.tensor(
      "visual.patch_embed.proj.weight",
      [hidden, PatchGeometry.channels, configuration.temporalPatchSize, patch, patch])
    patchEmbedding = compute.prepareLinear(
      weight: kernel.reshaped([hidden, configuration.patchValues]),
      precision: compute.precision == .fp32 ? .fp32 : .bf16)
    var blocks: [VisionBlock] = []
    for index in 0..<configuration.depth { blocks.append(try VisionBlock(index, reader, configuration)) }
    self.blocks = blocks
    merger = try VisionMerger(reader, configuration)
    mappedByteCount = reader.mapped(prefix: Self.prefix).byteCount
    try reader.finish { !Self.isTensor($0) }
  }

  /// Whether a tensor of `text_encoder/`, by its published name, is the tower's. Rotary frequencies, which old versions
  /// of transformers may have written, are computed.
  static func isTensor(_ name: String) -> Bool { name.hasPrefix(prefix) && !name.hasSuffix(".inv_freq") }

  /// Reads several images in one pass.
  ///
  /// - Parameter probe: receives intermediates of all images, one after the other, under the reference's names.
  /// - Returns: per image [merged tokens, output width], fp32, row by row: the same bytes as if it were read alone.
  public func callAsFunction(_ images: [PatchedImage], probe: Probe = .none) -> [Tensor] {
    guard !images.isEmpty else { return [] }
    let layout = VisionLayout(images.map(\.grid), configuration)
    record(layout, probe)
    var x = embed(images, layout, probe)
    for index in blocks.indices { runBlock(index, &x, layout, probe) }
    let merged = merger(x, compute)
    probe.record("merger_windowed", merged)
    var places = [Int](repeating: 0, count: layout.order.count)
    for (place, token) in layout.order.enumerated() { places[token] = place }
    let rows = compute.gatherRows(merged, places)
    let patches = configuration.mergedPatches
    return layout.images.map { rows.rows($0.lowerBound / patches..<$0.upperBound / patches) }
  }

  /// One block over the patches [n, hidden] of an image, in the tower's order, to be timed by itself.
  @_spi(Benchmarks) public func runBlock(_ index: Int, _ x: Tensor, grid: TokenGrid) -> Tensor {
    var x = x
    runBlock(index, &x, VisionLayout([grid], configuration), .none)
    return x
  }

  /// Patches → residual stream [n, hidden], fp32, in the tower's order.
  private func embed(_ images: [PatchedImage], _ layout: VisionLayout, _ probe: Probe) -> Tensor {
    let embedded = compute.linear(Tensor.stacking(images.map(\.patches)), patchEmbedding, output: .fp32)
    probe.record("patch_embed", embedded)
    let tokenWidth = configuration.mergedPatches * configuration.hiddenSize
    return compute.gatherRows(embedded.reshaped([layout.order.count, tokenWidth]), layout.order)
      .reshaped(embedded.shape)
  }

  private func runBlock(_ index: Int, _ x: inout Tensor, _ layout: VisionLayout, _ probe: Probe) {
    let isFull = configuration.fullAttentionBlocks.contains(index)
    blocks[index](&x, parts: isFull ? layout.images : layout.windows, rotary: layout.rotary, compute: compute)
    probe.record("block.\(index)", x)
  }

  private func record(_ layout: VisionLayout, _ probe: Probe) {
    probe.record("window_index", Tensor(layout.order.map(Float.init), shape: [layout.order.count]))
    let bounds = [0] + layout.windows.map(\.upperBound)
    probe.record("cu_window_seqlens", Tensor(bounds.map(Float.init), shape: [bounds.count]))
  }
}

extension VisionTower: ImageTower {
  /// How images are cut into patches.
  package var geometry: PatchGeometry { configuration.geometry }

  /// Reads several images in one pass.
  package func read(_ images: [PatchedImage], probe: Probe) -> [PromptImageRows] {
    self(images, probe: probe).map { PromptImageRows(rows: $0) }
  }
}

/// One block: attention within windows or whole images and a gated MLP (transformers `Qwen2_5_VLVisionBlock`).
struct VisionBlock: Sendable {
  private let configuration: VisionConfiguration
  private let attentionNorm: Tensor
  private let queryKeyValue: Linear
  private let output: Linear
  private let mlpNorm: Tensor
  private let gate: Linear
  private let up: Linear
  private let down: Linear

  init(_ index: Int, _ reader: ModuleReader, _ configuration: VisionConfiguration) throws(WeightsError) {
    let name = "visual.blocks.\(index)"
    let (hidden, inner) = (configuration.hiddenSize, configuration.intermediateSize)
    self.configuration = configuration
    attentionNorm = try reader.tensor("\(name).norm1.weight", [hidden])
    queryKeyValue = try reader.linear("\(name).attn.qkv", input: hidden, output: 3 * hidden)
    output = try reader.linear("\(name).attn.proj", input: hidden, output: hidden)
    mlpNorm = try reader.tensor("\(name).norm2.weight", [hidden])
    gate = try reader.linear("\(name).mlp.gate_proj", input: hidden, output: inner)
    up = try reader.linear("\(name).mlp.up_proj", input: hidden, output: inner)
    down = try reader.linear("\(name).mlp.down_proj", input: inner, output: hidden)
  }

  /// Advances the residual stream `x` [n, hidden] in place; the rows of each of `parts` attend to one another.
  func callAsFunction(_ x: inout Tensor, parts: [Range<Int>], rotary: RotaryTable, compute: Compute) {
    let epsilon = VisionConfiguration.rmsNormEpsilon, hidden = configuration.hiddenSize
    let heads = configuration.headCount
    let qkv = compute.linear(compute.rmsNorm(x, weight: attentionNorm, epsilon: epsilon), queryKeyValue)
    var (q, k) = (compute.columns(0..<hidden, of: qkv), compute.columns(hidden..<2 * hidden, of: qkv))
    let v = compute.columns(2 * hidden..<3 * hidden, of: qkv)
    compute.headNormRotary(&q, heads: heads, normWeight: nil, epsilon: epsilon, rotary: rotary, style: .rotateHalf)
    compute.headNormRotary(&k, heads: heads, normWeight: nil, epsilon: epsilon, rotary: rotary, style: .rotateHalf)
    let attended = compute.attention(
      q: q, k: k, v: v, heads: heads, kvHeads: heads, headDim: configuration.headDim, within: parts)
    compute.linear(attended, output, addingTo: &x)

    let m = compute.rmsNorm(x, weight: mlpNorm, epsilon: epsilon)
    compute.linear(compute.siluMultiply(compute.linear(m, gate), compute.linear(m, up)), down, addingTo: &x)
  }
}

/// The patches of a merged token → a row of the language model's width (transformers `Qwen2_5_VLPatchMerger`).
struct VisionMerger: Sendable {
  private let norm: Tensor
  private let hidden: Linear
  private let output: Linear
  private let mergedPatches: Int

  init(_ reader: ModuleReader, _ configuration: VisionConfiguration) throws(WeightsError) {
    let width = configuration.mergedPatches * configuration.hiddenSize
    norm = try reader.tensor("visual.merger.ln_q.weight", [configuration.hiddenSize])
    hidden = try reader.linear("visual.merger.mlp.0", input: width, output: width)
    output = try reader.linear("visual.merger.mlp.2", input: width, output: configuration.outputSize)
    mergedPatches = configuration.mergedPatches
  }

  /// [patches, hidden] → [merged tokens, output width], fp32.
  func callAsFunction(_ x: Tensor, _ compute: Compute) -> Tensor {
    let y = compute.rmsNorm(x, weight: norm, epsilon: VisionConfiguration.rmsNormEpsilon)
    let merged = y.reshaped([x.shape[0] / mergedPatches, mergedPatches * x.shape[1]])
    return compute.linear(compute.linear(merged, hidden, activation: .gelu), output, output: .fp32)
  }
}
