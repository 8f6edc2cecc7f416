import CKernels
import TensorCore

extension Compute {
  /// softmax(q·kᵀ/√headDim)·v for q [n, heads·headDim] and k, v [m, kvHeads·headDim] → [n, heads·headDim] of
  /// ``activationDType``.
  ///
  /// Head h reads the keys of kv head h/(heads/kvHeads). When causal, query i sees the keys j ≤ i + m - n; a query that
  /// sees none gives zeros. Inputs are of ``activationDType``, or fp32, which is rounded to it. Scores exist only in
  /// tiles (online softmax). Of ``Precision/int8`` and ``Precision/q4``, long sequences are multiplied in 8 bits, see
  /// ``hasAttentionInt8(keys:headDim:)``.
  public func attention(q: Tensor, k: Tensor, v: Tensor, heads: Int, kvHeads: Int, headDim: Int, causal: Bool) -> Tensor
  {
    let n = q.shape.rowExtents.rows, m = k.shape.rowExtents.rows
    precondition(heads > 0 && kvHeads > 0 && heads % kvHeads == 0, "\(heads) heads over \(kvHeads) kv heads")
    precondition(q.shape.rowExtents.width == heads * headDim, "queries \(q.shape) of \(heads) heads of \(headDim)")
    precondition(
      k.shape.rowExtents.width == kvHeads * headDim && k.shape == v.shape,
      "keys \(k.shape), values \(v.shape), \(kvHeads) kv heads of \(headDim)")
    let kernel = attentionKernel(inInt8: !causal && hasAttentionInt8(keys: m, headDim: headDim))
    return filled([n, heads * headDim], activationDType, reading: q, k, v) { result in
      guard n > 0 else { return }
      let head = PackedHead(kernel, keys: m, headDim: headDim)
      let attention = HeadAttention(
        kernel: kernel, head: head, q: q, k: k, v: v, result: result, resultRow: 0, heads: heads, kvHeads: kvHeads,
        headDim: headDim, causal: causal)
      run(attention, queries: n)
    }
  }

  /// Keys from which on attention without causality has 8-bit products in ``Precision/int8`` and ``Precision/q4``: with
  /// fewer it is a small part of the work, and bf16 is more exact.
  public static let attentionInt8Keys = 4096
  /// The same without ``InstructionSet/multipliesBF16``, where bf16 takes fp32 arithmetic and 8 bits are up to 2.9
  /// times as fast: what an image of 512×512 has.
  public static let attentionInt8KeysWithoutBF16 = 1024

  /// Whether attention without causality to `keys` keys has 8-bit products: queries and keys have one scale per row and
  /// head, values one per channel of a tile of keys, and weights have 8 bits. Depends on nothing but the mode and the
  /// instruction set, so that all workers of a numerics class agree. Causal attention never has them, because what is
  /// taken off the keys of a row would depend on keys that it does not see.
  public func hasAttentionInt8(keys: Int, headDim: Int) -> Bool {
    let least = functions.has_bf16_dot != 0 ? Self.attentionInt8Keys : Self.attentionInt8KeysWithoutBF16
    return [.int8, .q4].contains(precision) && keys >= least && headDim <= Int(CK_INT8_HEAD_DIM)
  }

  private func attentionKernel(inInt8: Bool = false) -> ck_attention_kernel {
    inInt8 ? functions.int8_attention : precision == .fp32 ? functions.fp32_attention : functions.bf16_attention
  }

  /// As ``attention(q:k:v:heads:kvHeads:headDim:causal:)`` without causality, never with 8-bit products, of rows that
  /// see their own part only: the rows of q, k and v [n, …] that are in the same one of `parts`, which follow one
  /// another from the first row to the last. Each row has the same bytes as if its part were computed alone.
  public func attention(
    q: Tensor, k: Tensor, v: Tensor, heads: Int, kvHeads: Int, headDim: Int, within parts: [Range<Int>]
  ) -> Tensor {
    let n = q.shape.rowExtents.rows
    precondition(heads > 0 && kvHeads > 0 && heads % kvHeads == 0, "\(heads) heads over \(kvHeads) kv heads")
    precondition(q.shape.rowExtents.width == heads * headDim, "queries \(q.shape) of \(heads) heads of \(headDim)")
    precondition(
      k.shape == [n, kvHeads * headDim] && k.shape == v.shape,
      "keys \(k.shape), values \(v.shape), \(kvHeads) kv heads of \(headDim), \(n) queries")
    let ends = parts.map(\.upperBound)
    precondition(parts.map(\.lowerBound) == [0] + ends.dropLast() && ends.last == n, "parts \(parts) of \(n) rows")
    let kernel = attentionKernel()
    return filled([n, heads * headDim], activationDType, reading: q, k, v) { result in
      func attention(_ part: Range<Int>) -> HeadAttention {
        HeadAttention(
          kernel: kernel, head: PackedHead(kernel, keys: part.count, headDim: headDim), q: q.rows(part),
          k: k.rows(part), v: v.rows(part), result: result, resultRow: part.lowerBound, heads: heads, kvHeads: kvHeads,
          headDim: headDim, causal: false)
      }
      // A part of one block of queries is too small to be shared out: whole heads of many parts are.
      let small = parts.filter { !$0.isEmpty && $0.count <= kernel.block }
      pool.parallel(small.count * kvHeads) { index in runHead(index % kvHeads, of: attention(small[index / kvHeads])) }
      for part in parts where part.count > kernel.block { run(attention(part), queries: part.count) }
    }
  }

