import ClusterCore
import Diffusion
import Foundation
import TensorCore
import Testing

/// Settings of step caches: names, limits, and which steps run.
@Suite struct StepCacheTests {
  @Test func settingsHaveDefaultsAndNames() throws {
    let first = try StepCache(method: "first_block", ["threshold": .number(0.25)])
    #expect(first == .firstBlock(threshold: 0.25, warmup: 4, last: 1, maxConsecutive: 3))
    #expect(first.description == "first_block:threshold=0.25,warmup=4,last=1,max_consecutive=3")
    let taylor = try StepCache(method: "taylor", ["interval": .number(3), "order": .number(2)])
    #expect((taylor.interval, taylor.order, taylor.warmup, taylor.last) == (3, 2, 3, 1))
    let mask = try StepCache(method: "mask", ["skip": .steps([3, 5])])
    #expect(mask.description == "mask:skip=3+5,order=0")
    for cache in [first, taylor, mask] + StepCache.Preset.allCases.compactMap(\.cache) {
      #expect(try StepCache.parse(cache.description) == cache)
      let json = try JSONEncoder().encode(cache)
      #expect(try JSONDecoder().decode(StepCache.self, from: json) == cache)
    }
    #expect(try StepCache.parse("off") == nil)
    #expect(try StepCache.parse("fast") == StepCache.Preset.fast.cache)
  }

  @Test(arguments: [
    ("slow", "cache"), ("first_block:threshold", "cache"), ("first_block:threshold=x", "cache.threshold"),
    ("first_block:threshold=-1", "cache.threshold"), ("first_block:threshold=nan", "cache.threshold"),
    ("first_block:threshold=11", "cache.threshold"), ("first_block:warmup=0", "cache.warmup"),
    ("first_block:warmup=1.5", "cache.warmup"), ("first_block:last=1001", "cache.last"),
    ("first_block:warmup=1e300", "cache.warmup"), ("first_block:max_consecutive=0", "cache.max_consecutive"),
    ("first_block:front=2", "cache.front"), ("first_block:warmup=4,warmup=4", "cache.warmup"),
    ("dual_block:front=0", "cache.front"), ("dual_block:back=201", "cache.back"),
    ("taylor:interval=1", "cache.interval"),
    ("taylor:order=3", "cache.order"), ("taylor:threshold=1", "cache.threshold"), ("mask", "cache.skip"),
    ("mask:skip=1", "cache.skip"), ("mask:skip=3+3", "cache.skip"), ("mask:skip=5+4", "cache.skip"),
    ("mask:skip=2+x", "cache.skip"), ("mask:skip=1001", "cache.skip"),
  ])
  func refusalsNameTheSetting(_ text: String, _ path: String) throws {
    let error = try #require(throws: StepCacheError.self) { try StepCache.parse(text) }
    #expect(error.path == path, "\(error)")
    #expect(!error.reason.isEmpty)
  }

  @Test func settingsFitTheJob() throws {
    let mask = try StepCache.parse("mask:skip=2+8")
    #expect(throws: Never.self) { try mask?.validate(steps: 8, blocks: 1) }
    #expect(throws: StepCacheError(field: "skip", reason: "has step 8, but there are 7 steps")) {
      try mask?.validate(steps: 7, blocks: 1)
    }
    let dual = try StepCache.parse("dual_block:front=2,back=1")
    #expect(throws: Never.self) { try dual?.validate(steps: 8, blocks: 4) }
    #expect(throws: StepCacheError.self) { try dual?.validate(steps: 8, blocks: 3) }
    #expect(throws: StepCacheError.self) { try StepCache.Preset.fast.cache?.validate(steps: 8, blocks: 1) }
  }

  @Test func blockMethodsComputeAtBothEndsAndNowAndThen() throws {
    let cache = try #require(try StepCache.parse("first_block:warmup=2,last=2,max_consecutive=2"))
    #expect(cache.mustCompute(0, of: 10, after: nil))
    let must = (1..<10).map { step in cache.mustCompute(step, of: 10, after: step - 1) }
    #expect(must == [true, false, false, false, false, false, false, true, true])
    #expect(!cache.mustCompute(5, of: 10, after: 3))
    #expect(cache.mustCompute(6, of: 10, after: 3))
  }

  @Test func plannedMethodsKnowTheirSteps() throws {
    func computed(_ cache: StepCache, of count: Int) -> [Int] {
      (0..<count).filter { cache.mustCompute($0, of: count, after: $0 == 0 ? nil : 0) }
    }
    let taylor = try #require(try StepCache.parse("taylor:interval=3,order=1,warmup=3,last=1"))
    #expect(computed(taylor, of: 12) == [0, 1, 2, 5, 8, 11])
    #expect(taylor.support(of: 7, of: 12) == [2, 5])
    #expect(taylor.support(of: 1, of: 12) == [0])
    #expect(taylor.support(of: 0, of: 12) == [])
    let mask = try #require(try StepCache.parse("mask:skip=2+4+5,order=2"))
    #expect(computed(mask, of: 6) == [0, 2, 5])
    #expect(mask.support(of: 4, of: 6) == [0, 2])
  }

  @Test func changesAreRelative() {
    let earlier = Tensor([1, -2, 0, 1], shape: [2, 2]), now = Tensor([1.5, -2, 0.5, 0], shape: [2, 2])
    #expect(now.relativeChange(from: earlier) == 0.5)
    #expect(earlier.relativeChange(from: earlier) == 0)
    let zero = Tensor.zeros([2, 2])
    #expect(zero.relativeChange(from: zero) == 0)
    #expect(now.relativeChange(from: zero) == .infinity)
    // Nothing that is no number is ever used again.
    #expect(!(Tensor([.nan], shape: [1]).relativeChange(from: Tensor([1], shape: [1])) < 10))
    #expect(!(Tensor([1], shape: [1]).relativeChange(from: Tensor([.nan], shape: [1])) < 10))
  }
}

