import Foundation
import Journal
import Synchronization

/// Writes and reads the bytes of a journal that are objects. Used by the stores that are wrapped around one.
final class OffloadedBytes: Sendable {
  let base: any ObjectNamingJournalStore
  let objects: any ObjectStore
  let rules: ObjectRules
  private let puts: ObjectPuts
  private let sweeper: ObjectSweeper
  private let readers: WorkerThreads
  /// Of all objects of the journal, in bytes.
  private let used: UsedBytes
  private let tidied = Mutex(ContinuousClock.now)

  init(
    _ base: any ObjectNamingJournalStore, _ objects: any ObjectStore, _ rules: ObjectRules,
    _ report: @escaping @Sendable (ObjectEvent) -> Void
  ) throws(JournalError) {
    self.base = base
    self.objects = objects
    self.rules = rules
    let used = UsedBytes(try base.objectBytes())
    self.used = used
    puts = ObjectPuts(base, objects, maxTransfers: rules.maxTransfers, PutBreaker(report: report)) { used.add($0) }
    sweeper = ObjectSweeper(base, objects, report: report) { used.add(-$0) }
    readers = WorkerThreads("object-reader", count: rules.maxTransfers)
  }

  func close() {
    sweeper.stop()
    puts.stop()
    readers.stop()
    objects.close()
    base.close()
  }

  // MARK: Writing

  func prepare(_ changes: [JournalChange]) {
    let candidates = changes.flatMap { self.candidates($0) }
    if !candidates.isEmpty { _ = puts.begin(candidates, isPrepared: true) }
  }

  func discard(_ changes: [JournalChange]) {
    let known = puts.known(changes.flatMap { self.candidates($0) }.map(\.identity))
    puts.remove(known)
    abandon(known.values)
  }

  func apply(_ changes: [JournalChange]) throws(JournalError) {
    let candidates = changes.flatMap { self.candidates($0) }
    let all = puts.begin(candidates, isPrepared: false)
    var places: [ObjectPuts.Identity: StoredObject] = [:]
    for (identity, put) in all { if case .object(let object) = put.wait() { places[identity] = object } }
    do throws(JournalError) {
      try checkSpace(changes)
      try base.apply(changes.map { moved($0, places) })
    } catch {
      // Then the change may have been made all the same.
      switch error {
      case .unavailable, .failed, .fenced: for put in all.values { put.isUncertain.withLock { $0 = true } }
      case .foreign, .inUse, .full, .corrupt, .tooLarge, .duplicate: break
      }
      // What was prepared is for another try, or for `discard`.
      let own = all.filter { !$0.value.isPrepared }
      puts.remove(own)
      abandon(own.values)
      throw error
    }
    puts.remove(all)
    if tidied.withLock({ $0.duration(to: .now) > .seconds(1) }) { tidy() }
  }

  /// Lets go of objects that no row names.
  private func abandon(_ all: some Sequence<ObjectPuts.Put>) {
    sweeper.give(
      unnamed: all.compactMap { put in
        guard !put.isUncertain.withLock({ $0 }), case .object(let object) = put.wait() else { return nil }
        return object
      })
  }

  /// Brings the journal's list of dead objects up to date. Of the writer's thread.
  func tidy() {
    tidied.withLock { $0 = .now }
    let deleted = sweeper.takeDeleted()
    do {
      if !deleted.isEmpty { try base.forgetDeadObjects(deleted.map(\.name)) }
      if sweeper.isIdle { sweeper.give(try base.deadObjects(limit: Self.maxDead)) }
    } catch {
      // They are in the list, or deleted again, next time.
      return
    }
  }

  private static let maxDead = 5000

  private func candidates(_ change: JournalChange) -> [(identity: ObjectPuts.Identity, bytes: Data)] {
    let all: [(identity: ObjectPuts.Identity, bytes: Data)] =
      switch change {
      case .admit(let job): job.inputs.map { (.input($0.digest), $0.bytes) }
      case .progress(_, let progress) where rules.includesProgress:
        [(.payload(progress.payload.id), progress.payload.bytes)]
      case .finish(_, let result, _, _): [(.payload(result.id), result.bytes)]
      case .progress, .fail, .attempt, .announce, .attempted: []
      }
    return all.filter { $0.bytes.count >= rules.threshold }
  }

