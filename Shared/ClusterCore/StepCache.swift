/// How a denoising job leaves parts of the network out in some of its steps, and uses what earlier steps have computed
/// instead: exact settings, so that a job does not change when presets do.
///
/// Steps are counted among those that the job makes: an image-to-image job begins with its first own step.
public struct StepCache: Hashable, Sendable {
  /// What is left out, and when.
  public enum Method: String, CaseIterable, Sendable {
    /// The first block decides: as long as what it adds has hardly changed since the last computed step, what all other
    /// blocks have added then is added again.
    case firstBlock = "first_block"
    /// The same with several first blocks, and with last blocks that always run (DBCache).
    case dualBlock = "dual_block"
    /// Every `interval`-th step runs; the velocities of the others are extrapolated (TaylorSeer).
    case taylor
    /// Given steps do not run; their velocities are extrapolated.
    case mask

    /// Whether it is known before the first step which steps run the whole network.
    public var isPlanned: Bool { self == .taylor || self == .mask }
  }

  /// What is left out, and when.
  public var method: Method
  /// Block methods: greatest relative change of what the first blocks add, in the mean of absolute values.
  public var threshold = 0.0
  /// Block methods: blocks that always run, at the beginning.
  public var frontBlocks = 0
  /// Block methods: blocks that always run, at the end.
  public var backBlocks = 0
  /// Steps at the beginning that run the whole network.
  public var warmup = 0
  /// Steps at the end that run the whole network.
  public var last = 0
  /// Block methods: most steps in a row that use what an earlier one has computed.
  public var maxConsecutive = 0
  /// Taylor: from one step that runs the network to the next.
  public var interval = 0
  /// Planned methods: degree of the polynomial through the last velocities.
  public var order = 0
  /// Mask: steps that do not run the network, counted from 1, rising.
  public var skip: [Int] = []

  /// Settings of a method, all 0.
  public init(_ method: Method) { self.method = method }

  /// Relative change of what the first block adds.
  public static func firstBlock(threshold: Double, warmup: Int, last: Int, maxConsecutive: Int) -> StepCache {
    var cache = StepCache(.firstBlock)
    (cache.threshold, cache.frontBlocks, cache.warmup, cache.last) = (threshold, 1, warmup, last)
    cache.maxConsecutive = maxConsecutive
    return cache
  }

  /// Settings with a name.
  public enum Preset: String, CaseIterable, Sendable {
    /// Every step runs the whole network.
    case off
    /// Hardly visible changes.
    case balanced
    /// Twice as fast and more; details may change.
    case fast

    /// The settings as they are today (`Shared/Documentation/step-caches.md` has the measurements).
    public var cache: StepCache? {
      switch self {
      case .off: nil
      case .balanced: .firstBlock(threshold: 0.08, warmup: 4, last: 1, maxConsecutive: 2)
      case .fast: .firstBlock(threshold: 0.2, warmup: 3, last: 1, maxConsecutive: 4)
      }
    }
  }
}

// MARK: - Which steps run

extension StepCache {
  /// Whether a step runs the whole network whatever the latents are.
  ///
  /// - Parameters:
  ///   - step: from 0.
  ///   - count: of the job's steps.
  ///   - computed: the last step before it that ran the whole network; nil: there was none.
  public func mustCompute(_ step: Int, of count: Int, after computed: Int?) -> Bool {
    guard let computed else { return true }
    switch method {
    case .firstBlock, .dualBlock: return step < warmup || step >= count - last || step - computed > maxConsecutive
    case .taylor: return step < warmup || step >= count - last || (step - warmup + 1).isMultiple(of: interval)
    case .mask: return !skip.contains(step + 1)
    }
  }

  /// Planned methods: the steps before `step` whose velocities the extrapolation goes through, rising.
  public func support(of step: Int, of count: Int) -> [Int] {
    var found: [Int] = []
    for earlier in stride(from: step - 1, through: 0, by: -1) where found.count <= order {
      if mustCompute(earlier, of: count, after: earlier == 0 ? nil : 0) { found.append(earlier) }
    }
    return found.reversed()
  }

  /// Most velocities that a checkpoint carries beside the latents.
  public var historyMax: Int { method.isPlanned ? order + 1 : 0 }
}
