import CCeilings
import Kernels
import TensorCore

/// Seconds that some work took.
public struct Cost {
  /// By the clock.
  public var wall: Double
  /// Of processor time, over all threads, divided by their number: what the clock would have shown on an idle machine.
  public var processor: Double
}

/// Runs `work` once.
public func cost(threads: Int, _ work: () throws -> Void) rethrows -> Cost {
  let clock = ContinuousClock(), before = process_seconds()
  let elapsed = try clock.measure(work)
  let wall = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) * 1e-18
  return Cost(wall: wall, processor: (process_seconds() - before) / Double(threads))
}

/// Medians of `repetitions` runs after a warm-up: processors at rest start at half speed.
public func medianCost(repetitions: Int, threads: Int, _ work: () -> Void) -> Cost {
  var warmedSeconds = 0.0
  repeat { warmedSeconds += cost(threads: threads, work).wall } while warmedSeconds < 0.3
  return median((0..<repetitions).map { _ in cost(threads: threads, work) })
}

private func median(_ samples: [Cost]) -> Cost {
  Cost(
    wall: samples.map(\.wall).sorted()[samples.count / 2],
    processor: samples.map(\.processor).sorted()[samples.count / 2])
}

/// What this machine can do at most: units per second over all threads of a pool.
public enum Ceiling: String, Sendable, CaseIterable {
  case fp32, bf16, int8, memory

  /// Units per second by the clock and by processor time: a median.
  public func measure(pool: ThreadPool) -> (perWall: Double, perProcessor: Double) {
    withSample(pool: pool) { units, work in
      let median = medianCost(repetitions: 5, threads: pool.threadCount, work)
      return (units / median.wall, units / median.processor)
    }
  }

  /// Medians of `repetitions` runs of `work`, and of their ratios to the ceiling: `operations` per second over the
  /// units per second measured right before and after each run, since the load of most machines varies.
  public func compare(operations: Double, repetitions: Int, pool: ThreadPool, _ work: () -> Void) -> (
    cost: Cost, ratio: Cost
  ) {
    withSample(pool: pool) { units, ceiling in
      let threads = pool.threadCount
      _ = medianCost(repetitions: 1, threads: threads, work)
      var costs: [Cost] = [], ratios: [Cost] = []
      for _ in 0..<repetitions {
        let before = cost(threads: threads, ceiling), own = cost(threads: threads, work),
          after = cost(threads: threads, ceiling)
        let scale = operations / units / 2
        costs.append(own)
        ratios.append(
          Cost(
            wall: scale * (before.wall + after.wall) / own.wall,
            processor: scale * (before.processor + after.processor) / own.processor)
        )
      }
      return (median(costs), median(ratios))
    }
  }

  /// Calls `body` with work of about 20 ms on all threads, and its units.
  private func withSample<Result>(pool: ThreadPool, _ body: (_ units: Double, _ work: () -> Void) -> Result) -> Result {
    let rounds = 6_000_000, bytesPerThread = 256 << 20
    let memory = self == .memory ? Tensor.zeros([pool.threadCount, bytesPerThread / 4]) : Tensor.zeros([1])
    func run(_ index: Int) -> Double {
      var sink: Float = 0
      switch self {
      case .fp32: return ceiling_fp32(rounds, &sink)
      case .bf16: return ceiling_bf16(rounds, &sink)
      case .int8: return ceiling_int8(rounds, &sink)
      case .memory:
        return memory.rows(index..<index + 1).withBytes {
          $0.withUnsafeBytes { ceiling_read($0.baseAddress!, $0.count, &sink) }
        }
      }
    }
    let units = Double(pool.threadCount) * run(0)
    return body(units) { pool.parallel(pool.threadCount) { _ = run($0) } }
  }
}

/// A tensor of uniform numbers in ±`scale`, filled in parallel.
public func noise(_ shape: Shape, _ dtype: DType, scale: Float = 1, pool: ThreadPool) -> Tensor {
  let chunk = 1 << 20
  let tensor = pool.tensor(shape, .fp32, of: Float.self, pieceElements: chunk) { range, values in
    var state = UInt64(range.lowerBound / chunk) &* 0x9E37_79B9_7F4A_7C15 | 1
    for i in values.indices {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      values[i] = Float(Int32(truncatingIfNeeded: state)) * (scale / 2_147_483_648)
    }
  }
  return dtype == .fp32 ? tensor : Compute(precision: .fp32, pool: pool).converted(tensor, to: dtype)
}
