import Foundation
import TensorCore
import Testing

@Suite struct BlockRecyclerTests {
  @Test func contentsOfLiveBlocksAreNeverShared() {
    DispatchQueue.concurrentPerform(iterations: 4) { worker in
      for round in 0..<200 {
        let sizes = [130_000, 1 << 20, 5_000_001, 70].map { $0 + round % 3 * 4096 }
        let value = UInt8(truncatingIfNeeded: worker * 64 + round % 64)
        let tensors = sizes.map { size in
          var tensor = MutableTensor(uninitialized: [size], .uint8)
          tensor.withElements(as: UInt8.self) { $0.update(repeating: value) }
          return tensor.finish()
        }
        for tensor in tensors {
          let isIntact = tensor.withElements(as: UInt8.self) { $0[0] == value && $0[$0.count - 1] == value }
          if !isIntact { Issue.record("a block of \(tensor.byteCount) bytes was overwritten") }
          #expect(tensor.withBytes { $0.withUnsafeBytes { UInt(bitPattern: $0.baseAddress!) % 64 } } == 0)
        }
      }
    }
  }

  @Test func blocksComeBackBySize() {
    let recycler = BlockRecycler(idleBytesMax: 1000), (small, large) = (malloc(100)!, malloc(300)!)
    recycler.give(small, byteCount: 100)
    recycler.give(large, byteCount: 300)
    #expect(recycler.idleBytes == 400)
    #expect(recycler.take(byteCount: 300) == large && recycler.take(byteCount: 100) == small)
    #expect(recycler.idleBytes == 0 && recycler.take(byteCount: 100) == nil)
    recycler.give(large, byteCount: 300)
    recycler.releaseIdleBlocks()
    #expect(recycler.idleBytes == 0)
    free(small)
  }

  @Test func idleBlocksAreFreedForOthersAndLimited() {
    let recycler = BlockRecycler(idleBytesMax: 1000)
    for bytes in [100, 300, 500] { recycler.give(malloc(bytes), byteCount: bytes) }
    // New memory of 600 bytes: the blocks of 500 and 300 go.
    #expect(recycler.take(byteCount: 600) == nil && recycler.idleBytes == 100)
    recycler.give(malloc(901), byteCount: 901)
    #expect(recycler.idleBytes == 100)
  }
}
