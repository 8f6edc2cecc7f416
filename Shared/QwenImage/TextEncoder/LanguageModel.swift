import Diffusion
import Foundation
import Kernels
import TensorCore
import Weights

/// The language model of Qwen2.5-VL without its output head: token ids in, final hidden states out (transformers
/// `Qwen2_5_VLTextModel`).
public struct LanguageModel: Sendable {
  /// The checkpoint's configuration.
  public let configuration: TextEncoderConfiguration
  /// The arithmetic the network runs on.
  public let compute: Compute
  private let embedding: Tensor
  private let layers: [DecoderLayer]
  private let finalNorm: Tensor
  /// For weights that do not all fit into memory; nil: they do.
  public let streaming: WeightStreaming?

  /// Reads the language model's weights from `text_encoder/`; the vision tower and `lm_head` are left in the file.
  ///
  /// - Parameter residentMax: bytes of mapped weights that may stay in memory; nil: all.
  /// - Throws: `WeightsError` naming the file and tensor that is missing, misshapen or unexpected.
  public init(
    _ weights: ComponentWeights, configuration: TextEncoderConfiguration, compute: Compute, residentMax: Int? = nil
  ) throws(WeightsError) {
    let reader = ModuleReader(weights, compute: compute, layers: QwenImageFamily.layers)
    self.configuration = configuration
    self.compute = compute
    embedding = try reader.tensor(
      "model.embed_tokens.weight", [configuration.vocabularySize, configuration.hiddenSize])
    var layers: [DecoderLayer] = []
    for index in 0..<configuration.layerCount { layers.append(try DecoderLayer(index, reader, configuration)) }
    self.layers = layers
    finalNorm = try reader.tensor("model.norm.weight", [configuration.hiddenSize])
    streaming = residentMax.flatMap { max in
      WeightStreaming(layers.indices.map { reader.mapped(prefix: "model.layers.\($0).") }, residentMax: max)
    }
    try reader.finish(ignoring: TextEncoderConfiguration.isUnused)
  }

  /// What every layer's attention remembers of the tokens that several sequences begin with.
  public struct Prefix: Sendable {
    /// The tokens.
    public let ids: [Int]
    /// Per layer [ids.count, kv heads × head dim], rotated.
    let keys: [Tensor]
    let values: [Tensor]

    /// Size in memory.
    var byteCount: Int { (keys + values).reduce(0) { $0 + $1.byteCount } }
  }

  /// Runs the model over the tokens `ids`, at least one, for sequences that begin with them.
  public func prefix(_ ids: [Int]) -> Prefix { prefix(TokenSequence(ids), after: nil).prefix }

  /// Runs the model over a sequence, at least one token, for sequences that continue it.
  ///
  /// - Parameter earlier: the tokens before `sequence`, if any.
  /// - Returns: what is remembered of `earlier` and the sequence, and the sequence's hidden states after the final
  ///   norm.
  func prefix(_ sequence: TokenSequence, after earlier: Prefix?) -> (prefix: Prefix, hidden: Tensor) {
    var keys: [Tensor] = [], values: [Tensor] = []
    let hidden = run([sequence], after: earlier, probe: .none) { layerKeys, layerValues in
      keys.append(Tensor.stacking((earlier.map { [$0.keys[keys.count]] } ?? []) + [layerKeys]))
      values.append(Tensor.stacking((earlier.map { [$0.values[values.count]] } ?? []) + [layerValues]))
    }
    return (Prefix(ids: (earlier?.ids ?? []) + sequence.ids, keys: keys, values: values), hidden[0])
  }

  /// Runs the model over one sequence.
  ///
  /// - Parameter ids: token ids, each below the vocabulary's size.
  /// - Returns: the hidden states after the final norm, [n, hidden], fp32.
  public func callAsFunction(_ ids: [Int], probe: Probe = .none) -> Tensor { self(TokenSequence(ids), probe: probe) }

  /// Runs the model over one sequence.
  ///
  /// - Returns: the hidden states after the final norm, [n, hidden], fp32.
  func callAsFunction(_ sequence: TokenSequence, probe: Probe = .none) -> Tensor {
    run([sequence], after: nil, probe: probe)[0]
  }

  /// Runs the model over several sequences of text in one pass: weights are read once, which is what short sequences
  /// wait for.
  ///
  /// - Parameters:
  ///   - sequences: token ids of each, without those of `prefix`.
  ///   - prefix: the tokens, without images, that all of them begin with.
  /// - Returns: per sequence the hidden states after the final norm, [n, hidden], fp32: the same bytes as alone and
  ///   without a prefix.
  public func callAsFunction(_ sequences: [[Int]], after prefix: Prefix) -> [Tensor] {
    self(sequences.map { TokenSequence($0, from: prefix.ids.count) }, after: prefix)
  }

  /// Runs the model over several sequences in one pass.
  ///
  /// - Parameters:
  ///   - sequences: without the tokens of `prefix`.
  ///   - prefix: what all of them begin with.
  /// - Returns: per sequence the hidden states after the final norm, [n, hidden], fp32: the same bytes as alone and
  ///   without a prefix.
  func callAsFunction(_ sequences: [TokenSequence], after prefix: Prefix) -> [Tensor] {
    run(sequences, after: prefix, probe: .none)
  }

