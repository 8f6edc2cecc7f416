import Diffusion
import Kernels
import TensorCore
import Weights

/// One dual-stream block of the MMDiT: image and text have weights of their own and meet in one joint attention
/// (diffusers `QwenImageTransformerBlock`).
struct TransformerBlock: Sendable {
  private let index: Int
  private var image: Stream
  private var text: Stream
  private let configuration: TransformerConfiguration

  static let normEpsilon: Float = 1e-6

  /// The weights of one of the two streams.
  private struct Stream: Sendable {
    let names: Names
    var query: Linear
    var key: Linear
    var value: Linear
    var output: Linear
    let queryNorm: Tensor
    let keyNorm: Tensor
    var mlpIn: Linear
    var mlpOut: Linear

    /// The layers' names.
    struct Names: Sendable {
      let query, key, value, output, mlpIn, mlpOut: String

      init(_ block: String, q: String, k: String, v: String, out: String, mlp: String) {
        (query, key, value) = ("\(block).attn.\(q)", "\(block).attn.\(k)", "\(block).attn.\(v)")
        output = "\(block).attn.\(out)"
        (mlpIn, mlpOut) = ("\(block).\(mlp).net.0.proj", "\(block).\(mlp).net.2")
      }
    }

    func updated(by updates: LayerUpdates) -> Stream {
      var stream = self
      stream.query = updates(names.query, query)
      stream.key = updates(names.key, key)
      stream.value = updates(names.value, value)
      stream.output = updates(names.output, output)
      stream.mlpIn = updates(names.mlpIn, mlpIn)
      stream.mlpOut = updates(names.mlpOut, mlpOut)
      return stream
    }
  }

  /// One of the predictions that share a pass: its rows of both streams, and what is its own.
  struct Branch {
    let imageRows: Range<Int>
    let textRows: Range<Int>
    /// This block's vectors for the image tokens: parts of `imageRows` that follow one another.
    let imageModulation: [(rows: Range<Int>, vectors: StreamModulation)]
    /// This block's vectors for the text tokens.
    let textModulation: StreamModulation
    /// Tables of the joint sequence, text first.
    let rotary: RotaryTable
  }

  init(_ index: Int, _ reader: ModuleReader, _ configuration: TransformerConfiguration) throws(WeightsError) {
    let prefix = "transformer_blocks.\(index)"
    func stream(_ names: Stream.Names, norms: (String, String)) throws(WeightsError) -> Stream {
      let dim = configuration.innerDim
      func attention(_ name: String) throws(WeightsError) -> Linear {
        try reader.linear(name, input: dim, output: dim)
      }
      return Stream(
        names: names, query: try attention(names.query), key: try attention(names.key),
        value: try attention(names.value), output: try attention(names.output),
        queryNorm: try reader.tensor("\(prefix).attn.\(norms.0).weight", [configuration.headDim]),
        keyNorm: try reader.tensor("\(prefix).attn.\(norms.1).weight", [configuration.headDim]),
        mlpIn: try reader.linear(names.mlpIn, input: dim, output: 4 * dim),
        mlpOut: try reader.linear(names.mlpOut, input: 4 * dim, output: dim))
    }
    self.index = index
    self.configuration = configuration
    image = try stream(
      Stream.Names(prefix, q: "to_q", k: "to_k", v: "to_v", out: "to_out.0", mlp: "img_mlp"),
      norms: ("norm_q", "norm_k"))
    text = try stream(
      Stream.Names(prefix, q: "add_q_proj", k: "add_k_proj", v: "add_v_proj", out: "to_add_out", mlp: "txt_mlp"),
      norms: ("norm_added_q", "norm_added_k"))
  }

  /// The block with what adapters add to its layers.
  func updated(by updates: LayerUpdates) -> TransformerBlock {
    var block = self
    (block.image, block.text) = (image.updated(by: updates), text.updated(by: updates))
    return block
  }

  /// Advances both residual streams in place. Branches share the products with weights and nothing else: no row depends
  /// on the rows of another branch.
  ///
  /// - Parameters:
  ///   - x: image tokens of all branches [ΣN, inner], fp32.
  ///   - c: text tokens of all branches [ΣL, inner], fp32.
  ///   - updatesText: false in the last block, whose text output is not used.
  ///   - probe: meant for a single branch.
  func callAsFunction(
    image x: inout Tensor, text c: inout Tensor, branches: [Branch], updatesText: Bool, compute: Compute, probe: Probe
  ) {
    let probe = probe.scoped("block.\(index)")
    let imageParts = branches.flatMap(\.imageModulation)
    let textParts: [Part] = branches.map { ($0.textRows, $0.textModulation) }
    let attended = jointAttention(x, c, imageParts, textParts, branches, compute)
    func gather(_ rows: (Branch) -> Range<Int>) -> Tensor {
      Tensor.stacking(zip(attended, branches).map { $0.rows(rows($1)) })
    }

    let image = gather { $0.textRows.count..<$0.textRows.count + $0.imageRows.count }
    probe.record("attn.img", compute.linear(image, self.image.output, output: .fp32))
    compute.linear(
      image, self.image.output, addingTo: &x, gates: imageParts.map { ($0.rows, $0.vectors.attentionGate) })
    mlp(&x, self.image, imageParts, name: "img_mlp", compute, probe)
    probe.record("img", x)

    guard updatesText else { return }
    let text = gather { 0..<$0.textRows.count }
    probe.record("attn.txt", compute.linear(text, self.text.output, output: .fp32))
    compute.linear(text, self.text.output, addingTo: &c, gates: textParts.map { ($0.rows, $0.vectors.attentionGate) })
    mlp(&c, self.text, textParts, name: "txt_mlp", compute, probe)
    probe.record("txt", c)
  }

