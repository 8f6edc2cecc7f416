import Foundation
import Journal

/// Which bytes of a journal are kept as objects.
public struct ObjectRules: Hashable, Sendable {
  /// Those of at least so many; fewer stay in their rows.
  public var threshold = 256 << 10
  /// Whether what is kept of unfinished images is meant as well: checkpoints, and outputs of stages.
  public var includesProgress = true
  /// Transfers at a time; more wait.
  public var maxTransfers = 8

  /// The defaults.
  public init() {}
}

/// What an operator should know of a journal's objects.
public enum ObjectEvent: Sendable {
  /// An object could not be written. Until that works again, its bytes and those of later ones are kept in rows.
  case unavailable(ObjectError)
  /// Objects can be written again.
  case available
  /// Objects that no row names were deleted: their writer ended before it could name them.
  case orphansDeleted(count: Int)
  /// Objects could not be deleted or listed now; it is tried again.
  case sweepFailed(String)
}

/// Journals whose large bytes are objects.
public enum ObjectJournal {
  /// Has the large bytes of a journal kept as objects.
  ///
  /// * An object is durable before a row names it. It is deleted after the row that named it, by way of a list in the
  ///   journal. What neither has reached because the process ended is found by listing, a day later.
  /// * Bytes whose object cannot be written stay in their row, so that no job waits or fails for want of the store.
  ///
  /// - Parameters:
  ///   - base: keeps everything else. Its `objectSpace` must be part of where `objects` are.
  ///   - objects: closed with the journal.
  ///   - report: called on any thread.
  /// - Returns: a `SharedJournalStore` if `base` is one.
  /// - Throws: `foreign` when the objects are not this journal's, `unavailable` when they cannot be reached.
  public static func open(
    _ base: any ObjectNamingJournalStore, objects: any ObjectStore, rules: ObjectRules = ObjectRules(),
    report: @escaping @Sendable (ObjectEvent) -> Void = { _ in }
  ) throws(JournalError) -> any JournalStore {
    try check(base, objects)
    let core = try OffloadedBytes(base, objects, rules, report)
    if let shared = base as? any SharedJournalStore & ObjectNamingJournalStore {
      return SharedOffloadingJournalStore(shared, core)
    }
    return OffloadingJournalStore(core)
  }

  /// Rows looked at to see whether the objects are this journal's.
  private static let sampleCount = 8

  private static func check(_ base: any ObjectNamingJournalStore, _ objects: any ObjectStore) throws(JournalError) {
    let names = try base.objects(after: nil, limit: sampleCount).map(\.name)
    do throws(ObjectError) {
      try objects.check()
      var isOneThere = names.isEmpty
      for key in names.compactMap({ ObjectKey($0) }) where !isOneThere { isOneThere = try objects.contains(key) }
      guard isOneThere else {
        throw .settings(
          "none of the first \(names.count) objects that the journal names is there: it is not where they were written")
      }
    } catch {
      switch error {
      case .settings, .refused, .missing: throw .foreign(path: objects.location, reason: error.description)
      case .corrupt, .unavailable: throw .unavailable(reason: "the objects in \(objects.location): \(error)")
      case .full: throw .full(reason: error.description)
      }
    }
  }
}

extension JournalError {
  /// Of reading an object.
  init(_ error: ObjectError) {
    switch error {
    case .missing(let text), .corrupt(let text): self = .corrupt(what: text)
    case .full(let text): self = .full(reason: text)
    case .unavailable(let text), .refused(let text), .settings(let text): self = .unavailable(reason: text)
    }
  }
}
