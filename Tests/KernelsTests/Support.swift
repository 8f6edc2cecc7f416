import CKernelModels
import Foundation
import Kernels
import Synchronization
import TensorCore
import Testing

/// A small seeded generator (SplitMix64), so that failures repeat.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64
  init(_ seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
  /// Roughly normal: the sum of the word's four quarters, centred and scaled to variance 1.
  mutating func normal() -> Float {
    let word = next()
    let sum = Int32(word & 0xffff) + Int32(word >> 16 & 0xffff) + Int32(word >> 32 & 0xffff) + Int32(word >> 48)
    return Float(sum - 131070) * (1 / 37837)
  }
}

/// A tensor of roughly normal numbers.
func randomTensor(_ shape: Shape, _ dtype: DType = .fp32, scale: Float = 1, offset: Float = 0, seed: UInt64) -> Tensor {
  var generator = SeededGenerator(seed &* 7919 &+ 13)
  let tensor = Tensor((0..<shape.elementCount).map { _ in generator.normal() * scale + offset }, shape: shape)
  return dtype == .fp32 ? tensor : tensor.rounded(to: dtype)
}

extension Tensor {
  /// A copy with elements rounded by arithmetic of its own, not by the kernels under test.
  func rounded(to dtype: DType) -> Tensor {
    switch dtype {
    case .fp32: self
    case .bf16: Tensor(floats().map(Reference.bf16Bits), .bf16, shape: shape)
    case .fp16: Tensor(floats().map { Float16($0) }, .fp16, shape: shape)
    default: preconditionFailure()
    }
  }

  /// The elements as doubles.
  var doubles: [Double] { floats().map(Double.init) }

  /// The elements' bytes.
  var byteArray: [UInt8] { withBytes { $0.withUnsafeBytes { Array($0) } } }

  /// Whether two tensors agree in type, shape and every bit.
  func isIdentical(to other: Tensor) -> Bool {
    dtype == other.dtype && shape == other.shape
      && withBytes { own in
        other.withBytes { other in
          own.withUnsafeBytes { own in
            other.withUnsafeBytes { memcmp(own.baseAddress!, $0.baseAddress!, byteCount) == 0 }
          }
        }
      }
  }
}

/// Records the first element that is further from its reference than its bound.
func expectClose(
  _ result: Tensor, _ reference: [Double], _ comment: @autoclosure () -> String = "",
  sourceLocation: SourceLocation = #_sourceLocation,
  within bound: (Int, Double) -> Double
) {
  let values = result.doubles
  #expect(values.count == reference.count, sourceLocation: sourceLocation)
  for (index, (value, expected)) in zip(values, reference).enumerated()
  where !(abs(value - expected) <= bound(index, expected)) {
    Issue.record(
      "\(comment()): element \(index) is \(value), not \(expected) ± \(bound(index, expected))",
      sourceLocation: sourceLocation)
    return
  }
}

/// ‖a - b‖ / ‖b‖.
func relativeError(_ a: Tensor, _ reference: [Double]) -> Double {
  let values = a.doubles
  precondition(values.count == reference.count)
  var difference = 0.0, norm = 0.0
  for (x, y) in zip(values, reference) {
    difference += (x - y) * (x - y)
    norm += y * y
  }
  return norm == 0 ? difference.squareRoot() : (difference / norm).squareRoot()
}

/// Distance in units of the last place of `reference` as a float; subnormals count in their own spacing.
func ulps(_ value: Float, _ reference: Double) -> Double {
  if value.isNaN { return reference.isNaN ? 0 : .infinity }
  if value.isInfinite {
    return reference.magnitude > Double(Float.greatestFiniteMagnitude) && (value > 0) == (reference > 0) ? 0 : .infinity
  }
  return abs(Double(value) - reference) / Double(Float(reference).magnitude.ulp)
}

/// A pool for tests that don't care how many threads there are.
let testPool = ThreadPool(threads: 2)

/// Models of the instruction sets that a machine of today may lack, at a precision; none on one without AVX2.
func modelledComputes(_ precision: Precision) -> [Compute] {
  [(InstructionSet.avxvnni, MODEL_AVXVNNI), (.amx, MODEL_AMX)].compactMap { set, model in
    kernel_model(Int32(model)).map {
      Compute(precision: precision, pool: testPool, instructionSet: set, model: $0)
    }
  }
}

/// Every table of this machine, and every model, at the given precisions.
func everyCompute(_ precisions: [Precision] = Precision.allCases) -> [Compute] {
  precisions.flatMap { precision in
    InstructionSet.available.map { Compute(precision: precision, pool: testPool, instructionSet: $0) }
      + modelledComputes(precision)
  }
}

/// ``everyCompute(_:)`` at the precisions that operations other than linear layers tell apart.
let floatingComputes = everyCompute([.fp32, .bf16])

/// ``everyCompute(_:)`` at every precision, and OpenBLAS.
let everyComputeAndBLAS = everyCompute() + [Compute(precision: .fp32, pool: testPool, matrixLibrary: .openBLAS)]

extension Compute: CustomTestStringConvertible {
  /// The numerics class tells tables apart.
  public var testDescription: String { numericsClass }
}

/// The unit roundoff of a result type: half a unit in the last place of 1.
func roundoff(_ dtype: DType) -> Double { dtype == .fp32 ? 0x1p-24 : 0x1p-8 }

/// References in double precision are slow in debug builds: every table shares one.
final class SharedReferences<Key: Hashable & Sendable, Value: Sendable>: Sendable {
  private let values = Mutex([Key: Value]())

  func value(_ key: Key, _ make: () -> Value) -> Value {
    values.withLock { values in
      if let value = values[key] { return value }
      let value = make()
      values[key] = value
      return value
    }
  }
}
