import Diffusion
import TensorCore

extension MMDiT {
  /// Runs all blocks, for branches with caches only those that they need: the image that is made decides; condition
  /// images and text follow.
  func runBlocksWithCaches(_ streams: inout Streams, _ branches: [Branch]) {
    let image = consecutiveRows(branches.map(\.imageTokens))
    let text = consecutiveRows(branches.map { $0.conditioning.text.shape[0] })
    var parts = branches.indices.map { index in
      let made = branches[index].latents.shape[0], rows = streams.image.rows(image[index])
      let references = made < rows.shape[0] ? [rows.rows(made..<rows.shape[0])] : []
      return BranchStreams(image: rows.rows(0..<made), others: references + [streams.text.rows(text[index])])
    }
    BlockCache.run(&parts, caches: branches.map(\.cache), blockCount: blockCount) { blocks, active, parts in
      let members = active.map { branches[$0] }
      var pass = Streams(
        image: Tensor.stacking(active.flatMap { [parts[$0].image] + parts[$0].others.dropLast() }),
        text: Tensor.stacking(active.map { parts[$0].others[parts[$0].others.count - 1] }))
      runBlocks(&pass, members, range: blocks, updatesLastText: false)
      let image = consecutiveRows(members.map(\.imageTokens))
      let text = consecutiveRows(members.map { $0.conditioning.text.shape[0] })
      for (place, index) in active.enumerated() {
        let made = branches[index].latents.shape[0], rows = pass.image.rows(image[place])
        let references = made < rows.shape[0] ? [rows.rows(made..<rows.shape[0])] : []
        parts[index] = BranchStreams(image: rows.rows(0..<made), others: references + [pass.text.rows(text[place])])
      }
    }
    streams.image = Tensor.stacking(parts.flatMap { [$0.image] + $0.others.dropLast() })
  }
}
