import Diffusion
import Foundation
import Kernels
import TensorCore
import Weights

/// The vectors [inner], fp32, that tokens of one time are modulated with in every block.
struct ModulationVectors: Sendable {
  let attentionScale: Tensor
  /// Behind its hyperbolic tangent, as the other gate.
  let attentionGate: Tensor
  let mlpScale: Tensor
  let mlpGate: Tensor
}

/// Everything in the network that depends on the timestep alone: for all steps of a schedule, and for time 0, at which
/// text and references are modulated.
struct SharedModulationTable: Sendable {
  /// The model times of the steps.
  let times: [Float]
  /// A row for each step, and one for time 0, [rows, inner], for golden tests.
  let timeEmbedding: Tensor
  /// [rows, 4 × inner]: scale, gate, scale, gate, as they are computed.
  let raw: Tensor
  /// [4 × rows, inner]: the same, with gates behind their hyperbolic tangent.
  private let vectors: Tensor
  /// [rows, inner]: the scales of the output norm.
  private let outputScales: Tensor

  /// The row of time 0.
  var prefixRow: Int { times.count }

  init(times: [Float], timeEmbedding: Tensor, raw: Tensor, outputScales: Tensor) {
    self.times = times
    self.timeEmbedding = timeEmbedding
    self.raw = raw
    self.outputScales = outputScales
    let width = outputScales.shape[1], count = SharedModulation.vectorCount
    let values = raw.floats().enumerated().map { index, value in
      // Every other vector is a gate.
      index / width % 2 == 1 ? Float(tanh(Double(value))) : value
    }
    vectors = Tensor(values, shape: [count * (times.count + 1), width])
  }

  /// The vectors of a row.
  func vectors(row: Int) -> ModulationVectors {
    func vector(_ index: Int) -> Tensor {
      let place = SharedModulation.vectorCount * row + index
      return vectors.rows(place..<place + 1).reshaped([vectors.shape[1]])
    }
    return ModulationVectors(
      attentionScale: vector(0), attentionGate: vector(1), mlpScale: vector(2), mlpGate: vector(3))
  }

  /// The scale [inner] of the output norm of a row.
  func outputScale(row: Int) -> Tensor { outputScales.rows(row..<row + 1).reshaped([outputScales.shape[1]]) }

  /// The rows of `tensor` that one step uses: its own, and that of time 0.
  func rows(of tensor: Tensor, step: Int) -> Tensor {
    Tensor.stacking([step, prefixRow].map { tensor.rows($0..<$0 + 1) })
  }
}

/// Timestep embedding and the one modulation that all blocks share (diffusers `time_text_embed`, `modulation`,
/// `norm_out.linear`). No layer has a bias.
struct SharedModulation: Sendable {
  /// Vectors of a block: scale and gate of the attention, scale and gate of the MLP.
  static let vectorCount = 4

  private var hidden: Linear
  private var output: Linear
  // In memory only while a table is computed.
  private var blocks: LinearSource
  private var final: LinearSource

  init(_ reader: ModuleReader, _ configuration: SingleStreamConfiguration) throws(WeightsError) {
    let dim = configuration.innerDim
    hidden = try reader.linear(Self.hiddenName, input: TimestepSinusoid.width, output: dim, bias: false)
    output = try reader.linear(Self.outputName, input: dim, output: dim, bias: false)
    blocks = try reader.source(ofLinear: Self.blocksName, input: dim, output: Self.vectorCount * dim, bias: false)
    final = try reader.source(ofLinear: Self.finalName, input: dim, output: dim, bias: false)
  }

  private static let hiddenName = "time_text_embed.timestep_embedder.linear_1"
  private static let outputName = "time_text_embed.timestep_embedder.linear_2"
  private static let blocksName = "modulation.1"
  private static let finalName = "norm_out.linear"

  /// The same with what adapters add to the layers.
  func updated(by updates: LayerUpdates) -> SharedModulation {
    var modulation = self
    modulation.hidden = updates(Self.hiddenName, hidden)
    modulation.output = updates(Self.outputName, output)
    modulation.blocks = updates(Self.blocksName, blocks)
    modulation.final = updates(Self.finalName, final)
    return modulation
  }

  /// Computes the table for model times `times` in [0, 1], one per step.
  func table(times: [Float], compute: Compute, isMemoryShort: Bool) -> SharedModulationTable {
    let activated = compute.linear(
      TimestepSinusoid.rows(times + [0]), hidden, activation: .silu, output: .fp32)
    let embedding = compute.linear(activated, output, output: .fp32)
    let input = compute.silu(embedding)
    func project(_ source: LinearSource) -> Tensor {
      defer { source.releasePages(isMemoryShort: isMemoryShort) }
      return compute.linear(input, source.layer(compute), output: .fp32)
    }
    return SharedModulationTable(
      times: times, timeEmbedding: embedding, raw: project(blocks), outputScales: project(final))
  }
}
