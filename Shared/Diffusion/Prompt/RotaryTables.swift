import Foundation
import Kernels
import TensorCore

extension RotaryTable {
  /// Tables for tokens of text and images (M-RoPE): every frequency turns by the position on one of the three axes.
  /// Text has the same position on all of them, which makes it ordinary RoPE.
  ///
  /// - Parameters:
  ///   - axes: of each frequency: 0 is time, 1 the row, 2 the column.
  ///   - theta: base of the frequencies.
  package init(positions: [TokenSequence.Position], axes: [Int], theta: Double) {
    let half = axes.count
    let frequencies = (0..<half).map { 1 / Float(pow(theta, Double(Float(2 * $0) / Float(2 * half)))) }
    var (cosines, sines) = ([Float](), [Float]())
    for position in positions {
      for (frequency, axis) in zip(frequencies, axes) {
        let angle = Double(Float(position[axis]) * frequency)
        cosines.append(Float(Foundation.cos(angle)))
        sines.append(Float(Foundation.sin(angle)))
      }
    }
    self.init(
      cos: Tensor(cosines, shape: [positions.count, half]), sin: Tensor(sines, shape: [positions.count, half]))
  }

  /// Tables for the patches of images: half of a head's frequencies turn by the row, the others by the column.
  package init(places: [(row: Int, column: Int)], headDim: Int, theta: Double) {
    let half = headDim / 2, count = half / 2
    let frequencies = (0..<count).map { 1 / Float(pow(theta, Double(Float(2 * $0) / Float(half)))) }
    let positions = (places.map { max($0.row, $0.column) }.max() ?? 0) + 1
    let angles = (0..<positions).map { position in frequencies.map { Double(Float(position) * $0) } }
    func table(_ function: (Double) -> Double) -> Tensor {
      let values = angles.map { $0.map { Float(function($0)) } }
      var elements: [Float] = []
      elements.reserveCapacity(places.count * half)
      for place in places {
        elements += values[place.row]
        elements += values[place.column]
      }
      return Tensor(elements, shape: [places.count, half])
    }
    self.init(cos: table(Foundation.cos), sin: table(Foundation.sin))
  }
}
