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

  /// Reads the language model's weights from `text_encoder/`; the vision tower and `lm_head` are left in the file.
  ///
  /// - Throws: `WeightsError` naming the file and tensor that is missing, misshapen or unexpected.
  public init(_ weights: ComponentWeights, configuration: TextEncoderConfiguration, compute: Compute) throws(WeightsError) {
    let reader = ModuleReader(weights, compute: compute)
    self.configuration = configuration
    self.compute = compute
    embedding = try reader.tensor("model.embed_tokens.weight", [configuration.vocabularySize, configuration.hiddenSize])
    var layers: [DecoderLayer] = []
    for index in 0..<configuration.layerCount { layers.append(try DecoderLayer(index, reader, configuration)) }
    self.layers = layers
    finalNorm = try reader.tensor("model.norm.weight", [configuration.hiddenSize])
    try reader.finish(ignoring: TextEncoderConfiguration.isUnused)
  }

  /// Runs the model over one sequence.
  ///
  /// - Parameter ids: token ids, each below the vocabulary's size.
  /// - Returns: the hidden states after the final norm, [n, hidden], fp32.
  public func callAsFunction(_ ids: [Int], probe: Probe = .none) -> Tensor {
    precondition(ids.allSatisfy { (0..<configuration.vocabularySize).contains($0) }, "token id outside the vocabulary")
    var x = compute.gatherRows(embedding, ids)
    probe.record("inputs_embeds", x.copied())
    probe.record("position_ids", Tensor((0..<3 * ids.count).map { Float($0 % ids.count) }, shape: [3, ids.count]))
    let rotary = Self.rotary(configuration, count: ids.count)
    for (index, layer) in layers.enumerated() {
      layer(&x, rotary: rotary, compute: compute)
      probe.record("layer.\(index)", x.copied())
    }
    let hidden = compute.rmsNorm(x, weight: finalNorm, epsilon: Float(configuration.rmsNormEpsilon), output: .fp32)
    probe.record("last_hidden_state", hidden)
    return hidden
  }

  /// Tables for positions 0..<count. M-RoPE gives text the same position on all three axes, which makes it ordinary RoPE.
  static func rotary(_ configuration: TextEncoderConfiguration, count: Int) -> RotaryTable {
    let half = configuration.headDim / 2
    let frequencies = (0..<half).map { 1 / Float(pow(configuration.ropeTheta, Double(Float(2 * $0) / Float(2 * half)))) }
    var (cosines, sines) = ([Float](), [Float]())
    for position in 0..<count {
      for frequency in frequencies {
        let angle = Double(Float(position) * frequency)
        cosines.append(Float(cos(angle)))
        sines.append(Float(sin(angle)))
      }
    }
    return RotaryTable(cos: Tensor(cosines, shape: [count, half]), sin: Tensor(sines, shape: [count, half]))
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
    let (queryDim, keyDim) = (configuration.headCount * configuration.headDim, configuration.keyValueHeadCount * configuration.headDim)
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
  func callAsFunction(_ x: inout Tensor, rotary: RotaryTable, compute: Compute) {
    let epsilon = Float(configuration.rmsNormEpsilon)
    let a = compute.rmsNorm(x, weight: inputNorm, epsilon: epsilon)
    var (q, k) = (compute.linear(a, query), compute.linear(a, key))
    let v = compute.linear(a, value)
    compute.headNormRotary(
      &q, heads: configuration.headCount, normWeight: nil, epsilon: epsilon, rotary: rotary, style: .rotateHalf)
    compute.headNormRotary(
      &k, heads: configuration.keyValueHeadCount, normWeight: nil, epsilon: epsilon, rotary: rotary, style: .rotateHalf)
    let attended = compute.attention(
      q: q, k: k, v: v, heads: configuration.headCount, kvHeads: configuration.keyValueHeadCount, headDim: configuration.headDim,
      causal: true)
    compute.linear(attended, output, addingTo: &x)

    let m = compute.rmsNorm(x, weight: mlpNorm, epsilon: epsilon)
    compute.linear(compute.siluMultiply(compute.linear(m, gate), compute.linear(m, up)), down, addingTo: &x)
  }
}
