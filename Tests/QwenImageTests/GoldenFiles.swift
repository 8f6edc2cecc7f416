import StrictJSON

extension JSON {
  /// The elements of an array of integers.
  var integers: [Int]? { elements?.compactMap(\.integer) }
}