  /// Packs one kv head and computes all queries of the heads that read it, on this thread.
  private func runHead(_ kvHead: Int, of attention: HeadAttention) {
    let groupSize = attention.heads / attention.kvHeads
    withScratch(attention.head.layout) { packed in
      attention.packKeys(kvHead, to: packed)
      attention.packValues(kvHead, to: packed)
      withScratch(attention.head.scratchBytes) { scratch in
        for head in kvHead * groupSize..<(kvHead + 1) * groupSize {
          attention.run(head, queries: 0..<attention.q.shape[0], packed, scratch)
        }
      }
    }
  }

  private func run(_ attention: HeadAttention, queries n: Int) {
    // A thread that packs a kv head and uses it at once finds it in its own cache. The last heads are packed before,
    // and shared out block by block, so that the threads end together.
    let kvHeads = attention.kvHeads, groupSize = attention.heads / kvHeads
    let ownHeads = max(kvHeads / threadCount - 1, 0) * threadCount, sharedHeads = kvHeads - ownHeads
    let head = attention.head.layout, block = attention.kernel.block, blocks = (n + block - 1) / block
    var shared = MutableTensor(uninitialized: [sharedHeads * head.byteCount], .uint8)
    shared.write { shared in
      func packed(_ index: Int) -> Scratch { Scratch(shared, from: index * head.byteCount, count: head.byteCount) }
      pool.parallel(2 * sharedHeads) { index in
        let kvHead = ownHeads + index / 2, target = packed(index / 2)
        index % 2 == 0 ? attention.packKeys(kvHead, to: target) : attention.packValues(kvHead, to: target)
      }
      pool.parallel(ownHeads + sharedHeads * groupSize * blocks) { index in
        if index < ownHeads {
          runHead(index, of: attention)
        } else {
          let head = (index - ownHeads) / blocks, query = (index - ownHeads) % blocks * block
          withScratch(attention.head.scratchBytes) { scratch in
            attention.run(
              ownHeads * groupSize + head, queries: query..<min(query + block, n), packed(head / groupSize), scratch)
          }
        }
      }
    }
  }
}

/// The memory that one kv head takes: its keys and values, packed; and what a block of queries works in.
private struct PackedHead {
  let layout: ScratchLayout
  let keys: ScratchLayout.Part
  let values: ScratchLayout.Part
  let scratchBytes: Int

  init(_ kernel: ck_attention_kernel, keys count: Int, headDim: Int) {
    var layout = ScratchLayout()
    keys = layout.add(kernel.packed_keys_bytes(count, headDim))
    values = layout.add(kernel.packed_values_bytes(count, headDim))
    self.layout = layout
    scratchBytes = kernel.scratch_bytes(headDim)
  }
}

/// The attention of single heads: calls of the kernel with everything but the head.
private struct HeadAttention {
  let kernel: ck_attention_kernel
  let head: PackedHead
  let q: Tensor, k: Tensor, v: Tensor
  let result: Output
  /// The row of the result that the first query has.
  let resultRow: Int
  let heads: Int, kvHeads: Int, headDim: Int, causal: Bool

  func packKeys(_ kvHead: Int, to target: Scratch) {
    kernel.pack_keys(
      target(head.keys), k.address(count: k.elementCount), k.dtype.activationType, k.shape[0], kvHeads, headDim, kvHead)
  }

  func packValues(_ kvHead: Int, to target: Scratch) {
    kernel.pack_values(
      target(head.values), v.address(count: v.elementCount), v.dtype.activationType, v.shape[0], kvHeads, headDim,
      kvHead)
  }

  func run(_ index: Int, queries: Range<Int>, _ packed: Scratch, _ scratch: UnsafeMutableRawPointer) {
    var job = ck_attention(
      n: q.shape[0], m: k.shape[0], heads: heads, head_dim: headDim, causal: causal ? 1 : 0,
      q: q.address(count: q.elementCount),
      q_type: q.dtype.activationType, k: packed(head.keys), v: packed(head.values),
      out: result.address(resultRow * heads * headDim, count: q.elementCount))
    kernel.run(&job, index, queries.lowerBound, queries.count, scratch)
  }
}
