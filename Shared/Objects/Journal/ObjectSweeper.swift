import Foundation
import Journal
import Synchronization

/// Deletes objects on a thread of its own: those whose rows are gone, and those that never had one.
final class ObjectSweeper: Sendable {
  private struct State {
    /// Given to the thread.
    var dead: [StoredObject] = []
    /// Objects that no row has named, and that the journal does not know.
    var unnamed: [StoredObject] = []
    /// Deleted, and still in the journal's list.
    var deleted: [StoredObject] = []
    var isBusy = false
    var isStopping = false
  }

  /// An object that no row names may be about to be named for as long.
  static let orphanSeconds: Int64 = 24 * 3600
  private static let orphanInterval = Duration.seconds(6 * 3600)
  private static let retryInterval = Duration.seconds(600)
  /// Deleted by one call.
  private static let chunk = 256

  private let base: any ObjectNamingJournalStore
  private let objects: any ObjectStore
  private let report: @Sendable (ObjectEvent) -> Void
  private let deletedBytes: @Sendable (Int) -> Void
  private let state = Mutex(State())
  private let wake = DispatchSemaphore(value: 0)
  private let stopped = DispatchSemaphore(value: 0)

  init(
    _ base: any ObjectNamingJournalStore, _ objects: any ObjectStore,
    report: @escaping @Sendable (ObjectEvent) -> Void, deletedBytes: @escaping @Sendable (Int) -> Void
  ) {
    self.base = base
    self.objects = objects
    self.report = report
    self.deletedBytes = deletedBytes
    let thread = Thread { [self] in run() }
    thread.name = "objects"
    thread.start()
  }

  /// Whether it waits for dead objects.
  var isIdle: Bool { state.withLock { !$0.isBusy && $0.dead.isEmpty && $0.deleted.isEmpty } }

  /// Has dead objects deleted, which are in the journal's list.
  func give(_ dead: [StoredObject]) {
    guard !dead.isEmpty else { return }
    state.withLock { $0.dead += dead }
    wake.signal()
  }

  /// Has objects deleted that no row has named or ever will.
  func give(unnamed: [StoredObject]) {
    guard !unnamed.isEmpty else { return }
    state.withLock { $0.unnamed += unnamed }
    wake.signal()
  }

  /// Those that were deleted since the last call.
  func takeDeleted() -> [StoredObject] {
    state.withLock { state in
      defer { state.deleted = [] }
      return state.deleted
    }
  }

  /// Ends the thread. Blocks until then.
  func stop() {
    state.withLock { $0.isStopping = true }
    wake.signal()
    stopped.wait()
    stopped.signal()
  }

  private var isStopping: Bool { state.withLock(\.isStopping) }

  private func run() {
    var nextListing = ContinuousClock.now
    while !isStopping {
      deleteGiven()
      if ContinuousClock.now >= nextListing {
        nextListing = .now + (deleteOrphans() ? Self.orphanInterval : Self.retryInterval)
      }
      if !isStopping { _ = wake.wait(timeout: .now() + .seconds(60)) }
    }
    stopped.signal()
  }

  private func deleteGiven() {
    let (dead, unnamed) = state.withLock { state in
      defer { (state.dead, state.unnamed, state.isBusy) = ([], [], true) }
      return (state.dead, state.unnamed)
    }
    defer { state.withLock { $0.isBusy = false } }
    if !delete(dead) { _ = wake.wait(timeout: .now() + .seconds(5)) }
    _ = delete(unnamed)
  }

  /// - Returns: whether all could be deleted.
  private func delete(_ all: [StoredObject]) -> Bool {
    var rest = all[...]
    while !rest.isEmpty, !isStopping {
      let part = rest.prefix(Self.chunk)
      rest = rest.dropFirst(part.count)
      do {
        // A name that a row has is never deleted, whatever the list says.
        let named = try base.namedObjects(among: part.map(\.name))
        let free = part.filter { !named.contains($0.name) }
        try objects.delete(free.compactMap { ObjectKey($0.name) })
        deletedBytes(free.reduce(0) { $0 + $1.byteCount })
        state.withLock { $0.deleted += part }
      } catch {
        report(.sweepFailed("\(error)"))
        return false
      }
    }
    return true
  }

  /// Deletes old objects that no row names.
  ///
  /// - Returns: whether all of the list was looked at.
  private func deleteOrphans() -> Bool {
    var (place, count): (String?, Int) = (nil, 0)
    defer { if count > 0 { report(.orphansDeleted(count: count)) } }
    repeat {
      do {
        let page = try objects.list(after: place, limit: 1000)
        let old = page.entries.filter { $0.ageSeconds > Self.orphanSeconds }
        let named = try base.namedObjects(among: old.map(\.key.name))
        let orphans = old.map(\.key).filter { !named.contains($0.name) }
        if !orphans.isEmpty { try objects.delete(orphans) }
        count += orphans.count
        // A list that does not advance would never end.
        guard page.next.map({ next in place.map { next > $0 } ?? true }) ?? true else { return false }
        place = page.next
      } catch {
        report(.sweepFailed("\(error)"))
        return false
      }
    } while place != nil && !isStopping
    return place == nil
  }
}