  /// The change with the names of objects for their bytes.
  private func moved(_ change: JournalChange, _ places: [ObjectPuts.Identity: StoredObject]) -> JournalChange {
    func moved(_ payload: StoredPayload) -> StoredPayload {
      guard let object = places[.payload(payload.id)], object.byteCount == payload.bytes.count else { return payload }
      var payload = payload
      (payload.bytes, payload.object) = (Data(), object)
      return payload
    }
    switch change {
    case .admit(var job):
      job.inputs = job.inputs.map { input in
        guard let object = places[.input(input.digest)], object.byteCount == input.bytes.count else { return input }
        return StoredInput(digest: input.digest, bytes: Data(), object: object)
      }
      return .admit(job)
    case .progress(let image, var progress):
      progress.payload = moved(progress.payload)
      return .progress(image, progress)
    case .finish(let image, let result, let promptTokens, let atMs):
      return .finish(image, result: moved(result), promptTokens: promptTokens, atMs: atMs)
    case .fail, .attempt, .announce, .attempted: return change
    }
  }

  // MARK: Space

  func space() throws(JournalError) -> JournalSpace {
    var space = try base.space()
    guard objects.isLocal else { return space }
    space.usedBytes += used.count
    if base.limits.maxBytes > 0 { space.freeBytes = min(space.freeBytes, base.limits.maxBytes - space.usedBytes) }
    space.freeBytes = max(0, min(space.freeBytes, objects.freeBytes() ?? .max))
    return space
  }

  /// What the journal itself cannot know: that the objects, some of which are written already, take space as well.
  private func checkSpace(_ changes: [JournalChange]) throws(JournalError) {
    let admits = changes.contains { if case .admit = $0 { true } else { false } }
    let limit = base.limits.maxBytes
    guard objects.isLocal, admits || limit > 0 else { return }
    let left = limit > 0 ? limit - (try base.space().usedBytes) - used.count : Int64.max
    let needed = admits && limit > 0 ? base.limits.reserveBytes : 0
    guard left >= needed else {
      throw .full(
        reason:
          "\(max(0, left)) of \(limit) bytes are left with the objects, and \(needed) are kept for the jobs that run")
    }
    if admits, let free = objects.freeBytes(), free < Self.admissionBytes {
      throw .full(reason: "the disk of \(objects.location) has \(free) bytes left")
    }
  }

  /// A job is not admitted into less than this.
  private static let admissionBytes: Int64 = 64 << 10

  // MARK: Reading

  func result(of image: ImageReference) throws(JournalError) -> StoredPayload? {
    guard let payload = try base.result(of: image) else { return nil }
    do throws(JournalError) {
      return try resolved(payload)
    } catch {
      // The job may have been forgotten in the meantime, and the object with it.
      guard case .corrupt = error, try base.result(of: image)?.object != payload.object else { throw error }
      return nil
    }
  }

  /// With the bytes of their objects.
  func resolved(_ open: OpenJobs) throws(JournalError) -> OpenJobs {
    let wanted = open.jobs.flatMap { job in
      job.record.job.inputs.compactMap(\.object) + job.images.flatMap { $0.progress.compactMap(\.payload.object) }
    }
    guard !wanted.isEmpty else { return open }
    let bytes = try read(wanted)
    var (jobs, damaged) = (open.jobs, open.damaged)
    jobs = jobs.compactMap { job in
      var job = job
      for (index, input) in job.record.job.inputs.enumerated() {
        guard let object = input.object else { continue }
        guard let content = bytes[object.name] else {
          damaged.append(
            DamagedJob(number: job.record.number, damage: "an image that job \(job.record.job.id) begins with"))
          return nil
        }
        job.record.job.inputs[index] = StoredInput(digest: input.digest, bytes: content)
      }
      for index in job.images.indices {
        job.images[index].progress = job.images[index].progress.compactMap { progress in
          guard let object = progress.payload.object else { return progress }
          // What is damaged is made again.
          guard let content = bytes[object.name] else { return nil }
          var progress = progress
          (progress.payload.bytes, progress.payload.object) = (content, nil)
          return progress
        }
      }
      return job
    }
    return (jobs, damaged)
  }

