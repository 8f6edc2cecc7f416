import Diffusion
import Kernels
import TensorCore
import Weights

/// The language model of Qwen2.5-VL without its output head: token ids in, final hidden states out (transformers
/// `Qwen2_5_VLTextModel`).
public struct LanguageModel: Sendable {
  /// The checkpoint's configuration.
  public let configuration: TextEncoderConfiguration
  let decoder: CausalDecoder<DecoderLayer>

  /// Reads the language model's weights from `text_encoder/`; the vision tower and `lm_head` are left in the file.
  ///
  /// - Parameter residentMax: bytes of mapped weights that may stay in memory; nil: all.
  /// - Throws: `WeightsError` naming the file and tensor that is missing, misshapen or unexpected.
  public init(
    _ weights: ComponentWeights, configuration: TextEncoderConfiguration, compute: Compute, residentMax: Int? = nil
  ) throws(WeightsError) {
    let reader = ModuleReader(weights, compute: compute, layers: QwenImageFamily.layers)
    self.configuration = configuration
    let embedding = try reader.table(
      "model.embed_tokens.weight", [configuration.vocabularySize, configuration.hiddenSize])
    var layers: [DecoderLayer] = []
    for index in 0..<configuration.layerCount { layers.append(try DecoderLayer(index, reader, configuration)) }
    let finalNorm = try reader.tensor("model.norm.weight", [configuration.hiddenSize])
    let streaming = residentMax.flatMap { max in
      WeightStreaming(layers.indices.map { reader.mapped(prefix: "model.layers.\($0).") }, residentMax: max)
    }
    try reader.finish(ignoring: TextEncoderConfiguration.isUnused)
    decoder = CausalDecoder(
      compute: compute, embedding: embedding, layers: layers,
      finalNorm: (finalNorm, Float(configuration.rmsNormEpsilon)), streaming: streaming
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

  /// Runs the model over one sequence.
  ///
  /// - Parameter ids: token ids, each below the vocabulary's size.
  /// - Returns: the hidden states after the final norm, [n, hidden], fp32.
  public func callAsFunction(_ ids: [Int], probe: Probe = .none) -> Tensor {
    decoder.run([TokenSequence(ids)], after: nil, probe: probe)[0]
  }

  /// Runs the model over several sequences of text in one pass.
  ///
  /// - Parameters:
  ///   - sequences: token ids of each, without those of `prefix`.
  ///   - prefix: the tokens, without images, that all of them begin with.
  /// - Returns: per sequence the hidden states after the final norm, [n, hidden], fp32: the same bytes as alone and
  ///   without a prefix.
  public func callAsFunction(_ sequences: [[Int]], after prefix: DecoderPrefix) -> [Tensor] {
    decoder.run(sequences.map { TokenSequence($0, from: prefix.ids.count) }, after: prefix)
  }

  /// One layer between embedding and final norm, to be timed by itself.
  @_spi(Benchmarks) public func runLayer(_ index: Int, _ sequences: [[Int]], after prefix: DecoderPrefix? = nil)
    -> [Tensor]
  {
    decoder.run(
      sequences.map { TokenSequence($0, from: prefix?.ids.count ?? 0) }, after: prefix, range: index..<index + 1)
  }
}

/// One decoder layer: causal grouped-query attention and a gated MLP (transformers `Qwen2_5_VLDecoderLayer`).
struct DecoderLayer: CausalDecoderLayer {
  private let configuration: TextEncoderConfiguration
  private let inputNorm: Tensor
  private let query: Linear
  private let key: Linear
  private let value: Linear
  private let output: Linear
  private let mlpNorm: Tensor
  private let gate: Linear
  private let up: Linear
  private let down: Linear

  init(_ index: Int, _ reader: ModuleReader, _ configuration: TextEncoderConfiguration) throws(WeightsError) {
    let prefix = "model.layers.\(index)"
    let (hidden, inner) = (configuration.hiddenSize, configuration.intermediateSize)
    let (queryDim, keyDim) = (
      configuration.headCount * configuration.headDim, configuration.keyValueHeadCount * configuration.headDim
    )
    self.configuration = configuration
    inputNorm = try reader.tensor("\(prefix).input_layernorm.weight", [hidden])
    query = try reader.linear("\(prefix).self_attn.q_proj", input: hidden, output: queryDim)
    key = try reader.linear("\(prefix).self_attn.k_proj", input: hidden, output: keyDim)
    value = try reader.linear("\(prefix).self_attn.v_proj", input: hidden, output: keyDim)
    output = try reader.linear("\(prefix).self_attn.o_proj", input: queryDim, output: hidden, bias: false)
    mlpNorm = try reader.tensor("\(prefix).post_attention_layernorm.weight", [hidden])
    gate = try reader.linear("\(prefix).mlp.gate_proj", input: hidden, output: inner, bias: false)
    up = try reader.linear("\(prefix).mlp.up_proj", input: hidden, output: inner, bias: false)
    down = try reader.linear("\(prefix).mlp.down_proj", input: inner, output: hidden, bias: false)
  }

  func callAsFunction(
    _ x: inout Tensor, _ pass: DecoderPass, probe: Probe, remember: (_ keys: Tensor, _ values: Tensor) -> Void
  ) {
    let (compute, rotary) = (pass.compute, pass.rotary)
    let epsilon = Float(configuration.rmsNormEpsilon)
    let a = SharedRows(compute.rmsNorm(x, weight: inputNorm, epsilon: epsilon))
    var (q, k) = (compute.linear(a, query), compute.linear(a, key))
    let v = compute.linear(a, value)
    compute.headNormRotary(
      &q, heads: configuration.headCount, normWeight: nil, epsilon: epsilon, rotary: rotary, style: .rotateHalf)
    compute.headNormRotary(
      &k, heads: configuration.keyValueHeadCount, normWeight: nil, epsilon: epsilon, rotary: rotary, style: .rotateHalf)
    remember(k, v)
    let attended = pass.attention(
      q: q, k: k, v: v, heads: configuration.headCount, kvHeads: configuration.keyValueHeadCount,
      headDim: configuration.headDim)
    compute.linear(attended, output, addingTo: &x)

    let m = SharedRows(compute.rmsNorm(x, weight: mlpNorm, epsilon: epsilon))
    compute.linear(compute.siluMultiply(compute.linear(m, gate), compute.linear(m, up)), down, addingTo: &x)
  }
}