/// What branches use again, on a network whose blocks are sums.
@Suite struct BlockCacheTests {
  /// Runs blocks that add their number + 1 and a tenth of the stream beside, and counts them.
  private func run(
    _ streams: inout [BranchStreams], _ caches: [BranchCache?], blockCount: Int = 5
  ) -> [[Int]] {
    var passes: [[Int]] = []
    BlockCache.run(&streams, caches: caches, blockCount: blockCount) { blocks, active, streams in
      for block in blocks {
        passes.append([block] + active)
        for index in active {
          let beside = streams[index].others.first?.floats().first ?? 0
          streams[index].image = streams[index].image.mapped { $0 + Float(block + 1) + beside / 8 }
          streams[index].others = streams[index].others.map { $0.mapped { $0 * 2 } }
          streams[index].constants = streams[index].constants.map { $0.mapped { $0 + 1 } }
        }
      }
    }
    return passes
  }

  private func streams(_ value: Float, beside: Float = 0, constant: Float? = nil) -> BranchStreams {
    BranchStreams(
      image: Tensor([value, value], shape: [2, 1]), others: [Tensor([beside], shape: [1, 1])],
      constants: constant.map { [Tensor([$0], shape: [1, 1])] } ?? [])
  }

  private func settings(_ text: String) throws -> StepCache { try #require(try StepCache.parse(text)) }

  @Test func laterStepsAddWhatTheLastOneHasAdded() throws {
    let cache = BlockCache(try settings("first_block:threshold=0.1")), branch: [BranchCache?] = [cache.branch(0)]
    cache.begin(mustCompute: true)
    var first = [streams(0, beside: 8)]
    #expect(run(&first, branch).map(\.first) == [0, 1, 2, 3, 4])
    #expect(cache.hasComputed)
    // What the first block adds is the same: all others are left out.
    cache.begin(mustCompute: false)
    var second = [streams(100, beside: 8)]
    #expect(run(&second, branch).map(\.first) == [0])
    #expect(!cache.hasComputed)
    #expect(second[0].image.floats()[0] - 100 == first[0].image.floats()[0])
    // It has changed by half, and from then on is compared with that.
    for (isComputed, beside) in [(true, 12), (false, 12), (true, 8)] as [(Bool, Float)] {
      cache.begin(mustCompute: false)
      var third = [streams(1, beside: beside)]
      #expect(run(&third, branch).count == (isComputed ? 5 : 1))
      #expect(cache.hasComputed == isComputed)
    }
    cache.begin(mustCompute: true)
    var last = [streams(1, beside: 8)]
    #expect(run(&last, branch).count == 5)
    // What the first block has added, and what the others have, of two tokens.
    #expect(cache.byteCount == 2 * 2 * 4)
  }

  @Test func lastBlocksRunOnStreamsThatAreUpToDate() throws {
    let cache = BlockCache(try settings("dual_block:front=2,back=1,threshold=0.1"))
    cache.begin(mustCompute: true)
    var first = [streams(0, beside: 8, constant: 3)]
    _ = run(&first, [cache.branch(0)])
    cache.begin(mustCompute: false)
    var second = [streams(0, beside: 8, constant: 3)]
    #expect(run(&second, [cache.branch(0)]).map(\.first) == [0, 1, 4])
    #expect(second[0].image.floats() == first[0].image.floats())
    #expect(second[0].others[0].floats() == first[0].others[0].floats())
    #expect(second[0].constants[0].floats() == first[0].constants[0].floats())
  }

  /// The branch of the prompt decides for the other one, and branches of other jobs decide by themselves.
  @Test func branchesThatShareAPassDecideByThemselves() throws {
    let one = BlockCache(try settings("first_block:threshold=0.1"))
    let other = BlockCache(try settings("dual_block:front=3,back=1,threshold=0.1"))
    let caches = [one.branch(0), one.branch(1), nil, other.branch(0)]
    let starts: [[Float]] = [[8, 8, 8, 8], [8, 80, 8, 12], [16, 8, 8, 12]]
    var expected: [[[Float]]] = []
    for (step, values) in starts.enumerated() {
      for cache in [one, other] { cache.begin(mustCompute: step == 0) }
      var all = values.map { streams(0, beside: $0) }
      let passes = run(&all, caches)
      expected.append(all.map { $0.image.floats() })
      #expect(passes.map { $0.dropFirst().contains(0) }.filter { $0 }.count == [5, 1, 5][step])
      #expect(passes.map { $0.dropFirst().contains(1) }.filter { $0 }.count == [5, 1, 5][step])
      #expect(passes.map { $0.dropFirst().contains(2) }.filter { $0 }.count == 5)
      #expect(passes.map { $0.dropFirst().contains(3) }.filter { $0 }.count == [5, 5, 4][step])
    }
    // The same by themselves.
    let alone = [BlockCache(one.settings), BlockCache(other.settings)]
    for (step, values) in starts.enumerated() {
      for cache in alone { cache.begin(mustCompute: step == 0) }
      var pair = values.prefix(2).map { streams(0, beside: $0) }, last = [streams(0, beside: values[3])]
      _ = run(&pair, [alone[0].branch(0), alone[0].branch(1)])
      _ = run(&last, [alone[1].branch(0)])
      let found = (pair + last).map { $0.image.floats() }
      #expect(found == [expected[step][0], expected[step][1], expected[step][3]], "step \(step)")
    }
  }
}

extension Tensor {
  fileprivate func mapped(_ transform: (Float) -> Float) -> Tensor { Tensor(floats().map(transform), shape: shape) }
}
