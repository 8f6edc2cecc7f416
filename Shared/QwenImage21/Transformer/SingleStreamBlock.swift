import Diffusion
import Kernels
import TensorCore
import Weights

/// One block of the single-stream transformer: attention over the joint sequence, then an MLP with a gated hidden layer
/// (diffusers `QwenImage21TransformerBlock`). No layer has a bias.
struct SingleStreamBlock: Sendable {
  private let index: Int
  private var query: Linear
  private var key: Linear
  private var value: Linear
  private var output: Linear
  private let queryNorm: Tensor
  private let keyNorm: Tensor
  private var mlpGate: Linear
  private var mlpUp: Linear
  private var mlpOut: Linear
  private let configuration: SingleStreamConfiguration
  /// [inner], fp32: nothing is shifted.
  private let zeros: Tensor

  /// Keys, behind norm and rotation, and values [n, inner] of tokens that follow one another.
  struct KeysAndValues: Sendable {
    let keys: Tensor
    let values: Tensor
  }

  /// Tokens of one sequence that take part in a pass.
  struct Span {
    /// Their rows of the pass.
    let rows: Range<Int>
    /// Parts of `rows` that follow one another, with the vectors of their time.
    let modulation: [(rows: Range<Int>, vectors: ModulationVectors)]
    /// Tables of the tokens.
    let rotary: RotaryTable
    /// What the tokens before them left in each block; nil: there are none.
    let before: PrefixCache?
    /// Parts of the tokens, counted from the first one, that follow one another. All see the tokens before the span and
    /// those up to the end of their part, or, where it is causal, up to themselves.
    let visibility: [(tokens: Range<Int>, isCausal: Bool)]
  }

  init(_ index: Int, _ reader: ModuleReader, _ configuration: SingleStreamConfiguration) throws(WeightsError) {
    let prefix = "transformer_blocks.\(index)", dim = configuration.innerDim
    func linear(_ name: LayerName, input: Int, output: Int) throws(WeightsError) -> Linear {
      try reader.linear(name.path(index), input: input, output: output, bias: false)
    }
    self.index = index
    self.configuration = configuration
    query = try linear(.query, input: dim, output: dim)
    key = try linear(.key, input: dim, output: dim)
    value = try linear(.value, input: dim, output: dim)
    output = try linear(.output, input: dim, output: dim)
    queryNorm = try reader.tensor("\(prefix).attn.norm_q.weight", [configuration.headDim])
    keyNorm = try reader.tensor("\(prefix).attn.norm_k.weight", [configuration.headDim])
    mlpGate = try linear(.mlpGate, input: dim, output: configuration.mlpDim)
    mlpUp = try linear(.mlpUp, input: dim, output: configuration.mlpDim)
    mlpOut = try linear(.mlpOut, input: configuration.mlpDim, output: dim)
    zeros = Tensor.zeros([dim])
  }

  /// The names of a block's layers.
  enum LayerName: String {
    case query = "attn.to_q"
    case key = "attn.to_k"
    case value = "attn.to_v"
    case output = "attn.to_out.0"
    case mlpGate = "img_mlp.gate_layer"
    case mlpUp = "img_mlp.proj"
    case mlpOut = "img_mlp.out"
    /// Gate and projection as one, as other programs keep them.
    case mlpGateAndUp = "img_mlp.gate_up"

    /// The name in the network, of the block `index`.
    func path(_ index: Int) -> String { "transformer_blocks.\(index).\(rawValue)" }
  }

  /// The block with what adapters add to its layers.
  func updated(by updates: LayerUpdates) -> SingleStreamBlock {
    func updated(_ name: LayerName, _ layer: Linear) -> Linear { updates(name.path(index), layer) }
    var block = self
    block.query = updated(.query, query)
    block.key = updated(.key, key)
    block.value = updated(.value, value)
    block.output = updated(.output, output)
    block.mlpGate = updated(.mlpGate, mlpGate)
    block.mlpUp = updated(.mlpUp, mlpUp)
    block.mlpOut = updated(.mlpOut, mlpOut)
    return block
  }

  /// Updates the tokens of all spans.
  ///
  /// - Parameters:
  ///   - x: the tokens [ΣN, inner], fp32, in the order of the spans.
  ///   - updatesTokens: false in the last block where only keys and values are needed.
  ///   - probe: meant for a single span.
  /// - Returns: for each span keys and values of the tokens before it and of its own.
  @discardableResult func callAsFunction(
    _ x: inout Tensor, _ spans: [Span], updatesTokens: Bool = true, compute: Compute, probe: Probe
  ) -> [KeysAndValues] {
    let parts = spans.flatMap(\.modulation)
    let input = SharedRows(modulated(x, parts.map { ($0.rows, $0.vectors.attentionScale) }, compute))
    let keys = projected(input, key, keyNorm, spans, compute) { $0.before?.layers[index].keys }
    let values = projected(input, value, nil, spans, compute) { $0.before?.layers[index].values }
    let all = zip(keys, values).map { KeysAndValues(keys: $0, values: $1) }
    guard updatesTokens else { return all }

    let queries = projected(input, query, queryNorm, spans, compute) { _ in nil }
    let attended = Tensor.stacking(
      spans.indices.flatMap { attention(queries[$0], all[$0], spans[$0].visibility, compute) })
    probe.record("block.\(index).attn", compute.linear(attended, output, output: .fp32))
    compute.linear(attended, output, addingTo: &x, gates: parts.map { ($0.rows, $0.vectors.attentionGate) })
    mlp(&x, parts, compute, probe)
    probe.record("block.\(index)", x)
    return all
  }

