import Diffusion
import Kernels
import TensorCore
import Weights

/// The six modulation vectors of one stream of one block, each [inner] fp32. The order on disk is shift, scale, gate,
/// twice.
struct StreamModulation: Sendable {
  private let vectors: Tensor

  init(_ vectors: Tensor) { self.vectors = vectors.reshaped([6, vectors.elementCount / 6]) }

  var attentionShift: Tensor { vector(0) }
  var attentionScale: Tensor { vector(1) }
  var attentionGate: Tensor { vector(2) }
  var mlpShift: Tensor { vector(3) }
  var mlpScale: Tensor { vector(4) }
  var mlpGate: Tensor { vector(5) }

  private func vector(_ index: Int) -> Tensor { vectors.rows(index..<index + 1).reshaped([vectors.shape[1]]) }
}

/// Both streams' vectors of one block at one step.
struct BlockModulation: Sendable {
  let image: StreamModulation
  let text: StreamModulation
  /// The image stream's vectors at time 0; nil where condition images are modulated as the image that is made.
  let conditionImages: StreamModulation?
}

/// Everything in the transformer that depends on the timestep alone, for all steps of a schedule.
///
/// A third of the model's parameters serve only these vectors. They are computed in one pass over the schedule, so that
/// the modulation weights need not stay in memory while the steps run.
public struct ModulationTable: Sendable {
  /// Per block, a row [6 × inner] for each step and, if `hasTimeZero`, one for time 0.
  let image: [Tensor]
  let text: [Tensor]
  /// The model times the table was made for.
  let times: [Float]
  /// Whether condition images are modulated as at time 0.
  let hasTimeZero: Bool
  /// [rows, inner], for golden tests.
  let timeEmbedding: Tensor
  /// [rows, 2 × inner]: scale, then shift (the other way round than in the blocks); nil in control networks.
  let final: Tensor?

  /// Number of steps the table covers.
  public var stepCount: Int { times.count }

  func block(_ index: Int, step: Int) -> BlockModulation {
    BlockModulation(
      image: StreamModulation(image[index].rows(step..<step + 1)),
      text: StreamModulation(text[index].rows(step..<step + 1)),
      conditionImages: hasTimeZero ? StreamModulation(image[index].rows(stepCount..<stepCount + 1)) : nil)
  }

  /// The rows of `tensor` that the image stream takes its vectors from at one step.
  func imageRows(of tensor: Tensor, step: Int) -> Tensor {
    Tensor.stacking(([step] + (hasTimeZero ? [stepCount] : [])).map { tensor.rows($0..<$0 + 1) })
  }

  /// The vectors [inner] of the output norm at one step.
  func finalScaleAndShift(step: Int) -> (scale: Tensor, shift: Tensor) {
    guard let final else { preconditionFailure("a control network has no output norm") }
    let dim = final.shape[1] / 2
    let halves = final.rows(step..<step + 1).reshaped([2, dim])
    return (halves.rows(0..<1).reshaped([dim]), halves.rows(1..<2).reshaped([dim]))
  }
}

/// Timestep embedding and the modulation projections (diffusers `QwenTimestepProjEmbeddings`, `img_mod`, `txt_mod`,
/// `norm_out`).
struct TimestepModulation: Sendable {
  private var hidden: Linear
  private var output: Linear
  /// [1, inner], fp32: what is added to every embedding; nil: nothing.
  private let addition: Tensor?
  // Not packed and not in memory, except while a table is computed.
  private var blocks: [(image: LinearSource, text: LinearSource)]
  private var final: LinearSource?
  private let hasTimeZero: Bool

  /// Rows of the table of additional conditions, of which the first is for RGBA images, the only one in use.
  static let additionCount = 2

  /// - Parameter hasOutputNorm: whether the network ends in `norm_out`, as control networks do not.
  init(_ reader: ModuleReader, _ configuration: TransformerConfiguration, hasOutputNorm: Bool) throws(WeightsError) {
    let dim = configuration.innerDim
    func projection(_ name: String, _ outputs: Int) throws(WeightsError) -> LinearSource {
      try reader.source(ofLinear: name, input: dim, output: outputs)
    }
    hidden = try reader.linear(Self.hiddenName, input: TimestepSinusoid.width, output: dim)
    output = try reader.linear(Self.outputName, input: dim, output: dim)
    if configuration.useAdditionalTCond {
      let table = try reader.tensor("time_text_embed.addition_t_embedding.weight", [Self.additionCount, dim])
      addition = reader.compute.gatherRows(table, [0])
    } else {
      addition = nil
    }
    var blocks: [(image: LinearSource, text: LinearSource)] = []
    for index in 0..<configuration.layerCount {
      let names = Self.blockNames(index)
      blocks.append((try projection(names.image, 6 * dim), try projection(names.text, 6 * dim)))
    }
    self.blocks = blocks
    final = hasOutputNorm ? try projection(Self.finalName, 2 * dim) : nil
    hasTimeZero = configuration.zeroCondT
  }

  private static let hiddenName = "time_text_embed.timestep_embedder.linear_1"
  private static let outputName = "time_text_embed.timestep_embedder.linear_2"
  private static let finalName = "norm_out.linear"

  private static func blockNames(_ index: Int) -> (image: String, text: String) {
    ("transformer_blocks.\(index).img_mod.1", "transformer_blocks.\(index).txt_mod.1")
  }

  /// The same with what adapters add to the layers.
  func updated(by updates: LayerUpdates) -> TimestepModulation {
    var modulation = self
    modulation.hidden = updates(Self.hiddenName, hidden)
    modulation.output = updates(Self.outputName, output)
    modulation.blocks = blocks.enumerated().map { index, block in
      let names = Self.blockNames(index)
      return (image: updates(names.image, block.image), text: updates(names.text, block.text))
    }
    modulation.final = final.map { updates(Self.finalName, $0) }
    return modulation
  }

  /// Computes the table for model times `t` in [0, 1], one per step.
  func table(times: [Float], compute: Compute, isMemoryShort: Bool) -> ModulationTable {
    let embedding = embedding(hasTimeZero ? times + [0] : times, compute)
    let input = compute.silu(embedding)
    func project(_ source: LinearSource) -> Tensor {
      defer { source.releasePages(isMemoryShort: isMemoryShort) }
      return compute.linear(input, source.layer(compute), output: .fp32)
    }
    return ModulationTable(
      image: blocks.map { project($0.image) }, text: blocks.map { project($0.text) }, times: times,
      hasTimeZero: hasTimeZero, timeEmbedding: embedding, final: final.map(project))
  }

  /// [times, inner], fp32.
  private func embedding(_ times: [Float], _ compute: Compute) -> Tensor {
    let activated = compute.linear(TimestepSinusoid.rows(times), hidden, activation: .silu, output: .fp32)
    guard let addition else { return compute.linear(activated, output, output: .fp32) }
    var sum = compute.gatherRows(addition, Array(repeating: 0, count: times.count))
    compute.linear(activated, output, addingTo: &sum)
    return sum
  }
}
