import ClusterCore
import Synchronization
import TensorCore

/// What a job with a step cache of a block method keeps of the last step that ran the whole network, and its decision
/// for the present one.
///
/// The job's first branch, that of the prompt, decides for all of them: every branch has then been computed in the same
/// steps, so that a resume from the last of these steps finds what it needs by computing it again.
///
/// Kept are fp32 tensors: of the first branch what the first blocks have added [N, inner], and of each branch what
/// those in between have added [N, inner], with last blocks of all tokens.
public final class BlockCache: Sendable {
  /// The method, its threshold and its blocks.
  public let settings: StepCache

  private struct State {
    var mustCompute = true
    /// nil: the first branch has yet to decide.
    var reuses: Bool?
    var front: Tensor?
    /// Per branch.
    var rest: [Int: [Tensor]] = [:]
  }

  private let state = Mutex(State())

  /// A cache without anything.
  public init(_ settings: StepCache) { self.settings = settings }

  /// The view of one branch of guidance, 0 being the one that decides.
  public func branch(_ index: Int) -> BranchCache { BranchCache(cache: self, index: index) }

  /// Begins a step: with `mustCompute` it runs the whole network, else the first branch decides.
  package func begin(mustCompute: Bool) {
    state.withLock {
      $0.mustCompute = mustCompute
      $0.reuses = nil
    }
  }

  /// Whether the present step has run the whole network.
  package var hasComputed: Bool { state.withLock { $0.reuses == false } }

  /// Bytes that are kept.
  public var byteCount: Int {
    state.withLock { state in
      (state.front?.byteCount ?? 0) + state.rest.values.joined().reduce(0) { $0 + $1.byteCount }
    }
  }

  fileprivate func reuses(_ branch: Int, before: Tensor, after: Tensor) -> Bool {
    state.withLock { state in
      guard branch == 0 else {
        guard let reuses = state.reuses else { preconditionFailure("branch \(branch) comes before the first one") }
        return reuses
      }
      let change = after.subtracting(before)
      let reuses =
        if state.mustCompute { false } else {
          state.front.map { change.relativeChange(from: $0) < settings.threshold } ?? false
        }
      state.reuses = reuses
      if !reuses { state.front = change }
      return reuses
    }
  }

  fileprivate func keep(_ rest: [Tensor], of branch: Int) { state.withLock { $0.rest[branch] = rest } }

  fileprivate func rest(of branch: Int) -> [Tensor] {
    guard let rest = state.withLock({ $0.rest[branch] }) else {
      preconditionFailure("branch \(branch) was not computed in the step that is used again")
    }
    return rest
  }
}

/// One branch's part of a ``BlockCache``.
public struct BranchCache: Sendable {
  fileprivate let cache: BlockCache
  fileprivate let index: Int

  /// Blocks that always run, at the beginning and at the end.
  var blocks: (front: Int, back: Int) { (cache.settings.frontBlocks, cache.settings.backBlocks) }
}

/// The streams of one branch between two blocks of its network, fp32.
package struct BranchStreams {
  /// Tokens of the image that is made [N, inner]: what decides, and what the velocity is made of.
  package var image: Tensor
  /// Streams that change with the image's: of what they gain, too, is used again what an earlier step has computed.
  package var others: [Tensor]
  /// Streams that are the same in every step.
  package var constants: [Tensor]

  package init(image: Tensor, others: [Tensor] = [], constants: [Tensor] = []) {
    self.image = image
    self.others = others
    self.constants = constants
  }
}

