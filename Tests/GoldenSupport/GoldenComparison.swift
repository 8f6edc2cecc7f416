import Foundation
import ImageCodec
import Synchronization
import TensorCore
import Testing
import Weights

/// The repository's reference data.
package let golden = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .appending(path: "Golden")

/// Collects what a probe records, in the order of computation.
package final class Recording: Sendable {
  private let entries = Mutex<[(name: String, tensor: Tensor)]>([])

  package init() {}

  package var probe: Probe { Probe { name, tensor in self.entries.withLock { $0.append((name, tensor)) } } }
  package var all: [(name: String, tensor: Tensor)] { entries.withLock { $0 } }
  package func tensor(_ name: String) -> Tensor? { all.first { $0.name == name }?.tensor }
}

/// ‖actual − expected‖ / ‖expected‖.
package func relativeError(_ actual: [Float], _ expected: [Float]) -> Double {
  guard actual.count == expected.count else { return .infinity }
  var (difference, norm) = (0.0, 0.0)
  for (a, e) in zip(actual, expected) {
    difference += (Double(a) - Double(e)) * (Double(a) - Double(e))
    norm += Double(e) * Double(e)
  }
  return norm == 0 ? difference.squareRoot() : (difference / norm).squareRoot()
}

/// A safetensors file with reference tensors.
package struct ReferenceTensors {
  private let file: SafetensorsFile
  package let names: Set<String>

  package init(_ url: URL) throws {
    file = try SafetensorsFile(url)
    names = Set(file.names)
  }

  /// The values of `name`; integers as floats.
  package func floats(_ name: String) throws -> [Float] {
    let tensor = try file.tensor(name)
    switch tensor.dtype {
    case .int64: return tensor.withElements(as: Int64.self) { values in values.indices.map { Float(values[$0]) } }
    case .uint8: return tensor.withElements(as: UInt8.self) { values in values.indices.map { Float(values[$0]) } }
    default: return tensor.floats()
    }
  }

  /// The extents of `name`.
  package func shape(_ name: String) throws -> Shape { try file.tensor(name).shape }
}

/// Compares recorded tensors with the reference in the order they were computed, so that the first failure is the
/// tensor where the implementations part ways.
package func expectAgreement(
  _ recording: Recording, with reference: ReferenceTensors, tolerance: Double, notRecorded: (String) -> Bool,
  sourceLocation: SourceLocation = #_sourceLocation
) throws {
  var compared: Set<String> = []
  for (name, tensor) in recording.all where reference.names.contains(name) && !compared.contains(name) {
    compared.insert(name)
    let error = relativeError(tensor.floats(), try reference.floats(name))
    guard error <= tolerance else {
      Issue.record(
        "first diverging tensor: \(name) \(tensor.shape), relative error \(error)", sourceLocation: sourceLocation)
      return
    }
  }
  let missing = reference.names.subtracting(compared).filter { !notRecorded($0) }.sorted()
  #expect(
    missing.isEmpty, "reference tensors that nothing was compared with: \(missing)", sourceLocation: sourceLocation)
}

/// At most 1/255 off in at most 0.1 % of the values.
package func expectSameImage(_ image: RasterImage, _ url: URL) throws {
  let expected = try PNG.decode([UInt8](Data(contentsOf: url))).image
  #expect(
    image.width == expected.width && image.height == expected.height && image.channels == expected.channels)
  let differences = zip(image.pixels, expected.pixels).map { abs(Int($0) - Int($1)) }
  let wrong = differences.filter { $0 > 0 }.count
  #expect(differences.max() ?? 0 <= 1, "a value is off by \(differences.max() ?? 0)/255")
  #expect(wrong * 1000 <= differences.count, "\(wrong) of \(differences.count) values differ")
}
