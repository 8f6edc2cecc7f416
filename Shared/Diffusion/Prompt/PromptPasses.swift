import ImageCodec
import TensorCore

/// Prompts' tokens → embeddings, in few passes of a language model: prompts with the same beginning, such as a prompt
/// and its negative prompt with the same images, share what it costs, and it is remembered.
package struct PromptPasses<Layer: CausalDecoderLayer>: Sendable {
  private let model: CausalDecoder<Layer>
  private let images: ImageReader?
  private let imageTokenID: Int
  private let prefixes: [DecoderPrefix]
  private let contexts: RecentValues<ContextKey, Context>

  /// What several prompts have in common: their tokens up to the end of their images.
  private struct ContextKey: Hashable, Sendable {
    var ids: [Int]
    var images: [ImageReader.Digest]
  }

  private struct Context: Sendable {
    var prefix: DecoderPrefix
    /// The embeddings' rows that it has, [rows, hidden]; nil: none.
    var rows: Tensor?
  }

  /// Passes of `model`.
  ///
  /// - Parameters:
  ///   - images: reads the images of prompts; nil: prompts come without.
  ///   - imageTokenID: id of the tokens that stand for the rows of images.
  ///   - prefixes: the tokens of the templates that precede prompts, each of them the rows that are dropped.
  ///   - contextBytesMax: of what is remembered of prompts with images.
  package init(
    _ model: CausalDecoder<Layer>, images: ImageReader?, imageTokenID: Int, prefixes: [[Int]],
    contextBytesMax: Int = 256 << 20
  ) {
    self.model = model
    self.images = images
    self.imageTokenID = imageTokenID
    self.prefixes = prefixes.map { model.prefix(TokenSequence($0), after: nil).prefix }
    contexts = RecentValues(byteCountMax: contextBytesMax)
  }

  /// The embeddings of several prompts. Those with the same template and images share a pass, and what all of their
  /// tokens up to the end of the images cost.
  ///
  /// - Returns: per prompt [``PromptTokens/count``, hidden], fp32: the same bytes as if it were encoded alone.
  package func embeddings(_ prompts: [PromptTokens]) -> [Tensor] {
    let keys = prompts.map(contextKey), sequences = prompts.map(sequence)
    let contexts = contexts(keys, prompts, sequences)
    var embeds = [Tensor?](repeating: nil, count: prompts.count)
    for key in Set(keys) {
      let members = keys.indices.filter { keys[$0] == key }
      if let context = contexts[key] {
        let rests = members.map { sequences[$0][key.ids.count..<sequences[$0].ids.count] }
        for (member, rows) in zip(members, model.run(rests, after: context.prefix)) {
          embeds[member] = Tensor.stacking((context.rows.map { [$0] } ?? []) + [rows])
        }
      } else {
        // The added tokens of a prompt might join those of the template; then no beginning was remembered.
        for member in members {
          embeds[member] = kept(prompts[member], of: model.run([sequences[member]], after: nil)[0])
        }
      }
    }
    return embeds.compactMap { $0 }
  }

  /// The embeddings of one prompt.
  ///
  /// - Parameter probe: receives intermediates of the whole sequence, the template's prefix included.
  package func embeddings(_ prompt: PromptTokens, probe: Probe) -> Tensor {
    guard probe.isActive else { return embeddings([prompt])[0] }
    probe.record("input_ids", Tensor(prompt.ids.map(Float.init), shape: [prompt.ids.count]))
    var sequence = sequence(prompt)
    if let images, !prompt.images.isEmpty { sequence.setRows(images.rows(of: prompt.images, probe: probe)) }
    return kept(prompt, of: model.run([sequence], after: nil, probe: probe)[0])
  }

  private func kept(_ prompt: PromptTokens, of rows: Tensor) -> Tensor {
    rows.rows(prompt.droppedCount..<prompt.ids.count)
  }

  /// Where the tokens of the prompt's images begin.
  private func places(_ prompt: PromptTokens) -> [(start: Int, grid: TokenGrid)] {
    guard let images else { return [] }
    var places: [(start: Int, grid: TokenGrid)] = [], next = 0
    for image in prompt.images {
      let grid = images.grid(of: image)
      guard let start = prompt.ids[next...].firstIndex(of: imageTokenID) else {
        preconditionFailure("\(prompt.images.count) images, but tokens of \(places.count)")
      }
      places.append((start, grid))
      next = start + grid.tokenCount
    }
    return places
  }

  private func sequence(_ prompt: PromptTokens) -> TokenSequence { TokenSequence(prompt.ids, places: places(prompt)) }

  /// The beginning that a prompt shares with others; without tokens where it shares none.
  private func contextKey(_ prompt: PromptTokens) -> ContextKey {
    if let last = places(prompt).last {
      // Behind an image's tokens is <|vision_end|>, an added token that joins no other.
      let ids = prompt.ids.prefix(last.start + last.grid.tokenCount + 1)
      return ContextKey(ids: Array(ids), images: prompt.images.map(ImageReader.digest))
    }
    let prefix = remembered(prompt.ids, droppedCount: prompt.droppedCount)
    return ContextKey(ids: prefix?.ids ?? [], images: [])
  }

  /// The template's prefix, if the tokens begin with it.
  private func remembered(_ ids: [Int], droppedCount: Int) -> DecoderPrefix? {
    prefixes.first { $0.ids.count == droppedCount && ids.starts(with: $0.ids) }
  }

  /// The contexts of all prompts; those that are not remembered are computed.
  private func contexts(
    _ keys: [ContextKey], _ prompts: [PromptTokens], _ sequences: [TokenSequence]
  ) -> [ContextKey: Context] {
    var found: [ContextKey: Context] = [:], missing: [ContextKey: Int] = [:]
    for (index, key) in keys.enumerated() where found[key] == nil && !key.ids.isEmpty {
      if key.images.isEmpty {
        found[key] = remembered(key.ids, droppedCount: key.ids.count).map { Context(prefix: $0, rows: nil) }
      } else if let context = contexts[key] {
        found[key] = context
      } else if missing[key] == nil {
        missing[key] = index
      }
    }
    guard let images, !missing.isEmpty else { return found }
    let order = missing.sorted { $0.value < $1.value }
    var rows = images.rows(of: order.flatMap { prompts[$0.value].images })[...]
    for (key, index) in order {
      var sequence = sequences[index]
      sequence.setRows(Array(rows.prefix(key.images.count)))
      rows.removeFirst(key.images.count)
      found[key] = context(key, sequence, droppedCount: prompts[index].droppedCount)
    }
    return found
  }

  private func context(_ key: ContextKey, _ sequence: TokenSequence, droppedCount: Int) -> Context {
    let earlier = remembered(sequence.ids, droppedCount: droppedCount), start = earlier?.ids.count ?? 0
    let (prefix, hidden) = model.prefix(sequence[start..<key.ids.count], after: earlier)
    let context = Context(prefix: prefix, rows: hidden.rows(droppedCount - start..<hidden.shape[0]))
    contexts.insert(context, for: key, byteCount: prefix.byteCount + hidden.byteCount)
    return context
  }
}
