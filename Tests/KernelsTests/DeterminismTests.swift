import Kernels
import TensorCore
import Testing

@Suite struct DeterminismTests {
  /// What the operations are tried on; made once per activation type.
  struct Inputs: Sendable {
    let x = randomTensor([301, 130], seed: 1), weight = randomTensor([611, 130], .bf16, seed: 2),
      bias = randomTensor([611], seed: 3)
    let residual = randomTensor([301, 611], seed: 4), gate = randomTensor([611], seed: 5)
    let q: Tensor, k: Tensor, v: Tensor, heads: Tensor
    let image = randomTensor([33, 29, 40], seed: 9), kernel = randomTensor([70, 40, 3, 3], seed: 10),
      shift = randomTensor([70], seed: 11)
    let rotary = RotaryTable(cos: randomTensor([301, 16], seed: 13), sin: randomTensor([301, 16], seed: 14))
    let norm = randomTensor([130], seed: 15), gamma = randomTensor([40], seed: 16)

    init(_ type: DType) {
      q = randomTensor([333, 96], type, seed: 6)
      k = randomTensor([555, 48], type, seed: 7)
      v = randomTensor([555, 48], type, seed: 8)
      heads = randomTensor([301, 64], type, seed: 12)
    }

    static let fp32 = Inputs(.fp32), bf16 = Inputs(.bf16)
  }

  /// The result of every parallel operation.
  static func results(_ compute: Compute) -> [Tensor] {
    let inputs = compute.activationDType == .fp32 ? Inputs.fp32 : .bf16
    let layer = compute.prepareLinear(weight: inputs.weight, bias: inputs.bias)
    let convolution = compute.prepareConvolution(weight: inputs.kernel, bias: inputs.shift)
    let downsampling = compute.prepareConvolution(weight: inputs.kernel, bias: inputs.shift, stride: 2)
    var residual = inputs.residual.copied(), rotated = inputs.heads.copied()
    compute.linear(inputs.x, layer, addingTo: &residual, gate: inputs.gate)
    compute.headNormRotary(
      &rotated, heads: 2, normWeight: nil, epsilon: 1e-6, rotary: inputs.rotary, style: .interleaved)
    return [
      compute.linear(inputs.x, layer, activation: .geluTanh), residual,
      compute.attention(q: inputs.q, k: inputs.k, v: inputs.v, heads: 4, kvHeads: 2, headDim: 24, causal: true),
      compute.convolution(inputs.image, convolution), compute.convolution(inputs.image, downsampling), rotated,
      compute.rmsNorm(inputs.x, weight: inputs.norm, epsilon: 1e-6),
      compute.channelRMSNorm(inputs.image, gamma: inputs.gamma, silu: true),
      compute.upsampleNearest2x(inputs.image),
    ]
  }

  @Test(arguments: everyComputeAndBLAS) func bytesDoNotDependOnTheNumberOfThreads(_ compute: Compute) {
    let alone = Self.results(compute.on(ThreadPool(threads: 1)))
    for threads in [2, 3, 5, 16] {
      let pool = ThreadPool(threads: threads)
      for _ in 0..<3 {
        let results = Self.results(compute.on(pool))
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
    #expect(InstructionSet.allCases.filter { $0.caution != nil } == [.neon, .neonbf16, .amx])
    #expect(KernelError.unknownInstructionSet("sse9").description.contains("QWEN_IMAGE_ISA=sse9"))
  }

  @Test func numericsClassNamesWhatBytesDependOn() {
    let compute = Compute(precision: .bf16, pool: testPool, instructionSet: .portable)
    #expect(compute.numericsClass == "bf16/portable/3")
    for set in InstructionSet.available {
      let name = Compute(precision: .q4, pool: testPool, instructionSet: set).numericsClass
      #expect(name.split(separator: "/")[1] == set.rawValue)
    }
  }
}
