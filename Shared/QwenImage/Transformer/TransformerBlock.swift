import Kernels
import TensorCore
import Weights

/// One dual-stream block of the MMDiT: image and text have weights of their own and meet in one joint attention
/// (diffusers `QwenImageTransformerBlock`).
struct TransformerBlock: Sendable {
  private let index: Int
  private let image: Stream
  private let text: Stream
  private let configuration: TransformerConfiguration

  static let normEpsilon: Float = 1e-6

  /// The weights of one of the two streams.
  private struct Stream: Sendable {
    let query: Linear
    let key: Linear
    let value: Linear
    let output: Linear
    let queryNorm: Tensor
    let keyNorm: Tensor
    let mlpIn: Linear
    let mlpOut: Linear
  }

  init(_ index: Int, _ reader: ModuleReader, _ configuration: TransformerConfiguration) throws(WeightsError) {
    let prefix = "transformer_blocks.\(index)"
    func stream(q: String, k: String, v: String, out: String, norms: (String, String), mlp: String) throws(WeightsError) -> Stream {
      let dim = configuration.innerDim
      func attention(_ name: String) throws(WeightsError) -> Linear {
        try reader.linear("\(prefix).attn.\(name)", input: dim, output: dim)
      }
      return Stream(
        query: try attention(q), key: try attention(k), value: try attention(v), output: try attention(out),
        queryNorm: try reader.tensor("\(prefix).attn.\(norms.0).weight", [configuration.headDim]),
        keyNorm: try reader.tensor("\(prefix).attn.\(norms.1).weight", [configuration.headDim]),
        mlpIn: try reader.linear("\(prefix).\(mlp).net.0.proj", input: dim, output: 4 * dim),
        mlpOut: try reader.linear("\(prefix).\(mlp).net.2", input: 4 * dim, output: dim))
    }
    self.index = index
    self.configuration = configuration
    image = try stream(q: "to_q", k: "to_k", v: "to_v", out: "to_out.0", norms: ("norm_q", "norm_k"), mlp: "img_mlp")
    text = try stream(
      q: "add_q_proj", k: "add_k_proj", v: "add_v_proj", out: "to_add_out", norms: ("norm_added_q", "norm_added_k"), mlp: "txt_mlp")
  }

  /// Advances both residual streams in place.
  ///
  /// - Parameters:
  ///   - x: image tokens [N, inner], fp32.
  ///   - c: text tokens [L, inner], fp32.
  ///   - modulation: this block's vectors at the current step.
  ///   - rotary: tables of the joint sequence, text first.
  ///   - updatesText: false in the last block, whose text output nobody reads.
  func callAsFunction(
    image x: inout Tensor, text c: inout Tensor, modulation: BlockModulation, rotary: RotaryTable, updatesText: Bool,
    compute: Compute, probe: Probe
  ) {
    let probe = probe.scoped("block.\(index)")
    let textCount = c.shape[0]
    let joint = jointAttention(x, c, modulation, rotary, compute)
    let (attendedText, attendedImage) = (joint.rows(0..<textCount), joint.rows(textCount..<joint.shape[0]))

    probe.record("attn.img", compute.linear(attendedImage, image.output, output: .fp32))
    compute.linear(attendedImage, image.output, addingTo: &x, gate: modulation.image.attentionGate)
    mlp(&x, image, modulation.image, name: "img_mlp", compute, probe)
    probe.record("img", x.copied())

    guard updatesText else { return }
    probe.record("attn.txt", compute.linear(attendedText, text.output, output: .fp32))
    compute.linear(attendedText, text.output, addingTo: &c, gate: modulation.text.attentionGate)
    mlp(&c, text, modulation.text, name: "txt_mlp", compute, probe)
    probe.record("txt", c.copied())
  }

  /// softmax([q_txt; q_img] [k_txt; k_img]ᵀ / √d) [v_txt; v_img] → [L + N, inner].
  private func jointAttention(
    _ x: Tensor, _ c: Tensor, _ modulation: BlockModulation, _ rotary: RotaryTable, _ compute: Compute
  ) -> Tensor {
    let (textCount, total) = (c.shape[0], c.shape[0] + x.shape[0])
    let (q, k, v) = (jointBuffer(total, compute), jointBuffer(total, compute), jointBuffer(total, compute))
    for (stream, tokens, vectors, rows) in [
      (text, c, modulation.text, 0..<textCount), (image, x, modulation.image, textCount..<total),
    ] {
      let input = compute.layerNormModulate(tokens, shift: vectors.attentionShift, scale: vectors.attentionScale, epsilon: Self.normEpsilon)
      compute.linear(input, stream.query, into: q.rows(rows))
      compute.linear(input, stream.key, into: k.rows(rows))
      compute.linear(input, stream.value, into: v.rows(rows))
      for (tensor, norm) in [(q, stream.queryNorm), (k, stream.keyNorm)] {
        var heads = tensor.rows(rows)
        compute.headNormRotary(
          &heads, heads: configuration.headCount, normWeight: norm, epsilon: Self.normEpsilon, rotary: rotary.rows(rows),
          style: .interleaved)
      }
    }
    return compute.attention(
      q: q, k: k, v: v, heads: configuration.headCount, kvHeads: configuration.headCount, headDim: configuration.headDim, causal: false)
  }

  private func jointBuffer(_ rows: Int, _ compute: Compute) -> Tensor {
    Tensor(uninitialized: [rows, configuration.innerDim], compute.activationDType)
  }

  private func mlp(
    _ tokens: inout Tensor, _ stream: Stream, _ vectors: StreamModulation, name: String, _ compute: Compute, _ probe: Probe
  ) {
    let input = compute.layerNormModulate(tokens, shift: vectors.mlpShift, scale: vectors.mlpScale, epsilon: Self.normEpsilon)
    let hidden = compute.linear(input, stream.mlpIn, activation: .geluTanh)
    probe.record(name, compute.linear(hidden, stream.mlpOut, output: .fp32))
    compute.linear(hidden, stream.mlpOut, addingTo: &tokens, gate: vectors.mlpGate)
  }
}
