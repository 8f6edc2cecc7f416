import CKernels
import TensorCore

extension Compute {
  /// softmax(q·kᵀ/√headDim)·v for q [n, heads·headDim] and k, v [m, kvHeads·headDim] → [n, heads·headDim] of ``activationDType``.
  ///
  /// Head h reads the keys of kv head h/(heads/kvHeads). When causal, query i sees the keys j ≤ i + m - n; a query that sees none
  /// gives zeros. Inputs are of ``activationDType``, or fp32, which is rounded to it. Scores exist only in tiles (online softmax).
  public func attention(q: Tensor, k: Tensor, v: Tensor, heads: Int, kvHeads: Int, headDim: Int, causal: Bool) -> Tensor {
    let n = q.rowExtents.rows, m = k.rowExtents.rows
    precondition(heads > 0 && kvHeads > 0 && heads % kvHeads == 0, "\(heads) heads over \(kvHeads) kv heads")
    precondition(q.rowExtents.width == heads * headDim, "queries \(q.shape) of \(heads) heads of \(headDim)")
    precondition(
      k.rowExtents.width == kvHeads * headDim && k.shape == v.shape, "keys \(k.shape), values \(v.shape), \(kvHeads) kv heads of \(headDim)"
    )
    let kernel = precision == .fp32 ? functions.fp32_attention : functions.bf16_attention
    let result = Tensor(uninitialized: [n, heads * headDim], activationDType)
    if n == 0 { return result }

    let keyBytes = kernel.packed_keys_bytes(m, headDim), valueBytes = kernel.packed_values_bytes(m, headDim)
    let scratchBytes = kernel.scratch_bytes(headDim), groupSize = heads / kvHeads
    func packKeys(_ kvHead: Int, to target: UnsafeMutableRawPointer) {
      kernel.pack_keys(target, k.address(0), k.dtype.kernelType, m, kvHeads, headDim, kvHead)
    }
    func packValues(_ kvHead: Int, to target: UnsafeMutableRawPointer) {
      kernel.pack_values(target, v.address(0), v.dtype.kernelType, m, kvHeads, headDim, kvHead)
    }
    func run(
      _ head: Int, queries: Range<Int>, keys: UnsafeMutableRawPointer, values: UnsafeMutableRawPointer, scratch: UnsafeMutableRawPointer
    ) {
      var job = ck_attention(
        n: n, m: m, heads: heads, head_dim: headDim, causal: causal ? 1 : 0, q: q.address(0), q_type: q.dtype.kernelType, k: keys,
        v: values, out: result.address(0))
      kernel.run(&job, head, queries.lowerBound, queries.count, scratch)
    }

    // A thread that packs a kv head and uses it at once finds it in its own cache. The last heads are packed before, and shared out
    // block by block, so that the threads end together.
    let ownHeads = max(kvHeads / threadCount - 1, 0) * threadCount, sharedHeads = kvHeads - ownHeads
    let headBytes = keyBytes + valueBytes, shared = Tensor(uninitialized: [sharedHeads * headBytes], .uint8)
    pool.parallel(2 * sharedHeads) { index in
      let kvHead = index / 2, keys = shared.address(kvHead * headBytes)
      index % 2 == 0 ? packKeys(ownHeads + kvHead, to: keys) : packValues(ownHeads + kvHead, to: keys + keyBytes)
    }
    let block = kernel.block, blocks = (n + block - 1) / block
    pool.parallel(ownHeads + sharedHeads * groupSize * blocks) { index in
      let isShared = index >= ownHeads
      withScratch(scratchBytes + (isShared ? 0 : headBytes)) { scratch in
        if isShared {
          let head = (index - ownHeads) / blocks, query = (index - ownHeads) % blocks * block
          let keys = shared.address(head / groupSize * headBytes)
          run(ownHeads * groupSize + head, queries: query..<min(query + block, n), keys: keys, values: keys + keyBytes, scratch: scratch)
        } else {
          let keys = scratch + scratchBytes, values = keys + keyBytes
          packKeys(index, to: keys)
          packValues(index, to: values)
          for head in index * groupSize..<(index + 1) * groupSize {
            run(head, queries: 0..<n, keys: keys, values: values, scratch: scratch)
          }
        }
      }
    }
    return withExtendedLifetime((q, k, v, shared)) { result }
  }
}
