import Diffusion
import Kernels
import TensorCore
import Weights

/// The vision tower of Qwen3-VL: patches of images in, rows for the language model out (transformers
/// `Qwen3VLVisionModel`).
///
/// In the quantised modes its layers stay in bf16; see ``Qwen3LanguageModel/layers``.
public struct Qwen3VisionTower: Sendable {
  /// The checkpoint's configuration.
  public let configuration: Qwen3VisionConfiguration
  private let compute: Compute
  private let patchEmbedding: Linear
  private let positions: PositionTable
  private let blocks: [Qwen3VisionBlock]
  private let merger: Qwen3VisionMerger
  private let deepStack: [Qwen3VisionMerger]
  /// Bytes of packed weights that are parts of mapped files.
  package let mappedByteCount: Int

  fileprivate static let prefix = "model.visual."

  /// Reads the tensors `model.visual.…` of `text_encoder/`.
  ///
  /// - Throws: `WeightsError` naming the file and tensor that is missing, misshapen or unexpected.
  public init(
    _ weights: ComponentWeights, configuration: Qwen3VisionConfiguration, compute: Compute,
    layers: LayerPrecision = Qwen3LanguageModel.layers
  ) throws(WeightsError) {
    let reader = ModuleReader(weights, compute: compute, layers: layers), prefix = Self.prefix
    self.configuration = configuration
    self.compute = compute
    let (hidden, patch) = (configuration.hiddenSize, configuration.patchSize)
    // A convolution whose kernel is as large as its step: a product with each patch.
    let kernel = try reader.tensor(
      "\(prefix)patch_embed.proj.weight",
      [hidden, PatchGeometry.channels, configuration.temporalPatchSize, patch, patch])
    patchEmbedding = compute.prepareLinear(
      weight: kernel.reshaped([hidden, configuration.geometry.patchValues]),
      bias: try reader.tensor("\(prefix)patch_embed.proj.bias", [hidden]),
      precision: compute.precision == .fp32 ? .fp32 : .bf16)
    let side = configuration.positionSide
    let table = try reader.tensor("\(prefix)pos_embed.weight", [side * side, hidden])
    positions = PositionTable(compute.converted(table, to: .fp32), side: side)
    var blocks: [Qwen3VisionBlock] = []
    for index in 0..<configuration.depth { blocks.append(try Qwen3VisionBlock(index, reader, configuration)) }
    self.blocks = blocks
    merger = try Qwen3VisionMerger("\(prefix)merger", reader, configuration, normalises: .patches)
    var deepStack: [Qwen3VisionMerger] = []
    for index in configuration.deepStackBlocks.indices {
      deepStack.append(
        try Qwen3VisionMerger(
          "\(prefix)deepstack_merger_list.\(index)", reader, configuration, normalises: .mergedTokens))
    }
    self.deepStack = deepStack
    mappedByteCount = reader.mapped(prefix: prefix).byteCount
    try reader.finish { !Self.isTensor($0) }
  }

  /// Reads one image, to be timed by itself.
  ///
  /// - Returns: its rows, and below them those of each level [(1 + levels) · merged tokens, output width], fp32.
  @_spi(Benchmarks) public func runTower(_ image: PatchedImage) -> Tensor {
    let rows = read([image], probe: .none)[0]
    return Tensor.stacking([rows.rows] + rows.levels)
  }

  /// Whether a tensor of `text_encoder/`, by its published name, is the tower's. Rotary frequencies are computed.
  static func isTensor(_ name: String) -> Bool { name.hasPrefix(prefix) && !name.hasSuffix(".inv_freq") }
}

extension Qwen3VisionTower: ImageTower {
  /// How images are cut into patches.
  package var geometry: PatchGeometry { configuration.geometry }

  /// Reads several images in one pass.
  package func read(_ images: [PatchedImage], probe: Probe) -> [PromptImageRows] {
    guard !images.isEmpty else { return [] }
    var parts: [Range<Int>] = []
    for image in images {
      let start = parts.last?.upperBound ?? 0
      parts.append(start..<start + image.grid.tokenCount)
    }
    let places = images.flatMap { geometry.places(in: $0.grid) }
    let rotary = RotaryTable(
      places: places, headDim: configuration.headDim, theta: Qwen3VisionConfiguration.ropeTheta)
    record(images, places, rotary, probe)
    var x = embed(images, parts, probe), levels: [Tensor] = []
    for (index, block) in blocks.enumerated() {
      block(&x, parts: parts, rotary: rotary, compute: compute)
      probe.record("block.\(index)", x)
      if let level = configuration.deepStackBlocks.firstIndex(of: index) {
        levels.append(deepStack[level](x, compute))
        probe.record("deepstack.\(level)", levels[level])
      }
    }
    let rows = merger(x, compute), merged = geometry.mergedPatches
    probe.record("merger", rows)
    return parts.map { part in
      let range = part.lowerBound / merged..<part.upperBound / merged
      return PromptImageRows(rows: rows.rows(range), levels: levels.map { $0.rows(range) })
    }
  }

