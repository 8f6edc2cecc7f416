import Kernels
import TensorCore
import Testing

@Suite struct DeterminismTests {
  /// The result of every parallel operation.
  static func results(_ compute: Compute) -> [Tensor] {
    let type = compute.activationDType
    let x = randomTensor([301, 130], seed: 1), weight = randomTensor([611, 130], .bf16, seed: 2), bias = randomTensor([611], seed: 3)
    let layer = compute.prepareLinear(weight: weight, bias: bias)
    var residual = randomTensor([301, 611], seed: 4)
    compute.linear(x, layer, addingTo: &residual, gate: randomTensor([611], seed: 5))
    let q = randomTensor([333, 96], type, seed: 6), k = randomTensor([555, 48], type, seed: 7), v = randomTensor([555, 48], type, seed: 8)
    let picture = randomTensor([33, 29, 40], seed: 9)
    let convolution = compute.prepareConvolution(weight: randomTensor([70, 40, 3, 3], seed: 10), bias: randomTensor([70], seed: 11))
    var rotated = randomTensor([301, 64], type, seed: 12)
    let table = RotaryTable(cos: randomTensor([301, 16], seed: 13), sin: randomTensor([301, 16], seed: 14))
    compute.headNormRotary(&rotated, heads: 2, normWeight: nil, epsilon: 1e-6, rotary: table, style: .interleaved)
    return [
      compute.linear(x, layer, activation: .geluTanh), residual,
      compute.attention(q: q, k: k, v: v, heads: 4, kvHeads: 2, headDim: 24, causal: true), compute.convolution(picture, convolution),
      rotated,
      compute.rmsNorm(x, weight: randomTensor([130], seed: 15), epsilon: 1e-6),
      compute.channelRMSNorm(picture, gamma: randomTensor([40], seed: 16), silu: true),
      compute.upsampleNearest2x(picture),
    ]
  }

  @Test(arguments: everyComputeAndBLAS) func bytesDoNotDependOnTheNumberOfThreads(_ compute: Compute) {
    let alone = Self.results(
      Compute(
        precision: compute.precision, pool: ThreadPool(threads: 1), instructionSet: compute.instructionSet,
        matrixLibrary: compute.matrixLibrary))
    for threads in [2, 3, 5] {
      let pool = ThreadPool(threads: threads)
      for _ in 0..<3 {
        let results = Self.results(
          Compute(precision: compute.precision, pool: pool, instructionSet: compute.instructionSet, matrixLibrary: compute.matrixLibrary))
        for (index, result) in results.enumerated() {
          #expect(result.isIdentical(to: alone[index]), "\(compute.numericsClass), \(threads) threads, result \(index)")
        }
      }
    }
  }

  @Test func instructionSetsAreChosenByName() throws {
    #expect(InstructionSet.available.first == .portable)
    #expect(try InstructionSet.requested(nil) == InstructionSet.available.last)
    #expect(try InstructionSet.requested("portable") == .portable)
    #expect(throws: KernelError.unknownInstructionSet("sse9")) { try InstructionSet.requested("sse9") }
    for set in InstructionSet.allCases where !InstructionSet.available.contains(set) {
      #expect(throws: KernelError.unavailableInstructionSet(set, available: InstructionSet.available)) {
        try InstructionSet.requested(set.rawValue)
      }
    }
    #expect(KernelError.unknownInstructionSet("sse9").description.contains("QWEN_IMAGE_ISA=sse9"))
  }

  @Test func numericsClassNamesWhatBytesDependOn() {
    let compute = Compute(precision: .bf16, pool: testPool, instructionSet: .portable)
    #expect(compute.numericsClass == "bf16/portable/1")
  }
}
