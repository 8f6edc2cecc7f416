import Foundation

/// A journal whose rows can name objects instead of having bytes.
///
/// It keeps the names alone; where the objects are is its user's affair. Names whose rows are deleted are *dead* in the
/// same transaction, as are those that came with a change which changed nothing; they stay so until
/// ``forgetDeadObjects(_:)``.
public protocol ObjectNamingJournalStore: JournalStore {
  /// Names the journal itself, 16 hexadecimal digits that no other journal has, so that several can keep their objects
  /// at one place.
  var objectSpace: String { get }
  /// Objects that no row names, and that are to be deleted.
  ///
  /// - Parameter limit: at most so many.
  func deadObjects(limit: Int) throws(JournalError) -> [StoredObject]
  /// Drops dead objects, which have been deleted. Of the writer's thread.
  func forgetDeadObjects(_ names: [String]) throws(JournalError)
  /// Those of `names` that a row has.
  func namedObjects(among names: [String]) throws(JournalError) -> Set<String>
  /// The objects that rows name, in the order of their names.
  ///
  /// - Parameters:
  ///   - name: those behind it; nil: from the first one.
  ///   - limit: at most so many.
  func objects(after name: String?, limit: Int) throws(JournalError) -> [StoredObject]
  /// How many bytes the objects have that rows name, or that are dead.
  func objectBytes() throws(JournalError) -> Int64
  /// Whether the journal has this payload, so that writing it again writes nothing.
  func hasPayload(_ id: UInt64) throws(JournalError) -> Bool
  /// Whether the journal has the image that jobs begin with, so that writing it again writes nothing.
  func hasInput(_ digest: String) throws(JournalError) -> Bool
}

/// A journal that can begin the slow part of changes before it is their turn.
public protocol PreparingJournalStore: JournalStore {
  /// Begins what `apply` will need for `changes`, which come to it in the same order. Never blocks.
  func prepare(_ changes: [JournalChange])
  /// Lets go of what was prepared for changes that `apply` has refused and will not get again.
  func discard(_ changes: [JournalChange])
}

extension JournalChange {
  /// The objects that the change names.
  public var objects: [StoredObject] {
    switch self {
    case .admit(let job): job.inputs.compactMap(\.object)
    case .progress(_, let progress): progress.payload.object.map { [$0] } ?? []
    case .finish(_, let result, _, _): result.object.map { [$0] } ?? []
    case .fail, .attempt, .announce, .attempted: []
    }
  }
}
