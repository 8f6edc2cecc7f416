import Diffusion
import Kernels
import TensorCore
import Weights

/// The language model of Qwen3-VL without its output head and the norm before it: token ids in, hidden states of the
/// last layer out (transformers `Qwen3VLTextModel`).
public struct Qwen3LanguageModel: Sendable {
  /// The checkpoint's configuration.
  public let configuration: Qwen3TextConfiguration
  let decoder: CausalDecoder<Qwen3DecoderLayer>

  /// The rules of the text encoder: layers are quantised, all but the first. The vision tower stays in bf16.
  public static let layers = LayerPrecision(
    version: 1, repeated: ["\(prefix)layers."], modulations: [], rotatesInputs: true)
  fileprivate static let prefix = "model.language_model."

  /// Reads the language model's weights from `text_encoder/`; the vision tower, `lm_head` and the final norm are left
  /// in the file.
  ///
  /// - Parameter residentMax: bytes of mapped weights that may stay in memory; nil: all.
  /// - Throws: `WeightsError` naming the file and tensor that is missing, misshapen or unexpected.
  public init(
    _ weights: ComponentWeights, configuration: Qwen3TextConfiguration, compute: Compute,
    layers rules: LayerPrecision = Self.layers, residentMax: Int? = nil
  ) throws(WeightsError) {
    let reader = ModuleReader(weights, compute: compute, layers: rules)
    self.configuration = configuration
    let embedding = try reader.table(
      "\(Self.prefix)embed_tokens.weight", [configuration.vocabularySize, configuration.hiddenSize])
    var layers: [Qwen3DecoderLayer] = []
    for index in 0..<configuration.layerCount { layers.append(try Qwen3DecoderLayer(index, reader, configuration)) }
    let streaming = residentMax.flatMap { max in
      WeightStreaming(layers.indices.map { reader.mapped(prefix: "\(Self.prefix)layers.\($0).") }, residentMax: max)
    }
    try reader.finish(ignoring: Qwen3TextConfiguration.isUnused)
    decoder = CausalDecoder(
      compute: compute, embedding: embedding, layers: layers, finalNorm: nil, streaming: streaming
    ) {
      RotaryTable(positions: $0, axes: configuration.rotaryAxes, theta: configuration.ropeTheta)
    }
  }

  /// The arithmetic the network runs on.
  public var compute: Compute { decoder.compute }
  /// For weights that do not all fit into memory; nil: they do.
  public var streaming: WeightStreaming? { decoder.streaming }

  /// Runs the model over the tokens `ids`, at least one, for sequences that begin with them.
  public func prefix(_ ids: [Int]) -> DecoderPrefix { decoder.prefix(TokenSequence(ids), after: nil).prefix }

  /// Runs the model over several sequences of text in one pass.
  ///
  /// - Parameters:
  ///   - sequences: token ids of each, below the vocabulary's size, without those of `prefix`.
  ///   - prefix: the tokens, without images, that all of them begin with; nil: none.
  /// - Returns: per sequence the hidden states of the last layer, [n, hidden], fp32: the same bytes as alone and
  ///   without a prefix.
  public func callAsFunction(
    _ sequences: [[Int]], after prefix: DecoderPrefix? = nil, probe: Probe = .none
  ) -> [Tensor] {
    decoder.run(sequences.map { TokenSequence($0, from: prefix?.ids.count ?? 0) }, after: prefix, probe: probe)
  }

  /// One layer behind the embedding, to be timed by itself.
  @_spi(Benchmarks) public func runLayer(_ index: Int, _ ids: [Int]) -> Tensor {
    decoder.run([TokenSequence(ids)], after: nil, range: index..<index + 1)[0]
  }
}

/// One decoder layer: causal grouped-query attention whose queries and keys are normalised by head, and a gated MLP
/// (transformers `Qwen3VLTextDecoderLayer`).
struct Qwen3DecoderLayer: CausalDecoderLayer {
  private let configuration: Qwen3TextConfiguration
  private let isFirst: Bool
  private let inputNorm: Tensor
  private let query: Linear
  private let key: Linear
  private let value: Linear
  private let queryNorm: Tensor
  private let keyNorm: Tensor
  private let output: Linear
  private let mlpNorm: Tensor
  private let gate: Linear
  private let up: Linear
  private let down: Linear

