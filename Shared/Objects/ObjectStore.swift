import Foundation

/// Keeps bytes under names that are used once.
///
/// What every store promises:
/// * What ``put(_:as:)`` has returned for is durable.
/// * ``get(_:byteCount:)`` returns what was put, checked by the key's digest, or throws.
/// * Everything can be asked for by several threads and processes at a time.
///
/// Its methods block: do not call them on a thread that others wait for.
public protocol ObjectStore: AnyObject, Sendable {
  /// Where it is, for people; never a secret.
  var location: String { get }
  /// Whether what it keeps takes space on a disk of this machine.
  var isLocal: Bool { get }

  /// Writes, reads, lists and deletes an object, so that wrong settings show before the first job.
  func check() throws(ObjectError)
  /// Keeps `bytes` durably. Repeating it after an error is harmless.
  func put(_ bytes: Data, as key: ObjectKey) throws(ObjectError)
  /// What was put under the key.
  ///
  /// - Parameter byteCount: the object's size; one of another size is damaged.
  /// - Throws: `missing`, `corrupt`, or why it cannot be read now.
  func get(_ key: ObjectKey, byteCount: Int) throws(ObjectError) -> Data
  /// Whether there is such an object; its content is not looked at.
  func contains(_ key: ObjectKey) throws(ObjectError) -> Bool
  /// Deletes objects; one that is not there is deleted already.
  func delete(_ keys: [ObjectKey]) throws(ObjectError)
  /// A page of the objects, in the order of their paths.
  ///
  /// - Parameters:
  ///   - path: those behind it; nil: from the first one.
  ///   - limit: at most so many, up to 1000.
  func list(after path: String?, limit: Int) throws(ObjectError) -> ObjectPage
  /// What may still be written, in bytes, as far as that is known; nil: as much as is asked for.
  func freeBytes() -> Int64?
  /// Lets go of connections.
  func close()
}

/// A part of a list of objects.
public struct ObjectPage: Hashable, Sendable {
  /// One object of a list.
  public struct Entry: Hashable, Sendable {
    /// Names it.
    public var key: ObjectKey
    /// Its size.
    public var byteCount: Int
    /// How long ago it was written, by the store's clock.
    public var ageSeconds: Int64

    /// See the properties.
    public init(key: ObjectKey, byteCount: Int, ageSeconds: Int64) {
      self.key = key
      self.byteCount = byteCount
      self.ageSeconds = ageSeconds
    }
  }

  /// Without what is no object of this store.
  public var entries: [Entry]
  /// Where the rest begins; nil: there is none.
  public var next: String?

  /// See the properties.
  public init(entries: [Entry], next: String? = nil) {
    self.entries = entries
    self.next = next
  }
}

/// Why a store of objects cannot do what was asked of it. None of them holds a secret.
public enum ObjectError: Error, Hashable, Sendable, CustomStringConvertible {
  /// There is no such object.
  case missing(String)
  /// What was put is not what is there.
  case corrupt(String)
  /// There is no space left.
  case full(String)
  /// It cannot be reached, is overloaded or too slow; what was asked may succeed later.
  case unavailable(String)
  /// It does not let the caller do that: wrong credentials, a wrong bucket, no permission.
  case refused(String)
  /// The settings make no sense.
  case settings(String)

  /// For people: what is wrong, and with which object.
  public var description: String {
    switch self {
    case .missing(let text), .corrupt(let text), .full(let text), .unavailable(let text), .refused(let text),
      .settings(let text):
      text
    }
  }
}

extension ObjectStore {
  /// The check of a store that can do everything else.
  func checkByTrying() throws(ObjectError) {
    let bytes = Data("a check of the objects".utf8)
    let key = ObjectKey(of: bytes)
    try put(bytes, as: key)
    let found = try get(key, byteCount: bytes.count)
    // A list may be late, but it must be allowed.
    _ = try list(after: nil, limit: 1)
    try delete([key])
    guard found == bytes else { throw .corrupt("\(location) returns other bytes than were put") }
  }
}
