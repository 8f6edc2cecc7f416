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
  let samples = (0..<repetitions).map { _ in cost(threads: threads, work) }
  return Cost(wall: samples.map(\.wall).sorted()[repetitions / 2], processor: samples.map(\.processor).sorted()[repetitions / 2])
}

/// What this machine can do at most: units per second over all threads of a pool.
public enum Ceiling: String, Sendable, CaseIterable {
  case fp32, bf16, int8, memory

  /// Units per second by the clock and by processor time; measured anew each time, since other work comes and goes.
  public func measure(pool: ThreadPool) -> (perWall: Double, perProcessor: Double) {
    let rounds = 2_000_000, bytesPerThread = 256 << 20
    let memory = self == .memory ? Tensor.zeros([pool.threadCount, bytesPerThread / 4]) : Tensor.zeros([1])
    func run(_ index: Int) -> Double {
      var sink: Float = 0
      switch self {
      case .fp32: return ceiling_fp32(rounds, &sink)
      case .bf16: return ceiling_bf16(rounds, &sink)
      case .int8: return ceiling_int8(rounds, &sink)
      case .memory: return ceiling_read(memory.bytes.baseAddress! + index * bytesPerThread, bytesPerThread, &sink)
      }
    }
    let units = Double(pool.threadCount) * run(0)
    let median = medianCost(repetitions: 5, threads: pool.threadCount) { pool.parallel(pool.threadCount) { _ = run($0) } }
    return withExtendedLifetime(memory) { (units / median.wall, units / median.processor) }
  }
}

/// A tensor of uniform numbers in ±`scale`, filled in parallel.
public func noise(_ shape: Shape, _ dtype: DType, scale: Float = 1, pool: ThreadPool) -> Tensor {
  let tensor = Tensor(uninitialized: shape), values = tensor.pointer(as: Float.self), count = shape.elementCount, chunk = 1 << 20
  pool.parallel((count + chunk - 1) / chunk) { index in
    var state = UInt64(index) &* 0x9E37_79B9_7F4A_7C15 | 1
    for i in index * chunk..<min(count, (index + 1) * chunk) {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      values[i] = Float(Int32(truncatingIfNeeded: state)) * (scale / 2_147_483_648)
    }
  }
  return dtype == .fp32 ? tensor : Compute(precision: .fp32, pool: pool).converted(tensor, to: dtype)
}
