import Kernels
import TensorCore

/// One layer of a language model.
package protocol CausalDecoderLayer: Sendable {
  /// Advances the residual stream `x` [n, hidden] of all sequences of a pass in place.
  ///
  /// - Parameters:
  ///   - probe: receives intermediates under the reference's names.
  ///   - remember: receives the keys and values of `x`, rotated.
  func callAsFunction(
    _ x: inout Tensor, _ pass: DecoderPass, probe: Probe, remember: (_ keys: Tensor, _ values: Tensor) -> Void)
}

/// What a layer knows of a pass over several sequences.
package struct DecoderPass: Sendable {
  /// The arithmetic.
  package let compute: Compute
  /// The rows of each sequence.
  package let parts: [Range<Int>]
  /// Keys and values of the tokens before every sequence, rotated.
  package let past: (keys: Tensor, values: Tensor)?
  /// By the tokens' positions.
  package let rotary: RotaryTable

  /// Causal attention of each sequence to itself and to what is before it: [n, heads · head dim].
  package func attention(q: Tensor, k: Tensor, v: Tensor, heads: Int, kvHeads: Int, headDim: Int) -> Tensor {
    Tensor.stacking(
      parts.map { rows in
        var (keys, values) = (k.rows(rows), v.rows(rows))
        if let past { (keys, values) = (Tensor.stacking([past.keys, keys]), Tensor.stacking([past.values, values])) }
        return compute.attention(
          q: q.rows(rows), k: keys, v: values, heads: heads, kvHeads: kvHeads, headDim: headDim, causal: true)
      })
  }
}

/// What every layer's attention remembers of the tokens that several sequences begin with.
public struct DecoderPrefix: Sendable {
  /// The tokens.
  public let ids: [Int]
  /// Per layer [ids.count, kv heads × head dim], rotated.
  let keys: [Tensor]
  let values: [Tensor]

  /// Size in memory.
  var byteCount: Int { (keys + values).reduce(0) { $0 + $1.byteCount } }
}

/// A language model without its output head: token ids and the rows of images in, hidden states out. Several sequences
/// share a pass, and what they begin with is computed once.
package struct CausalDecoder<Layer: CausalDecoderLayer>: Sendable {
  /// The arithmetic the network runs on.
  package let compute: Compute
  /// For weights that do not all fit into memory; nil: they do.
  package let streaming: WeightStreaming?
  private let embedding: EmbeddingTable
  private let layers: [Layer]
  private let finalNorm: (weight: Tensor, epsilon: Float)?
  private let rotary: @Sendable ([TokenSequence.Position]) -> RotaryTable

  /// Puts a model together.
  ///
  /// - Parameters:
  ///   - embedding: [vocabulary, hidden].
  ///   - finalNorm: of the hidden states; nil: they are what the last layer makes.
  ///   - rotary: makes tables for tokens at given positions.
  package init(
    compute: Compute, embedding: EmbeddingTable, layers: [Layer], finalNorm: (weight: Tensor, epsilon: Float)?,
    streaming: WeightStreaming?, rotary: @escaping @Sendable ([TokenSequence.Position]) -> RotaryTable
  ) {
    self.compute = compute
    self.embedding = embedding
    self.layers = layers
    self.finalNorm = finalNorm
    self.streaming = streaming
    self.rotary = rotary
  }

  /// Rows of the embedding table.
  package var vocabularySize: Int { embedding.rowCount }

  /// Runs the model over a sequence, at least one token, for sequences that continue it.
  ///
  /// - Parameter earlier: the tokens before `sequence`, if any.
  /// - Returns: what is remembered of `earlier` and the sequence, and the sequence's hidden states.
  package func prefix(_ sequence: TokenSequence, after earlier: DecoderPrefix?) -> (
    prefix: DecoderPrefix, hidden: Tensor
  ) {
    var keys: [Tensor] = [], values: [Tensor] = []
    let hidden = run([sequence], after: earlier, probe: .none) { layerKeys, layerValues in
      keys.append(Tensor.stacking((earlier.map { [$0.keys[keys.count]] } ?? []) + [layerKeys]))
      values.append(Tensor.stacking((earlier.map { [$0.values[values.count]] } ?? []) + [layerValues]))
    }
    return (DecoderPrefix(ids: (earlier?.ids ?? []) + sequence.ids, keys: keys, values: values), hidden[0])
  }

  /// Runs the model over several sequences in one pass: weights are read once, which is what short sequences wait for.
  ///
  /// - Parameters:
  ///   - sequences: without the tokens of `prefix`.
  ///   - prefix: what all of them begin with; nil: nothing.
  ///   - range: of the layers; nil: all. For layers to be timed by themselves.
  ///   - probe: receives intermediates under the reference's names.
  ///   - remember: receives the keys and values of each layer.
  /// - Returns: per sequence its hidden states [n, hidden], fp32: the same bytes as alone and without a prefix.
  package func run(
    _ sequences: [TokenSequence], after prefix: DecoderPrefix?, range: Range<Int>? = nil, probe: Probe = .none,
    remember: (_ keys: Tensor, _ values: Tensor) -> Void = { _, _ in }
  ) -> [Tensor] {
    var parts: [Range<Int>] = []
    for sequence in sequences {
      parts.append((parts.last?.upperBound ?? 0)..<(parts.last?.upperBound ?? 0) + sequence.ids.count)
    }
    var x = embed(sequences, parts)
    probe.record("inputs_embeds", x)
    let positions = sequences.flatMap(\.positions), rotary = rotary(positions)
    probe.record("position_ids", TokenSequence.tensor(of: positions))
    for index in range ?? layers.indices {
      let past = prefix.map { (keys: $0.keys[index], values: $0.values[index]) }
      let pass = DecoderPass(compute: compute, parts: parts, past: past, rotary: rotary)
      layers[index](&x, pass, probe: probe, remember: remember)
      streaming?.ended(index)
      probe.record("layer.\(index)", x)
      addImages(sequences, parts, after: index, to: &x)
      probe.record("layer_in.\(index + 1)", x)
    }
    guard let finalNorm else {
      probe.record("hidden_pre_norm", x)
      return parts.map { x.rows($0) }
    }
    let hidden = compute.rmsNorm(x, weight: finalNorm.weight, epsilon: finalNorm.epsilon, output: .fp32)
    probe.record("last_hidden_state", hidden)
    return parts.map { hidden.rows($0) }
  }

  /// The rows of the embedding table, and those of images in their places: [n, hidden], fp32.
  private func embed(_ sequences: [TokenSequence], _ parts: [Range<Int>]) -> Tensor {
    let ids = sequences.flatMap(\.ids)
    precondition(ids.allSatisfy { (0..<vocabularySize).contains($0) }, "token id outside the vocabulary")
    var x = embedding.rows(ids, compute)
    guard sequences.contains(where: { !$0.images.isEmpty }) else { return x }
    x.withMutableTensor { x in
      for (sequence, part) in zip(sequences, parts) {
        for image in sequence.images { x.copy(image.rows.rows, toRowsFrom: part.lowerBound + image.start) }
      }
    }
    return x
  }

  /// Adds what images have for a layer's result to their rows.
  private func addImages(
    _ sequences: [TokenSequence], _ parts: [Range<Int>], after layer: Int, to x: inout Tensor
  ) {
    for (sequence, part) in zip(sequences, parts) {
      for image in sequence.images where layer < image.rows.levels.count {
        let level = image.rows.levels[layer], start = part.lowerBound + image.start
        compute.add(&x, rows: start..<start + level.shape[0], level)
      }
    }
  }
}