  /// Rows of a stream and their vectors.
  private typealias Part = (rows: Range<Int>, vectors: StreamModulation)

  /// softmax([q_txt; q_img] [k_txt; k_img]ᵀ / √d) [v_txt; v_img] → [L + N, inner] of every branch.
  private func jointAttention(
    _ x: Tensor, _ c: Tensor, _ imageParts: [Part], _ textParts: [Part], _ branches: [Branch], _ compute: Compute
  ) -> [Tensor] {
    let image = SharedRows(
      modulated(x, imageParts.map { ($0.rows, $0.vectors.attentionShift, $0.vectors.attentionScale) }, compute))
    let text = SharedRows(
      modulated(c, textParts.map { ($0.rows, $0.vectors.attentionShift, $0.vectors.attentionScale) }, compute))
    func joint(_ layer: (Stream) -> Linear, norm: ((Stream) -> Tensor)? = nil) -> [Tensor] {
      projected(image, text, layer, norm, branches, compute)
    }
    let (q, k, v) = (joint(\.query, norm: \.queryNorm), joint(\.key, norm: \.keyNorm), joint(\.value))
    return branches.indices.map {
      compute.attention(
        q: q[$0], k: k[$0], v: v[$0], heads: configuration.headCount, kvHeads: configuration.headCount,
        headDim: configuration.headDim,
        causal: false)
    }
  }

  /// Queries, keys or values of both streams' tokens, text first, [L + N, inner] of every branch; with a norm, its
  /// heads are normed and rotated.
  private func projected(
    _ image: SharedRows, _ text: SharedRows, _ layer: (Stream) -> Linear, _ norm: ((Stream) -> Tensor)?,
    _ branches: [Branch], _ compute: Compute
  ) -> [Tensor] {
    let (imageLayer, textLayer) = (layer(self.image), layer(self.text))
    // The rows of a single branch go to their places at once.
    let all =
      branches.count == 1 ? nil : (image: compute.linear(image, imageLayer), text: compute.linear(text, textLayer))
    return branches.map { branch in
      let textCount = branch.textRows.count, count = textCount + branch.imageRows.count
      var joint = MutableTensor(uninitialized: [count, configuration.innerDim], compute.activationDType)
      if let all {
        joint.copy(all.text.rows(branch.textRows), toRowsFrom: 0)
        joint.copy(all.image.rows(branch.imageRows), toRowsFrom: textCount)
      } else {
        compute.linear(text, textLayer, into: &joint)
        compute.linear(image, imageLayer, into: &joint, rowsFrom: textCount)
      }
      if let norm {
        for (stream, rows) in [(self.text, 0..<textCount), (self.image, textCount..<count)] {
          compute.headNormRotary(
            &joint, rows: rows, heads: configuration.headCount, normWeight: norm(stream), epsilon: Self.normEpsilon,
            rotary: branch.rotary.rows(rows), style: .interleaved)
        }
      }
      return joint.finish()
    }
  }

  private func modulated(
    _ tokens: Tensor, _ parts: [(rows: Range<Int>, shift: Tensor, scale: Tensor)], _ compute: Compute
  ) -> Tensor {
    var result = MutableTensor(uninitialized: tokens.shape, compute.activationDType)
    for part in parts {
      compute.layerNormModulate(
        tokens.rows(part.rows), shift: part.shift, scale: part.scale, epsilon: Self.normEpsilon, into: &result,
        rowsFrom: part.rows.lowerBound)
    }
    return result.finish()
  }

  private func mlp(
    _ tokens: inout Tensor, _ stream: Stream, _ parts: [Part], name: String, _ compute: Compute, _ probe: Probe
  ) {
    let input = modulated(tokens, parts.map { ($0.rows, $0.vectors.mlpShift, $0.vectors.mlpScale) }, compute)
    let hidden = compute.linear(input, stream.mlpIn, activation: .geluTanh)
    probe.record(name, compute.linear(hidden, stream.mlpOut, output: .fp32))
    compute.linear(hidden, stream.mlpOut, addingTo: &tokens, gates: parts.map { ($0.rows, $0.vectors.mlpGate) })
  }
}
