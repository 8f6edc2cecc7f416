import CKernels
import TensorCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Why a kernel configuration was refused.
public enum KernelError: Error, Sendable, Equatable, CustomStringConvertible {
  /// ``InstructionSet/environmentVariable`` names no instruction set.
  case unknownInstructionSet(String)
  /// The named instruction set exists, but this machine lacks it.
  case unavailableInstructionSet(InstructionSet, available: [InstructionSet])
  /// A tensor of a packed layer is missing, or does not fit the layer.
  case invalidPart(String, reason: String)

  /// Names the variable, its value and what would work.
  public var description: String {
    switch self {
    case .unknownInstructionSet(let name):
      "\(InstructionSet.environmentVariable)=\(name): unknown instruction set; "
        + "one of \(Self.list(InstructionSet.allCases))"
    case .unavailableInstructionSet(let set, let available):
      "\(InstructionSet.environmentVariable)=\(set.rawValue): this machine lacks it; it has \(Self.list(available))"
    case .invalidPart(let name, let reason): "packed layer: tensor \(name) \(reason)"
    }
  }

  private static func list(_ sets: [InstructionSet]) -> String { sets.map(\.rawValue).joined(separator: ", ") }
}

/// A table of kernels, named for the instructions it needs.
public enum InstructionSet: String, Sendable, CaseIterable {
  /// Plain C for the target's baseline.
  case portable
  /// NEON (64-bit ARM).
  case neon
  /// NEON with 8-bit and bf16 dot products.
  case neonbf16
  /// AVX2 and FMA.
  case avx2
  /// AVX2 with 8-bit dot products.
  case avxvnni
  /// AVX-512 F, BW, DQ and VL.
  case avx512
  /// AVX-512 with 8-bit dot products.
  case avx512vnni
  /// AVX-512 with 8-bit and bf16 dot products.
  case avx512bf16
  /// The same with 8-bit and bf16 products of tile registers (AMX).
  case amx

  /// Overrides the choice of ``best``; for debugging.
  public static let environmentVariable = "QWEN_IMAGE_ISA"

  /// Those this machine has, the preferred one last.
  public static let available: [InstructionSet] = allCases.filter { ck_table_for($0.index) != nil }

  /// The preferred one of this machine, or the one that the environment asks for. An unusable request is reported on
  /// standard error and ignored; programs that would rather stop call ``requested(_:)`` first.
  public static let best: InstructionSet = {
    do { return try requested(getenv(environmentVariable).map { String(cString: $0) }) } catch {
      let message = "\(error); using \(available.last!.rawValue)\n"
      _ = write(STDERR_FILENO, message, message.utf8.count)
      return available.last!
    }
  }()

  /// The instruction set with the given name, or the preferred one for nil or an empty name.
  public static func requested(_ name: String?) throws(KernelError) -> InstructionSet {
    guard let name, !name.isEmpty else { return available.last! }
    guard let set = InstructionSet(rawValue: name) else { throw .unknownInstructionSet(name) }
    guard available.contains(set) else { throw .unavailableInstructionSet(set, available: available) }
    return set
  }

  /// Whether products of bf16 have instructions, and so take half the time of fp32 products, or less.
  public var multipliesBF16: Bool { isAnswered { $0.has_bf16_dot } }

  /// Whether products of 8-bit numbers have instructions, and so take a quarter of the time of fp32 products.
  public var multipliesInt8: Bool { isAnswered { $0.has_int8_dot } }

  /// What the set's table says; false if this machine lacks it.
  private func isAnswered(_ answer: (ck_table) -> Int32) -> Bool {
    ck_table_for(index).map { answer($0.pointee) != 0 } ?? false
  }

  /// What users of this set should know; nil: nothing.
  public var caution: String? {
    switch self {
    case .amx:
      "kernels for AMX: tested by a model of the instructions, not yet on such a processor; "
        + "\(Self.environmentVariable)=\(Self.avx512bf16.rawValue) computes without"
    case .neon, .neonbf16:
      "kernels for NEON: tested under an emulator, not yet on such a processor; "
        + "\(Self.environmentVariable)=\(Self.portable.rawValue) computes without"
    default: nil
    }
  }

  var index: Int32 {
    switch self {
    case .portable: Int32(CK_PORTABLE)
    case .neon: Int32(CK_NEON)
    case .neonbf16: Int32(CK_NEONBF16)
    case .avx2: Int32(CK_AVX2)
    case .avxvnni: Int32(CK_AVXVNNI)
    case .avx512: Int32(CK_AVX512)
    case .avx512vnni: Int32(CK_AVX512VNNI)
    case .avx512bf16: Int32(CK_AVX512BF16)
    case .amx: Int32(CK_AMX)
    }
  }
}

/// The C functions of an instruction set, or of a model of one.
struct KernelTable: Sendable {
  nonisolated(unsafe) private let table: UnsafePointer<ck_table>

  init(_ set: InstructionSet) {
    guard let table = ck_table_for(set.index) else { preconditionFailure("this machine lacks \(set.rawValue)") }
    self.table = table
  }

  /// - Parameter model: a `ck_table` that never changes.
  init(model: UnsafeRawPointer) { table = model.assumingMemoryBound(to: ck_table.self) }

  /// A copy of the table, which is constant static data.
  var functions: ck_table { table.pointee }

  /// The instruction set's, or of what stands for it.
  var name: String { String(cString: table.pointee.name) }
}