  /// Patches → residual stream [n, hidden], fp32.
  private func embed(_ images: [PatchedImage], _ parts: [Range<Int>], _ probe: Probe) -> Tensor {
    var x = compute.linear(Tensor.stacking(images.map(\.patches)), patchEmbedding, output: .fp32)
    probe.record("patch_embed", x)
    for (image, part) in zip(images, parts) {
      compute.add(&x, rows: part, positions.rows(image.grid, at: geometry.places(in: image.grid)))
    }
    probe.record("block_in.0", x)
    return x
  }

  private func record(
    _ images: [PatchedImage], _ places: [(row: Int, column: Int)], _ rotary: RotaryTable, _ probe: Probe
  ) {
    guard probe.isActive else { return }
    let corners = images.flatMap { image in
      geometry.places(in: image.grid).flatMap { positions.corners(of: $0, in: image.grid) }
    }
    let indices = corners.map { Float($0.index) }, weights = corners.map(\.weight)
    probe.record(
      "position_ids", Tensor(places.flatMap { [Float($0.row), Float($0.column)] }, shape: [places.count, 2]))
    probe.record("interp_indices", Tensor(indices, shape: [places.count, 4]))
    probe.record("interp_weights", Tensor(weights, shape: [places.count, 4]))
    probe.record(rotary)
  }
}

/// The learned table of positions, of a fixed number of rows and columns, which is stretched over the patches of an
/// image: its corners lie on those of the image, between its entries it is interpolated bilinearly.
struct PositionTable: Sendable {
  /// [side · side, width], fp32.
  private let table: Tensor
  private let side: Int

  init(_ table: Tensor, side: Int) {
    self.table = table
    self.side = side
  }

  /// An entry and its part of an interpolated one.
  struct Corner {
    var index: Int
    var weight: Float
  }

  /// The four entries around a patch of an image: upper left, upper right, lower left, lower right.
  func corners(of place: (row: Int, column: Int), in grid: TokenGrid) -> [Corner] {
    let (y, z) = (interval(place.row, of: grid.height), interval(place.column, of: grid.width))
    return [
      Corner(index: y.first * side + z.first, weight: (1 - y.part) * (1 - z.part)),
      Corner(index: y.first * side + z.second, weight: (1 - y.part) * z.part),
      Corner(index: y.second * side + z.first, weight: y.part * (1 - z.part)),
      Corner(index: y.second * side + z.second, weight: y.part * z.part),
    ]
  }

  /// The entries before and behind a patch along one axis, and how far it is from the first.
  private func interval(_ place: Int, of count: Int) -> (first: Int, second: Int, part: Float) {
    let steps = max(count - 1, 1)
    let (first, rest) = (place * (side - 1)).quotientAndRemainder(dividingBy: steps)
    return (first, min(first + 1, side - 1), Float(rest) / Float(steps))
  }

  /// The positions of patches [places.count, width], fp32.
  func rows(_ grid: TokenGrid, at places: [(row: Int, column: Int)]) -> Tensor {
    let width = table.shape[1]
    var result = MutableTensor(uninitialized: [places.count, width])
    table.withElements(as: Float.self) { table in
      result.withElements(as: Float.self) { result in
        for (patch, place) in places.enumerated() {
          let corners = corners(of: place, in: grid)
          let (a, b, c, d) = (corners[0].weight, corners[1].weight, corners[2].weight, corners[3].weight)
          let (first, second) = (corners[0].index * width, corners[1].index * width)
          let (third, fourth) = (corners[2].index * width, corners[3].index * width), start = patch * width
          for i in 0..<width {
            result[start + i] =
              a * table[first + i] + b * table[second + i] + c * table[third + i]
              + d * table[fourth + i]
          }
        }
      }
    }
    return result.finish()
  }
}

/// LayerNorm with weight and bias.
private struct VisionNorm: Sendable {
  /// The weight less 1, as the kernel takes it, fp32.
  private let scale: Tensor
  private let shift: Tensor

