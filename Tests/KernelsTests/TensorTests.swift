import TensorCore
import Testing

/// Tensors are values: what one of them shows never changes through another one.
@Suite struct TensorTests {
  private static let counting = Tensor((0..<12).map(Float.init), shape: [4, 3])

  private static func address(_ tensor: Tensor) -> Int {
    tensor.withBytes { $0.withUnsafeBytes { Int(bitPattern: $0.baseAddress) } }
  }

  private static func negate(_ tensor: inout MutableTensor) {
    tensor.withElements(as: Float.self) { for i in $0.indices { $0[i] = -$0[i] } }
  }

  @Test func writingInPlaceLeavesOtherTensorsAsTheyWere() {
    var tensor = Self.counting
    let (copy, view) = (tensor, tensor.rows(1..<3))
    tensor.withMutableTensor(Self.negate)
    #expect(tensor.floats() == (0..<12).map { -Float($0) })
    #expect(copy.floats() == (0..<12).map(Float.init) && view.floats() == (3..<9).map(Float.init))
  }

  @Test func onlyUserOfItsStorageIsWrittenWhereItIs() {
    var tensor = Self.counting.copied()
    let before = Self.address(tensor)
    tensor.withMutableTensor(Self.negate)
    tensor.withMutableRows(1..<2, Self.negate)
    #expect(Self.address(tensor) == before)
    #expect(tensor.floats() == [0, -1, -2, 3, 4, 5, -6, -7, -8, -9, -10, -11])
  }

  /// A view that is left alone with its storage owns it, the rows beside it are never read again.
  @Test func aViewOfATensorThatIsGoneIsWrittenInPlace() {
    var view = Self.counting.copied().rows(2..<4)
    let before = Self.address(view)
    view.withMutableTensor(Self.negate)
    #expect(Self.address(view) == before)
    #expect(view.floats() == [-6, -7, -8, -9, -10, -11])
  }

  @Test func finishedTensorsKeepWhatWasWritten() {
    var tensor = MutableTensor(zeros: [3, 2])
    tensor.copy(Tensor([1, 2], shape: [1, 2]), toRowsFrom: 1)
    tensor.withElements(as: Float.self) { $0[5] = 7 }
    tensor.moveRows(1..<3, to: 0)
    let finished = tensor.finish()
    #expect(finished.floats() == [1, 2, 0, 7, 0, 7])
    #expect(finished.shape == [3, 2] && finished.dtype == .fp32)
  }

  @Test func rowsAreStackedAndPicked() {
    let tensor = Self.counting
    #expect(Tensor.stacking([tensor.rows(2..<4), tensor.rows(0..<1)]).floats() == [6, 7, 8, 9, 10, 11, 0, 1, 2])
    #expect(Tensor.stacking([tensor.rows(1..<2)]).floats() == [3, 4, 5])
    #expect(tensor.rows(from: 1, by: 2).floats() == [3, 4, 5, 9, 10, 11])
    #expect(tensor.rows(from: 4, by: 1).shape == [0, 3])
  }
}