extension BlockCache {
  /// Runs the blocks of a network for branches of which some have caches.
  ///
  /// A branch's bytes are those that it has alone: which others are in a pass, and what they leave out, changes
  /// nothing.
  ///
  /// - Parameters:
  ///   - streams: of each branch, before the first block; afterwards those behind the last one. Where no last blocks
  ///     run only ``BranchStreams/image`` is then up to date.
  ///   - caches: of each branch; nil: all blocks run.
  ///   - run: runs some blocks for some branches, in one pass.
  package static func run(
    _ streams: inout [BranchStreams], caches: [BranchCache?], blockCount: Int,
    run: (_ blocks: Range<Int>, _ branches: [Int], _ streams: inout [BranchStreams]) -> Void
  ) {
    let inner = caches.map { cache in
      cache.map { $0.blocks.front..<max($0.blocks.front, blockCount - $0.blocks.back) } ?? 0..<blockCount
    }
    let bounds = Set(inner.flatMap { [$0.lowerBound, $0.upperBound] } + [0, blockCount]).sorted()
    let entrance = streams.map(\.image)
    var isReusing = caches.map { _ in false }, before: [Int: BranchStreams] = [:]
    for (start, end) in zip(bounds, bounds.dropFirst()) {
      for (branch, cache) in caches.enumerated() where inner[branch].lowerBound == start {
        guard let cache else { continue }
        isReusing[branch] = cache.cache.reuses(cache.index, before: entrance[branch], after: streams[branch].image)
        if !isReusing[branch] { before[branch] = streams[branch] }
      }
      let active = streams.indices.filter { !isReusing[$0] || !inner[$0].contains(start) }
      if !active.isEmpty { run(start..<end, active, &streams) }
      for (branch, cache) in caches.enumerated() where inner[branch].upperBound == end {
        guard let cache else { continue }
        if isReusing[branch] {
          streams[branch].add(cache.cache.rest(of: cache.index))
        } else if let earlier = before.removeValue(forKey: branch) {
          cache.cache.keep(streams[branch].gains(since: earlier, all: cache.blocks.back > 0), of: cache.index)
        }
      }
    }
  }
}

extension BranchStreams {
  /// What streams have gained; constant ones as they are.
  fileprivate func gains(since earlier: BranchStreams, all: Bool) -> [Tensor] {
    let image = image.subtracting(earlier.image)
    guard all else { return [image] }
    // Rows of a whole pass would keep all of it in memory.
    return [image] + zip(others, earlier.others).map { $0.subtracting($1) } + constants.map { $0.copied() }
  }

  fileprivate mutating func add(_ gains: [Tensor]) {
    image = image.adding(gains[0])
    guard gains.count > 1 else { return }
    others = zip(others, gains[1...]).map { $0.adding($1) }
    constants = Array(gains[(1 + others.count)...])
  }
}

// MARK: - Arithmetic

extension Tensor {
  /// The difference of two fp32 tensors of one shape.
  func subtracting(_ other: Tensor) -> Tensor { combined(with: other) { $0 - $1 } }

  /// The sum of two fp32 tensors of one shape.
  func adding(_ other: Tensor) -> Tensor { combined(with: other) { $0 + $1 } }

  @inline(__always)
  private func combined(with other: Tensor, _ operation: (Float, Float) -> Float) -> Tensor {
    precondition(shape == other.shape, "\(shape) and \(other.shape)")
    var result = MutableTensor(uninitialized: shape)
    result.withElements(as: Float.self) { result in
      withElements(as: Float.self) { a in
        other.withElements(as: Float.self) { b in
          for index in result.indices { result[index] = operation(a[index], b[index]) }
        }
      }
    }
    return result.finish()
  }

  /// Σ|self − earlier| / Σ|earlier| of two fp32 tensors of one shape, summed in the order of the elements in double:
  /// the same on every machine and number of threads. Without any change 0, also where `earlier` is 0.
  package func relativeChange(from earlier: Tensor) -> Double {
    precondition(shape == earlier.shape, "\(shape) and \(earlier.shape)")
    var change = 0.0, whole = 0.0
    withElements(as: Float.self) { now in
      earlier.withElements(as: Float.self) { then in
        for index in now.indices {
          change += abs(Double(now[index]) - Double(then[index]))
          whole += abs(Double(then[index]))
        }
      }
    }
    return change == 0 ? 0 : change / whole
  }
}
