import HeapModule
import OrderedCollections

/// A job by its place in the order of admission.
struct RankedJob: Hashable, Sendable, Comparable {
  let rank: UInt64
  let id: ImageJobID
  /// Of its main work.
  let cost: Double

  static func < (left: RankedJob, right: RankedJob) -> Bool { left.rank < right.rank }
}

/// Jobs in the order of their admission.
struct RankedJobs: Hashable, Sendable {
  private var jobs: [RankedJob] = []
  /// Those before it were removed.
  private var start = 0

  var count: Int { jobs.count - start }
  var isEmpty: Bool { count == 0 }
  var all: ArraySlice<RankedJob> { jobs[start...] }

  subscript(_ index: Int) -> RankedJob { jobs[start + index] }

  mutating func insert(_ job: RankedJob) {
    guard let last = jobs.last, last.rank >= job.rank, !isEmpty else { return jobs.append(job) }
    let index = firstIndex(notBefore: job.rank)
    if jobs[index].rank != job.rank { jobs.insert(job, at: index) }
  }

  func contains(_ job: RankedJob) -> Bool {
    let index = firstIndex(notBefore: job.rank)
    return index < jobs.count && jobs[index] == job
  }

  mutating func remove(_ job: RankedJob) {
    let index = firstIndex(notBefore: job.rank)
    guard index < jobs.count, jobs[index].rank == job.rank else { return }
    guard index == start else {
      jobs.remove(at: index)
      return
    }
    start += 1
    guard start > 32, 2 * start > jobs.count else { return }
    jobs.removeFirst(start)
    start = 0
  }

  private func firstIndex(notBefore rank: UInt64) -> Int {
    var low = start, high = jobs.count
    while low < high {
      let middle = low + (high - low) / 2
      if jobs[middle].rank < rank { low = middle + 1 } else { high = middle }
    }
    return low
  }
}

/// Jobs by what they wait for.
struct JobQueues: Hashable, Sendable {
  struct Tenant: Hashable, Sendable {
    var urgent = RankedJobs()
    var batch = RankedJobs()
    /// Jobs that the tenant has in any state.
    var jobCount = 0
    var isGone: Bool { jobCount == 0 && urgent.isEmpty && batch.isEmpty }
  }

  /// Jobs that no stage has begun the main work of.
  private(set) var tenants: OrderedDictionary<TenantID, Tenant> = [:]
  private(set) var waitingCount = 0
  /// Jobs whose main work has begun.
  private(set) var begun = RankedJobs()
  /// Of them, those that may have a ready task.
  var readyBegun = RankedJobs()
  /// Jobs that wait, and whose main task is ready.
  var ready = RankedJobs()

  mutating func insert(_ job: RankedJob, of tenant: TenantID, isUrgent: Bool) {
    waitingCount += 1
    if isUrgent {
      tenants[tenant, default: Tenant()].urgent.insert(job)
    } else {
      tenants[tenant, default: Tenant()].batch.insert(job)
    }
  }

  mutating func remove(_ job: RankedJob, of tenant: TenantID, isUrgent: Bool) {
    waitingCount -= 1
    if isUrgent { tenants[tenant]?.urgent.remove(job) } else { tenants[tenant]?.batch.remove(job) }
    ready.remove(job)
    forget(tenant)
  }

  mutating func insertBegun(_ job: RankedJob) {
    begun.insert(job)
    readyBegun.insert(job)
  }

  mutating func removeBegun(_ job: RankedJob) {
    begun.remove(job)
    readyBegun.remove(job)
  }

  mutating func count(_ change: Int, of tenant: TenantID) {
    tenants[tenant, default: Tenant()].jobCount += change
    forget(tenant)
  }

  private mutating func forget(_ tenant: TenantID) {
    if tenants[tenant]?.isGone == true { tenants[tenant] = nil }
  }
}

/// When jobs fail that are not done. Of jobs that have ended, deadlines stay for a while.
struct Deadlines: Sendable {
  private struct Entry: Comparable, Sendable {
    let at: Instant
    let job: RankedJob

    static func < (left: Entry, right: Entry) -> Bool { (left.at, left.job.rank) < (right.at, right.job.rank) }
  }
  private var heap = Heap<Entry>()

  mutating func insert(_ job: RankedJob, at deadline: Instant) { heap.insert(Entry(at: deadline, job: job)) }

  /// Jobs whose deadline has passed, in the order of their admission.
  mutating func removePassed(_ now: Instant) -> [ImageJobID] {
    var passed: [RankedJob] = []
    while let first = heap.min, first.at <= now { passed.append(heap.removeMin().job) }
    return passed.sorted().map(\.id)
  }

  /// Forgets jobs that have ended when they are more than the others.
  mutating func compact(_ openCount: Int, _ isOpen: (ImageJobID) -> Bool) {
    guard heap.count > 2 * openCount + 1024 else { return }
    heap = Heap(heap.unordered.filter { isOpen($0.job.id) })
  }
}

/// Goes through the jobs that wait in the order of service, as far as that is asked for: interactive ones first, and
/// among equals always one of the tenant that has had the least of its share.
struct WaitingOrder: IteratorProtocol, Sendable {
  private struct Place: Sendable {
    let weight: Double
    let tenant: JobQueues.Tenant
    var clock: Double
    var next = 0
  }
  private var places: [Place]
  private var isUrgent = true

  init(_ scheduler: Scheduler) {
    places = scheduler.queues.tenants.compactMap { id, tenant in
      guard !tenant.urgent.isEmpty || !tenant.batch.isEmpty else { return nil }
      return Place(weight: scheduler.policy(of: id).weight, tenant: tenant, clock: scheduler.shares.clock(of: id))
    }
  }

  mutating func next() -> ImageJobID? {
    if let id = nextOfKind() { return id }
    guard isUrgent else { return nil }
    isUrgent = false
    for index in places.indices { places[index].next = 0 }
    return nextOfKind()
  }

  private mutating func nextOfKind() -> ImageJobID? {
    var best: (index: Int, clock: Double, job: RankedJob)?
    for (index, place) in places.enumerated() {
      let queue = isUrgent ? place.tenant.urgent : place.tenant.batch
      guard place.next < queue.count else { continue }
      let job = queue[place.next]
      if best.map({ (place.clock, job.rank) < ($0.clock, $0.job.rank) }) ?? true { best = (index, place.clock, job) }
    }
    guard let best else { return nil }
    places[best.index].next += 1
    places[best.index].clock += best.job.cost / places[best.index].weight
    return best.job.id
  }
}
