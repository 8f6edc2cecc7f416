import Foundation
import Kernels
import Measuring
import TensorCore

/// Usage: KernelBenchmark [--threads N] [--isa NAME] [--repetitions N] [linear] [attention] [convolution] [elementwise]
///
/// Measures the ceilings first, then the kernels at the shapes of the full-size models, and prints ratios to the
/// ceilings.
@main
struct KernelBenchmark {
  var instructionSet = InstructionSet.best
  var repetitions = 7
  let pool: ThreadPool

  static func main() throws {
    var threads = AvailableProcessors.current.threadCount, repetitions = 7, set = InstructionSet.best,
      parts: Set<String> = []
    var arguments = Array(CommandLine.arguments.dropFirst())
    while !arguments.isEmpty {
      let name = arguments.removeFirst()
      func value() -> String { arguments.isEmpty ? "" : arguments.removeFirst() }
      func number() -> Int {
        let text = value()
        guard let number = Int(text), number > 0 else { fail("\(name) is \"\(text)\", but must be a number from 1") }
        return number
      }
      switch name {
      case "--threads": threads = number()
      case "--repetitions": repetitions = number()
      case "--isa":
        do { set = try InstructionSet.requested(value()) } catch { fail("\(error)") }
      case "linear", "attention", "convolution", "elementwise": parts.insert(name)
      default:
        fail(
          "unknown argument \(name); there are --threads N, --repetitions N, --isa NAME, and the parts linear, "
            + "attention, convolution, elementwise")
      }
    }
    let pool = ThreadPool(threads: threads)
    let benchmark = KernelBenchmark(instructionSet: set, repetitions: repetitions, pool: pool)
    print("instruction set \(set.rawValue), \(threads) threads, medians of \(repetitions)")
    print("rates by the clock [by processor time]; ratios to ceilings measured just before and after, likewise")
    benchmark.printCeilings()
    if parts.isEmpty || parts.contains("linear") { benchmark.linear() }
    if parts.isEmpty || parts.contains("attention") { benchmark.attention() }
    if parts.isEmpty || parts.contains("convolution") { benchmark.convolution() }
    if parts.isEmpty || parts.contains("elementwise") { benchmark.elementwise() }
  }

  private static func fail(_ message: String) -> Never {
    FileHandle.standardError.write(Data((message + "\n").utf8))
    exit(64)
  }

  private func format(_ value: Double, _ digits: Int = 0) -> String { String(format: "%.\(digits)f", value) }

  private func printCeilings() {
    for (name, ceiling) in [("fp32", Ceiling.fp32), ("bf16", .bf16), ("int8", .int8), ("memory, bytes", .memory)] {
      let (wall, processor) = ceiling.measure(pool: pool)
      let label = name.padding(toLength: 36, withPad: " ", startingAt: 0)
      print("ceiling \(label) \(format(wall / 1e9)) [\(format(processor / 1e9))] G/s")
    }
  }

  /// Prints one line: work per second, and its ratio to a ceiling.
  private func report(_ name: String, operations: Double, _ ceiling: Ceiling, _ work: () -> Void) {
    let (median, ratio) = ceiling.compare(operations: operations, repetitions: repetitions, pool: pool, work)
    let label = name.padding(toLength: 44, withPad: " ", startingAt: 0)
    print(
      "\(label) \(format(median.wall * 1e3, 2)) ms  \(format(operations / median.wall / 1e9)) "
        + "[\(format(operations / median.processor / 1e9))] G/s  "
        + "\(format(ratio.wall, 3)) [\(format(ratio.processor, 3))]")
  }

  private func ceiling(_ precision: Precision) -> Ceiling {
    switch precision {
    case .fp32: .fp32
    case .bf16: .bf16
    case .int8, .q4: .int8
    }
  }

  private func linear() {
    for (m, k, n) in [
      (1152, 3072, 12288), (4224, 3072, 3072), (1152, 12288, 3072), (128, 3584, 18944), (1, 3072, 18432),
    ] {
      let weight = noise([n, k], .bf16, scale: 0.02, pool: pool), bias = noise([n], .fp32, pool: pool),
        operations = 2 * Double(m * n * k)
      for precision in Precision.allCases {
        let compute = Compute(precision: precision, pool: pool, instructionSet: instructionSet)
        let layer = compute.prepareLinear(weight: weight, bias: bias),
          x = noise([m, k], compute.activationDType, pool: pool)
        var out = MutableTensor(uninitialized: [m, n], compute.activationDType)
        let name = "linear \(precision.rawValue) M\(m) K\(k) N\(n)"
        report(name, operations: operations, ceiling(precision)) { compute.linear(x, layer, into: &out) }
        if (m, k, n) == (1152, 3072, 12288) {
          report("  with GELU", operations: operations, ceiling(precision)) {
            compute.linear(x, layer, activation: .geluTanh, into: &out)
          }
          report("  with a new result", operations: operations, ceiling(precision)) { _ = compute.linear(x, layer) }
        }
        if (m, k, n) == (1152, 12288, 3072) {
          var residual = Tensor.zeros([m, n])
          report("  into a gated residual", operations: operations, ceiling(precision)) {
            compute.linear(x, layer, addingTo: &residual, gate: bias)
          }
        }
      }
      let blas = Compute(precision: .fp32, pool: pool, matrixLibrary: .openBLAS)
      let layer = blas.prepareLinear(weight: weight, bias: bias), x = noise([m, k], .fp32, pool: pool)
      report("  OpenBLAS fp32", operations: operations, .fp32) { _ = blas.linear(x, layer) }
    }
  }