  /// softmax(q kᵀ / √d) v of the parts of a span.
  private func attention(
    _ queries: Tensor, _ all: KeysAndValues, _ visibility: [(tokens: Range<Int>, isCausal: Bool)], _ compute: Compute
  ) -> [Tensor] {
    let before = all.keys.shape[0] - queries.shape[0]
    return visibility.map { part in
      let seen = 0..<before + part.tokens.upperBound
      return compute.attention(
        q: queries.rows(part.tokens), k: all.keys.rows(seen), v: all.values.rows(seen), heads: configuration.headCount,
        kvHeads: configuration.headCount, headDim: configuration.headDim, causal: part.isCausal)
    }
  }

  /// Queries, keys or values of each span's tokens, behind those of the tokens before it; with a norm, the heads of its
  /// own are normed and rotated.
  private func projected(
    _ input: SharedRows, _ layer: Linear, _ norm: Tensor?, _ spans: [Span], _ compute: Compute,
    before: (Span) -> Tensor?
  ) -> [Tensor] {
    func project(_ spans: [(rows: Range<Int>, rotary: RotaryTable)], into result: inout MutableTensor, from start: Int)
    {
      compute.linear(input, layer, into: &result, rowsFrom: start)
      guard let norm else { return }
      for (rows, rotary) in spans {
        compute.headNormRotary(
          &result, rows: start + rows.lowerBound..<start + rows.upperBound, heads: configuration.headCount,
          normWeight: norm, epsilon: Float(configuration.normEpsilon), rotary: rotary, style: .interleaved)
      }
    }
    // The rows of a single span go to their places at once.
    let cached = spans.count == 1 ? before(spans[0]) : nil, start = cached?.shape[0] ?? 0
    var result = MutableTensor(
      uninitialized: [start + input.rows.shape[0], configuration.innerDim], compute.activationDType)
    if let cached { result.copy(cached, toRowsFrom: 0) }
    project(spans.map { ($0.rows, $0.rotary) }, into: &result, from: start)
    let rows = result.finish()
    guard spans.count > 1 else { return [rows] }
    return spans.map { span in Tensor.stacking((before(span).map { [$0] } ?? []) + [rows.rows(span.rows)]) }
  }

  private func mlp(
    _ x: inout Tensor, _ parts: [(rows: Range<Int>, vectors: ModulationVectors)], _ compute: Compute, _ probe: Probe
  ) {
    let input = SharedRows(modulated(x, parts.map { ($0.rows, $0.vectors.mlpScale) }, compute))
    let hidden = compute.siluMultiply(compute.linear(input, mlpGate), compute.linear(input, mlpUp))
    probe.record("block.\(index).mlp", compute.linear(hidden, mlpOut, output: .fp32))
    compute.linear(hidden, mlpOut, addingTo: &x, gates: parts.map { ($0.rows, $0.vectors.mlpGate) })
  }

  private func modulated(_ x: Tensor, _ parts: [(rows: Range<Int>, scale: Tensor)], _ compute: Compute) -> Tensor {
    compute.scaledLayerNorm(x, parts, zeros: zeros, epsilon: Float(configuration.normEpsilon))
  }
}

extension Compute {
  /// LayerNorm without affine, then ·(1 + scale), of parts of x [n, D] that follow one another; `zeros` [D] is 0.
  func scaledLayerNorm(
    _ x: Tensor, _ parts: [(rows: Range<Int>, scale: Tensor)], zeros: Tensor, epsilon: Float
  ) -> Tensor {
    var result = MutableTensor(uninitialized: x.shape, activationDType)
    for part in parts {
      layerNormModulate(
        x.rows(part.rows), shift: zeros, scale: part.scale, epsilon: epsilon, into: &result,
        rowsFrom: part.rows.lowerBound)
    }
    return result.finish()
  }
}

/// What the tokens before the image that is made leave in every block. They are modulated at time 0 and never see the
/// image, so that it is the same in all steps.
public struct PrefixCache: Sendable {
  /// For each block.
  let layers: [SingleStreamBlock.KeysAndValues]

  /// Bytes of all keys and values.
  public var byteCount: Int { layers.reduce(0) { $0 + $1.keys.byteCount + $1.values.byteCount } }

  /// The keys of a block [tokens, inner], behind norm and rotation.
  public func keys(block: Int) -> Tensor { layers[block].keys }
  /// The values of a block [tokens, inner].
  public func values(block: Int) -> Tensor { layers[block].values }
}
