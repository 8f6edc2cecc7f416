/// The extents of a row-major tensor, outermost dimension first.
public struct Shape: Hashable, Sendable, ExpressibleByArrayLiteral, CustomStringConvertible {
  /// The extents. A scalar has none.
  public let dimensions: [Int]

  /// A shape with `dimensions`, none of which may be negative.
  public init(_ dimensions: [Int]) {
    precondition(dimensions.allSatisfy { $0 >= 0 }, "negative extent in \(dimensions)")
    self.dimensions = dimensions
  }

  /// A shape written as a literal: `[2, 3]`.
  public init(arrayLiteral elements: Int...) { self.init(elements) }

  /// Number of dimensions.
  public var rank: Int { dimensions.count }

  /// Product of the extents; 1 for a scalar. Traps on overflow: sizes read from outside are checked before they get
  /// here.
  public var elementCount: Int { dimensions.reduce(1, *) }

  /// The extent of one dimension; negative indices count from the end.
  public subscript(index: Int) -> Int { dimensions[index < 0 ? rank + index : index] }

  /// `[2, 3]`
  public var description: String { "[" + dimensions.map(String.init).joined(separator: ", ") + "]" }
}