  init(_ index: Int, _ reader: ModuleReader, _ configuration: Qwen3TextConfiguration) throws(WeightsError) {
    let prefix = "\(Qwen3LanguageModel.prefix)layers.\(index)"
    let (hidden, inner, headDim) = (configuration.hiddenSize, configuration.intermediateSize, configuration.headDim)
    let (queryDim, keyDim) = (configuration.headCount * headDim, configuration.keyValueHeadCount * headDim)
    func linear(_ name: String, _ input: Int, _ output: Int) throws(WeightsError) -> Linear {
      try reader.linear("\(prefix).\(name)", input: input, output: output, bias: false)
    }
    self.configuration = configuration
    isFirst = index == 0
    inputNorm = try reader.tensor("\(prefix).input_layernorm.weight", [hidden])
    query = try linear("self_attn.q_proj", hidden, queryDim)
    key = try linear("self_attn.k_proj", hidden, keyDim)
    value = try linear("self_attn.v_proj", hidden, keyDim)
    queryNorm = try reader.tensor("\(prefix).self_attn.q_norm.weight", [headDim])
    keyNorm = try reader.tensor("\(prefix).self_attn.k_norm.weight", [headDim])
    output = try linear("self_attn.o_proj", queryDim, hidden)
    mlpNorm = try reader.tensor("\(prefix).post_attention_layernorm.weight", [hidden])
    gate = try linear("mlp.gate_proj", hidden, inner)
    up = try linear("mlp.up_proj", hidden, inner)
    down = try linear("mlp.down_proj", inner, hidden)
  }

  func callAsFunction(
    _ x: inout Tensor, _ pass: DecoderPass, probe: Probe, remember: (_ keys: Tensor, _ values: Tensor) -> Void
  ) {
    let (compute, rotary) = (pass.compute, pass.rotary), epsilon = Float(configuration.rmsNormEpsilon)
    if isFirst { probe.record(rotary) }
    let a = SharedRows(compute.rmsNorm(x, weight: inputNorm, epsilon: epsilon))
    var (q, k) = (compute.linear(a, query), compute.linear(a, key))
    let v = compute.linear(a, value)
    compute.headNormRotary(
      &q, heads: configuration.headCount, normWeight: queryNorm, epsilon: epsilon, rotary: rotary, style: .rotateHalf)
    compute.headNormRotary(
      &k, heads: configuration.keyValueHeadCount, normWeight: keyNorm, epsilon: epsilon, rotary: rotary,
      style: .rotateHalf)
    remember(k, v)
    let attended = pass.attention(
      q: q, k: k, v: v, heads: configuration.headCount, kvHeads: configuration.keyValueHeadCount,
      headDim: configuration.headDim)
    if isFirst { probe.record("layer.0.attn", compute.linear(attended, output, output: .fp32)) }
    compute.linear(attended, output, addingTo: &x)

    let m = SharedRows(compute.rmsNorm(x, weight: mlpNorm, epsilon: epsilon))
    compute.linear(compute.siluMultiply(compute.linear(m, gate), compute.linear(m, up)), down, addingTo: &x)
  }
}

extension Probe {
  /// Records rotary tables as the reference has them: for all channels of a head, of which those that turn together
  /// have the same angles.
  func record(_ rotary: RotaryTable) {
    func doubled(_ table: Tensor) -> Tensor {
      let width = table.shape[1], values = table.floats()
      let rows = (0..<table.shape[0]).map { values[$0 * width..<($0 + 1) * width] }
      return Tensor(rows.flatMap { $0 + $0 }, shape: [table.shape[0], 2 * width])
    }
    record("rope.cos", doubled(rotary.cos))
    record("rope.sin", doubled(rotary.sin))
  }
}
