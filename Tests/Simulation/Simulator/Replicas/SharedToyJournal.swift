import ClusterCore
import OrderedCollections
import Scheduling

/// An entry of a journal with several owners, with the bytes of its payloads.
enum SharedRecord {
  struct Content: Hashable {
    var payload: UInt64
    var value: UInt64
    var numericsClass: String
  }
  case admitted([ToyImage])
  case attempt(AttemptID, places: [TaskID])
  case output(places: [TaskID], Content)
  case checkpoint(places: [TaskID], completedSteps: Int, Content)
  case finished(ImageJobID, UInt64)
  case failed(ImageJobID, Status)

  /// Images that it is about, as far as they must be the writer's.
  var images: [ImageJobID] {
    switch self {
    case .admitted: []
    case .attempt(_, let places), .output(let places, _), .checkpoint(let places, _, _): places.map(\.job)
    case .finished(let id, _), .failed(let id, _): [id]
    }
  }
}

/// What the journal says to an owner.
enum SharedJournalError: Error {
  case fenced
  /// The key is another job's.
  case duplicate
}

/// The engine that all gateways write to: one lease for each owner, by its own clock, and fencing in every write.
struct SharedToyJournal {
  struct Entry {
    var image: ToyImage
    var owner: Int64
    var tasks: [Int: Task] = [:]
    var outcome: Outcome?
    /// Since when its owner's lease has ended.
    var orphanedAt: Int?
  }

  struct Task {
    var attemptNumber: UInt32 = 0
    var output: SharedRecord.Content?
    var checkpoint: (completedSteps: Int, content: SharedRecord.Content)?
  }

  private(set) var images: OrderedDictionary<ImageJobID, Entry> = [:]
  private(set) var keys: [Int: String] = [:]
  private var payloads: [UInt64: UInt64] = [:]
  private var lastEpoch: Int64 = 0
  /// When each lease ends.
  private var leases: [Int64: Int] = [:]
  private var notes: [Int64: OwnerLoad] = [:]
  let mutation: ReplicaMutation?
  /// What must not be and was.
  private(set) var problems: [String] = []

  init(mutation: ReplicaMutation?) { self.mutation = mutation }

  mutating func open(now: Int) -> Int64 {
    lastEpoch += 1
    leases[lastEpoch] = now + ReplicaScenario.leaseMs
    return lastEpoch
  }

  /// Whether the owner's lease was not ended yet.
  func isOwner(_ epoch: Int64) -> Bool { leases[epoch] != nil }

  mutating func renew(_ epoch: Int64, _ note: OwnerLoad, now: Int) throws(SharedJournalError) -> [Int64: OwnerLoad] {
    guard leases[epoch] != nil else { throw .fenced }
    leases[epoch] = now + ReplicaScenario.leaseMs
    notes[epoch] = note
    return notes.filter { $0.key != epoch && (leases[$0.key] ?? 0) > now }
  }

  mutating func release(_ epoch: Int64, now: Int) { end(epoch, now: now) }

  private mutating func end(_ epoch: Int64, now: Int) {
    leases[epoch] = nil
    notes[epoch] = nil
    for (id, entry) in images where entry.owner == epoch && entry.outcome == nil { images[id]?.orphanedAt = now }
  }

  /// Notes since when leases are over that no owner has ended yet.
  mutating func noteOverdue(now: Int) {
    for (epoch, end) in leases where end <= now {
      for (id, entry) in images where entry.owner == epoch && entry.outcome == nil && entry.orphanedAt == nil {
        images[id]?.orphanedAt = now
      }
    }
    for (id, entry) in images where entry.orphanedAt != nil && (leases[entry.owner] ?? 0) > now {
      images[id]?.orphanedAt = nil
    }
  }

  /// Ends the leases that are over, then takes jobs over that have no owner.
  mutating func adopt(_ epoch: Int64, limit: Int, now: Int) throws(SharedJournalError) -> [Entry] {
    guard leases[epoch] != nil else { throw .fenced }
    for (other, endsAt) in leases.sorted(by: { $0.key < $1.key }) where endsAt <= now && other != epoch {
      end(other, now: now)
    }
    var adopted: [Entry] = []
    var names: OrderedSet<String> = []
    for (id, entry) in images where entry.outcome == nil && leases[entry.owner] == nil {
      if !names.contains(entry.image.name), names.count == limit { break }
      names.append(entry.image.name)
      // The mutant's other owner is about to do the same.
      if mutation != .adoption { images[id]?.owner = epoch }
      images[id]?.orphanedAt = nil
      adopted.append(entry)
    }
    return adopted
  }

  /// Makes all changes or none.
  mutating func apply(_ records: [SharedRecord], of epoch: Int64) throws(SharedJournalError) {
    if leases[epoch] == nil, mutation != .fencing { throw .fenced }
    for case .admitted(let new) in records {
      guard let first = new.first, let name = keys[first.job.key], name != first.name else { continue }
      if mutation != .uniqueKeys { throw .duplicate }
      problems.append("request \(first.job.key) is job \(name) and job \(first.name)")
    }
    for record in records { take(record, of: epoch) }
  }

  private mutating func take(_ record: SharedRecord, of epoch: Int64) {
    for id in record.images {
      guard let entry = images[id] else { continue }
      if entry.owner != epoch { problems.append("owner \(epoch) writes about \(id), which is \(entry.owner)'s") }
    }
    switch record {
    case .admitted(let new):
      for image in new where images[image.id] == nil {
        keys[image.job.key] = image.name
        images[image.id] = Entry(image: image, owner: epoch)
      }
    case .attempt(let attempt, let places):
      for place in places where images[place.job]?.outcome == nil {
        images[place.job]?.tasks[place.index, default: Task()].attemptNumber = attempt.number
      }
    case .output(let places, let content):
      store(content)
      for place in places where images[place.job]?.outcome == nil {
        images[place.job]?.tasks[place.index, default: Task()].output = content
        images[place.job]?.tasks[place.index]?.checkpoint = nil
      }
    case .checkpoint(let places, let steps, let content):
      store(content)
      for place in places where images[place.job]?.outcome == nil {
        let known = images[place.job]?.tasks[place.index]?.checkpoint?.completedSteps ?? 0
        guard steps > known else { continue }
        images[place.job]?.tasks[place.index, default: Task()].checkpoint = (steps, content)
      }
    case .finished(let id, let value): end(id, .finished(value))
    case .failed(let id, let failure): end(id, .failed(failure))
    }
  }

  private mutating func end(_ id: ImageJobID, _ outcome: Outcome) {
    guard let entry = images[id], entry.outcome == nil else { return }
    images[id]?.outcome = outcome
    images[id]?.tasks = [:]
    images[id]?.orphanedAt = nil
  }

  private mutating func store(_ content: SharedRecord.Content) {
    if let known = payloads[content.payload], known != content.value {
      problems.append("payload \(content.payload) is \(known) and \(content.value)")
    }
    payloads[content.payload] = content.value
  }

  /// The images of a job; empty: there is none of that name.
  func images(of name: String, _ job: ToyJob) -> [Entry] { ToyImage.ids(name, job).compactMap { images[$0] } }
}