  init(_ name: String, _ reader: ModuleReader, width: Int) throws(WeightsError) {
    scale = Tensor(try reader.tensor("\(name).weight", [width]).floats().map { $0 - 1 }, shape: [width])
    shift = Tensor(try reader.tensor("\(name).bias", [width]).floats(), shape: [width])
  }

  func callAsFunction(_ x: Tensor, _ compute: Compute) -> Tensor {
    compute.layerNormModulate(x, shift: shift, scale: scale, epsilon: Qwen3VisionConfiguration.normEpsilon)
  }
}

/// One block: attention within an image and an MLP (transformers `Qwen3VLVisionBlock`).
struct Qwen3VisionBlock: Sendable {
  private let configuration: Qwen3VisionConfiguration
  private let attentionNorm: VisionNorm
  private let queryKeyValue: Linear
  private let output: Linear
  private let mlpNorm: VisionNorm
  private let up: Linear
  private let down: Linear

  init(_ index: Int, _ reader: ModuleReader, _ configuration: Qwen3VisionConfiguration) throws(WeightsError) {
    let name = "\(Qwen3VisionTower.prefix)blocks.\(index)"
    let (hidden, inner) = (configuration.hiddenSize, configuration.intermediateSize)
    self.configuration = configuration
    attentionNorm = try VisionNorm("\(name).norm1", reader, width: hidden)
    queryKeyValue = try reader.linear("\(name).attn.qkv", input: hidden, output: 3 * hidden)
    output = try reader.linear("\(name).attn.proj", input: hidden, output: hidden)
    mlpNorm = try VisionNorm("\(name).norm2", reader, width: hidden)
    up = try reader.linear("\(name).mlp.linear_fc1", input: hidden, output: inner)
    down = try reader.linear("\(name).mlp.linear_fc2", input: inner, output: hidden)
  }

  /// Advances the residual stream `x` [n, hidden] in place; the rows of each of `parts`, an image, attend to one
  /// another.
  func callAsFunction(_ x: inout Tensor, parts: [Range<Int>], rotary: RotaryTable, compute: Compute) {
    let hidden = configuration.hiddenSize, heads = configuration.headCount
    let qkv = compute.linear(attentionNorm(x, compute), queryKeyValue)
    var (q, k) = (compute.columns(0..<hidden, of: qkv), compute.columns(hidden..<2 * hidden, of: qkv))
    let v = compute.columns(2 * hidden..<3 * hidden, of: qkv)
    compute.headNormRotary(&q, heads: heads, normWeight: nil, epsilon: 0, rotary: rotary, style: .rotateHalf)
    compute.headNormRotary(&k, heads: heads, normWeight: nil, epsilon: 0, rotary: rotary, style: .rotateHalf)
    let attended = compute.attention(
      q: q, k: k, v: v, heads: heads, kvHeads: heads, headDim: configuration.headDim, within: parts)
    compute.linear(attended, output, addingTo: &x)
    compute.linear(compute.linear(mlpNorm(x, compute), up, activation: .geluTanh), down, addingTo: &x)
  }
}

/// The patches of a merged token → a row of the language model's width (transformers `Qwen3VLVisionPatchMerger`).
struct Qwen3VisionMerger: Sendable {
  /// What the norm is taken over.
  enum Normalised {
    case patches
    case mergedTokens
  }

  private let norm: VisionNorm
  private let normalises: Normalised
  private let hidden: Linear
  private let output: Linear

  init(
    _ name: String, _ reader: ModuleReader, _ configuration: Qwen3VisionConfiguration, normalises: Normalised
  ) throws(WeightsError) {
    let width = configuration.geometry.mergedPatches * configuration.hiddenSize
    self.normalises = normalises
    norm = try VisionNorm(
      "\(name).norm", reader, width: normalises == .patches ? configuration.hiddenSize : width)
    hidden = try reader.linear("\(name).linear_fc1", input: width, output: width)
    output = try reader.linear("\(name).linear_fc2", input: width, output: configuration.outputSize)
  }

  /// [patches, hidden] → [merged tokens, output width], fp32.
  func callAsFunction(_ x: Tensor, _ compute: Compute) -> Tensor {
    let shape: Shape = [x.elementCount / hidden.inFeatures, hidden.inFeatures]
    let merged = normalises == .patches ? norm(x, compute).reshaped(shape) : norm(x.reshaped(shape), compute)
    return compute.linear(compute.linear(merged, hidden, activation: .gelu), output, output: .fp32)
  }
}
