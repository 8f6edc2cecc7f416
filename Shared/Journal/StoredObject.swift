import Foundation

/// Bytes that are kept outside the journal's rows, which name them.
///
/// A name is used once: what it names never changes, and when no row has it any more, no row ever has it again. So
/// the object can be deleted without a look at what is written at the same time.
public struct StoredObject: Hashable, Sendable {
  /// Names it, at most ``maxNameBytes`` of ASCII.
  public var name: String
  /// Its size.
  public var byteCount: Int

  /// See the properties.
  public init(name: String, byteCount: Int) {
    self.name = name
    self.byteCount = byteCount
  }

  /// The longest name, in bytes.
  public static let maxNameBytes = 128
}
