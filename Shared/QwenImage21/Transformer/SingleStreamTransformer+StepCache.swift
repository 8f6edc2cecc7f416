import Diffusion
import TensorCore

extension SingleStreamTransformer {
  /// Runs all blocks, for branches with caches only those that they need: the image that is made decides. Text and
  /// references, which are in the pass without a prefix cache, do not change from step to step.
  ///
  /// - Parameter rows: of each branch in `x`.
  func runBlocksWithCaches(_ x: inout Tensor, _ branches: [Branch], _ rows: [Range<Int>]) {
    var parts = zip(branches, rows).map { branch, rows in Self.streams(of: branch, x.rows(rows)) }
    BlockCache.run(&parts, caches: branches.map(\.cache), blockCount: blockCount) { blocks, active, parts in
      let members = active.map { branches[$0] }, rows = consecutiveRows(members.map(\.tokenCount))
      var pass = Tensor.stacking(active.flatMap { parts[$0].constants + [parts[$0].image] })
      runBlocks(blocks, &pass, members, rows)
      for (index, rows) in zip(active, rows) { parts[index] = Self.streams(of: branches[index], pass.rows(rows)) }
    }
    x = Tensor.stacking(parts.flatMap { $0.constants + [$0.image] })
  }

  private static func streams(of branch: Branch, _ rows: Tensor) -> BranchStreams {
    let before = rows.shape[0] - branch.latents.shape[0]
    return BranchStreams(
      image: rows.rows(before..<rows.shape[0]), constants: before > 0 ? [rows.rows(0..<before)] : [])
  }
}