  /// One layer between embedding and final norm, to be timed by itself.
  @_spi(Benchmarks) public func runLayer(_ index: Int, _ sequences: [[Int]], after prefix: Prefix? = nil) -> [Tensor] {
    run(
      sequences.map { TokenSequence($0, from: prefix?.ids.count ?? 0) }, after: prefix, range: index..<index + 1,
      probe: .none)
  }

  private func run(
    _ sequences: [TokenSequence], after prefix: Prefix?, range: Range<Int>? = nil, probe: Probe,
    remember: (_ keys: Tensor, _ values: Tensor) -> Void = { _, _ in }
  ) -> [Tensor] {
    var parts: [Range<Int>] = []
    for sequence in sequences {
      parts.append((parts.last?.upperBound ?? 0)..<(parts.last?.upperBound ?? 0) + sequence.ids.count)
    }
    var x = embed(sequences, parts)
    probe.record("inputs_embeds", x)
    let positions = sequences.flatMap(\.positions)
    probe.record("position_ids", TokenSequence.tensor(of: positions))
    let rotary = Self.rotary(configuration, positions: positions)
    for index in range ?? layers.indices {
      let past = prefix.map { (keys: $0.keys[index], values: $0.values[index]) }
      layers[index](&x, parts: parts, past: past, rotary: rotary, compute: compute, remember: remember)
      streaming?.ended(index)
      probe.record("layer.\(index)", x)
    }
    let hidden = compute.rmsNorm(x, weight: finalNorm, epsilon: Float(configuration.rmsNormEpsilon), output: .fp32)
    probe.record("last_hidden_state", hidden)
    return parts.map { hidden.rows($0) }
  }

  /// The rows of the embedding table, and those of images in their places: [n, hidden], fp32.
  private func embed(_ sequences: [TokenSequence], _ parts: [Range<Int>]) -> Tensor {
    let ids = sequences.flatMap(\.ids)
    precondition(ids.allSatisfy { (0..<configuration.vocabularySize).contains($0) }, "token id outside the vocabulary")
    var x = compute.gatherRows(embedding, ids)
    guard sequences.contains(where: { !$0.images.isEmpty }) else { return x }
    x.withMutableTensor { x in
      for (sequence, part) in zip(sequences, parts) {
        for image in sequence.images { x.copy(image.rows, toRowsFrom: part.lowerBound + image.start) }
      }
    }
    return x
  }

  /// Tables for tokens at `positions` (M-RoPE): the first frequencies turn by the time, the next ones by the row, the
  /// last ones by the column. Text has the same position on all three axes, which makes it ordinary RoPE.
  static func rotary(
    _ configuration: TextEncoderConfiguration, positions: [TokenSequence.Position]
  ) -> RotaryTable {
    let half = configuration.headDim / 2
    let axes = configuration.mropeSection.enumerated().flatMap { Array(repeating: $0.offset, count: $0.element) }
    let frequencies = (0..<half).map {
      1 / Float(pow(configuration.ropeTheta, Double(Float(2 * $0) / Float(2 * half))))
    }
    var (cosines, sines) = ([Float](), [Float]())
    for position in positions {
      for (frequency, axis) in zip(frequencies, axes) {
        let angle = Double(Float(position[axis]) * frequency)
        cosines.append(Float(cos(angle)))
        sines.append(Float(sin(angle)))
      }
    }
    return RotaryTable(
      cos: Tensor(cosines, shape: [positions.count, half]), sin: Tensor(sines, shape: [positions.count, half]))
  }
}

/// One decoder layer: causal grouped-query attention and a gated MLP (transformers `Qwen2_5_VLDecoderLayer`).
struct DecoderLayer: Sendable {
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

  /// Advances the residual stream `x` [n, hidden] in place.
  ///
  /// - Parameters:
  ///   - parts: the rows of each sequence.
  ///   - past: keys and values of the tokens before every sequence, rotated.
  ///   - remember: receives the keys and values of `x`, rotated.
  func callAsFunction(
    _ x: inout Tensor, parts: [Range<Int>], past: (keys: Tensor, values: Tensor)?, rotary: RotaryTable,
    compute: Compute,
    remember: (_ keys: Tensor, _ values: Tensor) -> Void
  ) {
    let epsilon = Float(configuration.rmsNormEpsilon)
    let a = compute.rmsNorm(x, weight: inputNorm, epsilon: epsilon)
    var (q, k) = (compute.linear(a, query), compute.linear(a, key))
    let v = compute.linear(a, value)
    compute.headNormRotary(
      &q, heads: configuration.headCount, normWeight: nil, epsilon: epsilon, rotary: rotary, style: .rotateHalf)
    compute.headNormRotary(
      &k, heads: configuration.keyValueHeadCount, normWeight: nil, epsilon: epsilon, rotary: rotary, style: .rotateHalf)
    remember(k, v)
    let attended = parts.map { rows in
      var (keys, values) = (k.rows(rows), v.rows(rows))
      if let past { (keys, values) = (Tensor.stacking([past.keys, keys]), Tensor.stacking([past.values, values])) }
      return compute.attention(
        q: q.rows(rows), k: keys, v: values, heads: configuration.headCount, kvHeads: configuration.keyValueHeadCount,
        headDim: configuration.headDim, causal: true)
    }
    compute.linear(Tensor.stacking(attended), output, addingTo: &x)

    let m = compute.rmsNorm(x, weight: mlpNorm, epsilon: epsilon)
    compute.linear(compute.siluMultiply(compute.linear(m, gate), compute.linear(m, up)), down, addingTo: &x)
  }
}
