/// A named argument that the common fields of a request do not cover.
public struct Parameter: Sendable, Equatable {
  /// What a parameter can hold.
  public enum Value: Sendable, Equatable {
    /// A finite number.
    case number(Double)
    /// An integer.
    case integer(Int64)
    /// Text.
    case text(String)
    /// Yes or no.
    case flag(Bool)
  }

  /// The argument's name.
  public var name: String
  /// The argument.
  public var value: Value

  /// A named argument.
  public init(_ name: String, _ value: Value) {
    self.name = name
    self.value = value
  }
}
