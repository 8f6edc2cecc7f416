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
    let keys = Tensor(uninitialized: [kvHeads * keyBytes], .uint8), values = Tensor(uninitialized: [kvHeads * valueBytes], .uint8)
    pool.parallel(2 * kvHeads) { index in
      let head = index / 2
      if index % 2 == 0 {
        kernel.pack_keys(keys.address(head * keyBytes), k.address(0), k.dtype.kernelType, m, kvHeads, headDim, head)
      } else {
        kernel.pack_values(values.address(head * valueBytes), v.address(0), v.dtype.kernelType, m, kvHeads, headDim, head)
      }
    }
    let job = ck_attention(
      n: n, m: m, heads: heads, kv_heads: kvHeads, head_dim: headDim, causal: causal ? 1 : 0, q: q.address(0), q_type: q.dtype.kernelType,
      k: keys.address(0), v: values.address(0), out: result.address(0), out_type: result.dtype.kernelType)
    let block = kernel.block, blocks = (n + block - 1) / block, scratchBytes = kernel.scratch_bytes(headDim)
    pool.parallel(heads * blocks) { index in
      let head = index / blocks, query = index % blocks * block
      withScratch(scratchBytes) { scratch in
        withUnsafePointer(to: job) { kernel.run($0, head, query, min(block, n - query), scratch) }
      }
    }
    return withExtendedLifetime((q, k, v, keys, values)) { result }
  }
}