  private func attention() {
    for (n, heads, kvHeads, headDim, precision) in [
      (1152, 24, 24, 128, Precision.bf16), (1152, 24, 24, 128, .int8), (4224, 24, 24, 128, .bf16),
      (4224, 24, 24, 128, .int8), (16384, 24, 24, 128, .bf16), (16384, 24, 24, 128, .int8),
      (4224, 32, 32, 128, .bf16), (4224, 32, 32, 128, .int8), (512, 28, 4, 128, .bf16), (1152, 24, 24, 128, .fp32),
      (4096, 1, 1, 384, .fp32),
    ] {
      let compute = Compute(precision: precision, pool: pool, instructionSet: instructionSet)
      let q = noise([n, heads * headDim], compute.activationDType, scale: 2, pool: pool)
      let k = noise([n, kvHeads * headDim], compute.activationDType, scale: 2, pool: pool)
      let v = noise([n, kvHeads * headDim], compute.activationDType, pool: pool),
        operations = 4 * Double(n * n * heads * headDim)
      report(
        "attention \(precision.rawValue) \(n) tokens, \(heads)/\(kvHeads) × \(headDim)", operations: operations,
        ceiling(precision)
      ) {
        _ = compute.attention(q: q, k: k, v: v, heads: heads, kvHeads: kvHeads, headDim: headDim, causal: false)
      }
    }
  }

  private func convolution() {
    let compute = Compute(precision: .bf16, pool: pool, instructionSet: instructionSet)
    for (size, input, output) in [
      (512, 96, 96), (256, 192, 192), (128, 384, 384), (64, 384, 384), (512, 96, 3), (1024, 96, 96),
    ] {
      let layer = compute.prepareConvolution(
        weight: noise([output, input, 3, 3], .fp32, scale: 0.05, pool: pool), bias: noise([output], .fp32, pool: pool))
      let x = noise([size, size, input], .fp32, pool: pool), operations = 18 * Double(size * size * input * output)
      report("convolution \(size)² × \(input) → \(output)", operations: operations, .fp32) {
        _ = compute.convolution(x, layer)
      }
    }
    for (size, channels) in [(1024, 96), (512, 192), (256, 384)] {
      let layer = compute.prepareConvolution(
        weight: noise([channels, channels, 3, 3], .fp32, scale: 0.05, pool: pool),
        bias: noise([channels], .fp32, pool: pool), stride: 2)
      let x = noise([size, size, channels], .fp32, pool: pool)
      let operations = 18 * Double(size / 2 * size / 2 * channels * channels)
      report("convolution \(size)² × \(channels), stride 2", operations: operations, .fp32) {
        _ = compute.convolution(x, layer)
      }
    }
  }

  private func elementwise() {
    // In bytes read and written per second.
    let compute = Compute(precision: .bf16, pool: pool, instructionSet: instructionSet)
    let x = noise([1152, 3072], .fp32, pool: pool), vector = noise([3072], .fp32, pool: pool),
      elements = Double(x.elementCount)
    func traffic(_ name: String, bytes: Double, _ work: () -> Void) { report(name, operations: bytes, .memory, work) }
    traffic("layerNormModulate 1152 × 3072", bytes: elements * 6) {
      _ = compute.layerNormModulate(x, shift: vector, scale: vector, epsilon: 1e-6)
    }
    traffic("rmsNorm 1152 × 3072", bytes: elements * 6) { _ = compute.rmsNorm(x, weight: vector, epsilon: 1e-6) }
    let table = RotaryTable(cos: noise([1152, 64], .fp32, pool: pool), sin: noise([1152, 64], .fp32, pool: pool))
    var heads = noise([1152, 3072], .bf16, pool: pool)
    let norm = noise([128], .fp32, pool: pool)
    traffic("headNormRotary 1152 × 24 × 128", bytes: elements * 4) {
      compute.headNormRotary(&heads, heads: 24, normWeight: norm, epsilon: 1e-6, rotary: table, style: .interleaved)
    }
    let gate = noise([512, 18944], .bf16, pool: pool)
    traffic("siluMultiply 512 × 18944", bytes: Double(gate.elementCount) * 6) { _ = compute.siluMultiply(gate, gate) }
    let image = noise([512, 512, 96], .fp32, pool: pool), gamma = noise([96], .fp32, pool: pool)
    traffic("channelRMSNorm + SiLU 512² × 96", bytes: Double(image.elementCount) * 8) {
      _ = compute.channelRMSNorm(image, gamma: gamma, silu: true)
    }
    let half = noise([256, 256, 192], .fp32, pool: pool)
    traffic("upsampleNearest2x 256² × 192", bytes: Double(half.elementCount) * 20) {
      _ = compute.upsampleNearest2x(half)
    }
  }
}
