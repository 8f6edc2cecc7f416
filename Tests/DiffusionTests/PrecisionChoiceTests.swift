import Diffusion
import Kernels
import Testing

@Suite struct PrecisionChoiceTests {
  /// By what the processor's tables say of themselves, not by their names.
  @Test func plainWeightsAreInt8OnlyWhereThatHasInstructionsAndBF16HasNone() {
    for set in InstructionSet.available {
      let expected: Precision = [.avxvnni, .avx512vnni].contains(set) ? .int8 : .bf16
      #expect(PrecisionChoice.precisionOfPlainWeights(on: set) == expected, "\(set)")
      #expect(set.multipliesBF16 == [.neonbf16, .avx512bf16, .amx].contains(set), "\(set)")
      #expect(set.multipliesInt8 == (set.multipliesBF16 || expected == .int8), "\(set)")
    }
    for set in InstructionSet.allCases where !InstructionSet.available.contains(set) {
      #expect(!set.multipliesBF16 && !set.multipliesInt8, "this machine lacks \(set)")
    }
  }
}
