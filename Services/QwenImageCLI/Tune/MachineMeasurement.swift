import Diffusion
import Foundation
import Kernels
import TensorCore

/// Measures a machine within about a given time: each measurement has an equal share of what is left of it, and is done
/// twice at least.
struct MachineMeasurement {
  /// Called before each measurement with those that are done and their total.
  let progress: (_ done: Int, _ total: Int) -> Void
  private let deadline: ContinuousClock.Instant
  private var done = 0
  private let total: Int
  /// Of the calls that counted: seconds by the clock, and of this process's processor time.
  private var clockSeconds = 0.0, processorSeconds = 0.0

  init(seconds: Double, measurements: Int, progress: @escaping (_ done: Int, _ total: Int) -> Void) {
    self.progress = progress
    deadline = ContinuousClock.now + .seconds(seconds)
    total = measurements
    // In a moment only a first impression is to be had.
    (rows, queries) = seconds < 10 ? (96, 192) : (512, 1024)
  }

  /// Tokens of a product: with more than 512 of them the rate hardly changes.
  private let rows: Int
  /// Queries of attention.
  private let queries: Int

  /// The seconds that `body` takes, behind a first call that warms up: of all calls the time that a quarter stays
  /// below, because what other programs take makes some of them longer and none shorter.
  private mutating func seconds(_ body: () -> Void) -> Double {
    progress(done, total)
    body()
    let now = ContinuousClock.now, left = (deadline - now) / .seconds(1)
    let end = now + .seconds(left / Double(max(total - done, 1)))
    done += 1
    let processor = Self.processorTime()
    var times: [Double] = []
    repeat {
      let start = ContinuousClock.now
      body()
      times.append((ContinuousClock.now - start) / .seconds(1))
    } while ContinuousClock.now < end && times.count < 200
    clockSeconds += times.reduce(0, +)
    processorSeconds += Self.processorTime() - processor
    return max(times.sorted()[times.count / 4], 1e-9)
  }

  /// The part of the time of `processors` that this process had while it measured; forgets what it had before.
  mutating func takeProcessorShare(processors: Double) -> Double {
    defer { (clockSeconds, processorSeconds) = (0, 0) }
    return processorSeconds / max(clockSeconds, 1e-9) / processors
  }

  private static func processorTime() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }

  /// Operations a second of a layer's products.
  mutating func rate(of layer: MachineRates.Layer, _ compute: Compute) -> Double {
    rate(
      inFeatures: layer.inFeatures, outFeatures: layer.outFeatures, rows: rows, rotates: layer.isRotated, compute)
  }

  private mutating func rate(
    inFeatures: Int, outFeatures: Int, rows: Int, rotates: Bool, repeated count: Int = 1, _ compute: Compute
  ) -> Double {
    let weight = compute.prepareLinear(weight: Self.values([outFeatures, inFeatures]), rotates: rotates)
    let input = Self.input([rows, inFeatures], compute)
    let seconds = seconds { for _ in 0..<count { _ = compute.linear(input, weight) } }
    return 2 * Double(count) * Double(rows) * Double(inFeatures) * Double(outFeatures) / seconds
  }

  /// Operations a second of attention.
  mutating func rate(of heads: MachineRates.Heads, _ compute: Compute) -> Double {
    let width = heads.count * heads.dim
    let q = Self.input([queries, width], compute)
    let k = Self.input([heads.keys, width], compute), v = Self.input([heads.keys, width], compute)
    let seconds = seconds {
      _ = compute.attention(
        q: q, k: k, v: v, heads: heads.count, kvHeads: heads.count, headDim: heads.dim, causal: false)
    }
    return 4 * Double(queries) * Double(heads.keys) * Double(width) / seconds
  }

  /// How `threads` threads fare: operations a second of a layer's products, and of products so short that what is
  /// between them counts.
  mutating func threadRates(_ threads: Int) -> (long: Double, short: Double) {
    let compute = Compute(precision: .bf16, pool: ThreadPool(threads: threads))
    let long = rate(inFeatures: 3072, outFeatures: 3072, rows: rows, rotates: false, compute)
    let short = rate(inFeatures: 512, outFeatures: 512, rows: 64, rotates: false, repeated: 50, compute)
    return (long, short)
  }

  /// Bytes a second that `threads` threads read together, of a buffer of `byteCount` bytes, which is to be larger than
  /// all caches.
  mutating func memoryRate(threads: Int, byteCount: Int) -> Double {
    let pool = ThreadPool(threads: threads), buffer = Tensor.zeros([max(byteCount / 4, 1)])
    return Double(buffer.byteCount) / seconds { pool.readThrough(buffer) }
  }

  private static func input(_ shape: Shape, _ compute: Compute) -> Tensor {
    let tensor = values(shape)
    return compute.activationDType == .bf16 ? tensor : compute.converted(tensor, to: compute.activationDType)
  }

  /// Numbers of bf16 between 2⁻⁶ and 2⁻⁵, of either sign.
  private static func values(_ shape: Shape) -> Tensor {
    var result = MutableTensor(uninitialized: shape, .bf16)
    result.withElements(as: UInt16.self) { elements in
      var state: UInt32 = 1
      for index in elements.indices {
        state = state &* 1_664_525 &+ 1_013_904_223
        elements[index] = UInt16(truncatingIfNeeded: state >> 16) & 0x807f | 121 << 7
      }
    }
    return result.finish()
  }
}
