import CKernels
import TensorCore

/// How weights and activations of matrix products are represented.
public enum Precision: String, Sendable, CaseIterable {
  /// Single precision: what the other modes are measured against.
  case fp32
  /// bf16 weights and activations, fp32 sums and residual streams.
  case bf16
  /// 8-bit weights, one scale per output channel, times 8-bit activations, one scale per row, quantized as they arrive.
  /// Attention to many keys is in 8 bits too (``Compute/hasAttentionInt8(keys:headDim:)``). All else as in ``bf16``.
  case int8
  /// 4-bit weights, one 8-bit factor per 16 inputs and one scale per output channel, expanded to 8 bits as they are
  /// used. All else as in ``int8``.
  case q4
}

/// Who multiplies fp32 matrices.
public enum MatrixLibrary: String, Sendable, CaseIterable {
  /// This module's kernels.
  case own
  /// OpenBLAS: an independent implementation, to measure the kernels against. Its processor-specific kernels treat a
  /// row differently at different positions of a batch, so rows are independent of one another only up to rounding.
  case openBLAS
}

/// The arithmetic of the models: every operation, at one precision, on one pool of threads.
///
/// Results do not depend on the number of threads, and no row of a result depends on the other rows of its batch: work
/// is cut along outputs only, in tiles of fixed size, and every sum is taken in one fixed order.
public struct Compute: Sendable {
  /// Representation of matrix products.
  public let precision: Precision
  /// The instructions in use.
  public let instructionSet: InstructionSet
  /// Who multiplies fp32 matrices; bf16 products are always the kernels'.
  public let matrixLibrary: MatrixLibrary
  let pool: ThreadPool
  let table: KernelTable

  /// Arithmetic on the threads of `pool`. `instructionSet` must be one of ``InstructionSet/available``.
  public init(
    precision: Precision, pool: ThreadPool, instructionSet: InstructionSet = .best, matrixLibrary: MatrixLibrary = .own
  ) {
    self.precision = precision
    self.instructionSet = instructionSet
    self.matrixLibrary = matrixLibrary
    self.pool = pool
    self.table = KernelTable(instructionSet)
    Sgemm.configure
  }

  /// Arithmetic by a model of an instruction set that this machine may lack (Tests/KernelModels).
  ///
  /// - Parameter model: a `ck_table` that never changes.
  package init(precision: Precision, pool: ThreadPool, instructionSet: InstructionSet, model: UnsafeRawPointer) {
    self.precision = precision
    self.instructionSet = instructionSet
    self.matrixLibrary = .own
    self.pool = pool
    self.table = KernelTable(model: model)
  }

  /// The same arithmetic on the threads of another pool.
  package func on(_ pool: ThreadPool) -> Compute { Compute(self, pool: pool) }

  private init(_ other: Compute, pool: ThreadPool) {
    precision = other.precision
    instructionSet = other.instructionSet
    matrixLibrary = other.matrixLibrary
    table = other.table
    self.pool = pool
  }

  /// Threads that operations are shared among.
  public var threadCount: Int { pool.threadCount }

  /// Element type of activations between operations.
  public var activationDType: DType {
    switch precision {
    case .fp32: .fp32
    case .bf16, .int8, .q4: .bf16
    }
  }

  /// Names everything that results depend on besides the inputs: equal strings promise equal bytes.
  public var numericsClass: String {
    let version =
      switch precision {
      case .fp32, .bf16: Self.numericsVersion
      case .int8: Self.int8NumericsVersion
      case .q4: Self.q4NumericsVersion
      }
    let own = "\(precision.rawValue)/\(table.name)/\(version)"
    return matrixLibrary == .openBLAS ? "\(own)/openblas-\(Sgemm.version)" : own
  }

  /// Raised whenever a change of the kernels changes bytes.
  private static let numericsVersion = 3
  /// The same of ``Precision/int8``, which changes by what only this mode uses as well.
  private static let int8NumericsVersion = 6
  /// The same of ``Precision/q4``.
  private static let q4NumericsVersion = 6

  var functions: ck_table { table.functions }

  /// Cuts `count` rows into pieces that are worth a thread's while and calls `body` with each, in parallel. Only for
  /// operations that treat rows apart.
  func parallelRows(_ count: Int, bytesPerRow: Int, grain: Int = 1, _ body: (Range<Int>) -> Void) {
    let target = 128 << 10
    let piece = max(1, target / max(bytesPerRow, 1) / grain) * grain
    pool.parallel((count + piece - 1) / piece) { index in
      let start = index * piece
      body(start..<min(start + piece, count))
    }
  }

  /// An fp32 version of a floating-point tensor: itself where it is one already.
  func fp32(_ tensor: Tensor) -> Tensor { tensor.dtype == .fp32 ? tensor : converted(tensor, to: .fp32) }

  /// A copy with elements of another floating-point type, fp32 or bf16.
  public func converted(_ tensor: Tensor, to dtype: DType) -> Tensor {
    precondition(dtype == .fp32 || dtype == .bf16, "cannot convert to \(dtype)")
    return filled(tensor.shape, dtype, reading: tensor) { result in
      parallelRows(tensor.elementCount, bytesPerRow: 8, grain: 16) { range in
        functions.convert(
          result.address(range.lowerBound, count: range.count), dtype.kernelType,
          tensor.address(range.lowerBound, count: range.count), tensor.dtype.kernelType, range.count)
      }
    }
  }
}
