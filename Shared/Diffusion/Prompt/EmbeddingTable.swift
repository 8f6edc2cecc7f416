import Kernels
import TensorCore
import Weights

/// The embeddings of a vocabulary [V, D]. What a file holds in blocks stays so: a prompt needs a few rows.
package enum EmbeddingTable: Sendable {
  /// Numbers of any floating-point type.
  case plain(Tensor)
  /// Blocks, expanded row by row.
  case encoded(EncodedTensor)

  /// Rows of the table.
  package var rowCount: Int {
    switch self {
    case .plain(let table): table.shape[0]
    case .encoded(let table): table.shape[0]
    }
  }

  /// Rows `ids` → fp32 [ids.count, D]. Traps on an id outside the table.
  package func rows(_ ids: [Int], _ compute: Compute) -> Tensor {
    switch self {
    case .plain(let table): compute.gatherRows(table, ids)
    case .encoded(let table): compute.gatherRows(table, ids)
    }
  }
}