  /// The bytes of those that are there and sound, by their names.
  ///
  /// - Throws: `unavailable`.
  private func read(_ wanted: [StoredObject]) throws(JournalError) -> [String: Data] {
    let state = Collected()
    let group = DispatchGroup()
    for object in Set(wanted) {
      group.enter()
      readers.submit { [self] in
        defer { group.leave() }
        guard state.value.withLock({ $0.problem == nil }) else { return }
        do throws(JournalError) {
          let bytes = try read(object)
          state.value.withLock { $0.bytes[object.name] = bytes }
        } catch {
          if case .corrupt = error { return }
          state.value.withLock { $0.problem = error }
        }
      }
    }
    group.wait()
    if let problem = state.value.withLock({ $0.problem }) { throw problem }
    return state.value.withLock { $0.bytes }
  }

  private func resolved(_ payload: StoredPayload) throws(JournalError) -> StoredPayload {
    guard let object = payload.object else { return payload }
    var payload = payload
    (payload.bytes, payload.object) = (try read(object), nil)
    return payload
  }

  private func read(_ object: StoredObject) throws(JournalError) -> Data {
    guard let key = ObjectKey(object.name) else { throw .corrupt(what: "the name of an object: \(object.name)") }
    do throws(ObjectError) {
      return try objects.get(key, byteCount: object.byteCount)
    } catch {
      throw JournalError(error)
    }
  }

  // MARK: Checking

  /// More are not listed.
  private static let maxProblems = 1000

  func problems() throws(JournalError) -> [String] {
    var problems = try base.problems()
    var name: String?
    repeat {
      let page = try base.objects(after: name, limit: 1000)
      for object in page where problems.count < Self.maxProblems {
        do throws(JournalError) {
          _ = try read(object)
        } catch {
          guard case .corrupt(let what) = error else { throw error }
          problems.append("an object: \(what)")
        }
      }
      name = page.last?.name
    } while name != nil && problems.count < Self.maxProblems
    return try problems + orphans(limit: Self.maxProblems - problems.count)
  }

  /// Objects that are neither named nor in the list of those to be deleted. Young ones are not meant: they may be about
  /// to be named.
  private func orphans(limit: Int) throws(JournalError) -> [String] {
    let dead = Set(try base.deadObjects(limit: .max).map(\.name))
    var found: [String] = [], place: String?
    repeat {
      let page: ObjectPage
      do throws(ObjectError) { page = try objects.list(after: place, limit: 1000) } catch { throw JournalError(error) }
      let old = page.entries.filter { $0.ageSeconds > ObjectSweeper.orphanSeconds && !dead.contains($0.key.name) }
      let named = try base.namedObjects(among: old.map(\.key.name))
      found += old.filter { !named.contains($0.key.name) }.map {
        "the object \($0.key.name) in \(objects.location) belongs to nothing"
      }
      guard page.next.map({ next in place.map { next > $0 } ?? true }) ?? true else {
        throw .unavailable(reason: "the list of \(objects.location) does not advance")
      }
      place = page.next
    } while place != nil && found.count < limit
    return Array(found.prefix(max(0, limit)))
  }
}

/// What several threads have read, and the first reason to read no more.
private final class Collected: Sendable {
  let value = Mutex<(bytes: [String: Data], problem: JournalError?)>(([:], nil))
}

/// A number of bytes that several threads change.
final class UsedBytes: Sendable {
  private let value: Mutex<Int64>

  init(_ count: Int64) { value = Mutex(count) }

  var count: Int64 { value.withLock { max(0, $0) } }

  func add(_ bytes: Int) { value.withLock { $0 += Int64(bytes) } }
}
