import COpenBLAS

/// Single-precision products of tiles by OpenBLAS, whose own threads are off: our pool is the only one.
///
/// Tiles are of fixed extents, so that the number of threads changes nothing. A row's place in its tile does: the
/// Haswell and Zen kernels of OpenBLAS 0.3.21, for one, sum rows 6 to 11 of every twelve in another order than rows 0
/// to 5.
enum Sgemm {
  static let tileRows = 192
  static let tileColumns = 384

  /// Turns OpenBLAS's threads off, once.
  static let configure: Void = openblas_set_num_threads(1)

  /// OpenBLAS's version and the kernels it chose for this processor.
  static var version: String {
    let configuration = String(cString: openblas_get_config()).split(separator: " ")
    return "\(configuration.dropFirst().first ?? "unknown")-\(String(cString: openblas_get_corename()))"
  }

  /// acc[rows, columns] = a[rows, depth] · w[columns, depth]ᵀ, acc dense; where `accumulates`, what acc was is added.
  static func tile(
    _ acc: UnsafeMutablePointer<Float>, _ a: UnsafePointer<Float>, lda: Int, _ w: UnsafePointer<Float>, ldw: Int,
    rows: Int,
    columns: Int, depth: Int, accumulates: Bool = false
  ) {
    cblas_sgemm(
      CblasRowMajor, CblasNoTrans, CblasTrans, Int32(rows), Int32(columns), Int32(depth), 1, a, Int32(lda), w,
      Int32(ldw), accumulates ? 1 : 0, acc,
      Int32(columns))
  }
}
