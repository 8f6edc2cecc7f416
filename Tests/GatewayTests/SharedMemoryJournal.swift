import ClusterCore
import Foundation
import Journal
import Synchronization

/// A shared journal in memory, for dispatchers of one process: one SQLite store behind owners, leases and messages, on
/// a clock of its own. Faults on request.
final class SharedMemory: Sendable {
  struct Owner {
    var leaseEnd: Duration
    var note = Data()
    var hasEnded = false
    let messages: AsyncStream<OwnerMessage>.Continuation
  }

  struct State {
    var owners: [Int64: Owner] = [:]
    var ownerOfJob: [String: Int64] = [:]
    var clock = Duration.zero
    var lastEpoch: Int64 = 0
    /// Owners that cannot reach the journal.
    var cut: Set<Int64> = []
    /// Every so many messages one is lost; 0: none.
    var lossInterval = 0
    var messageCount = 0
  }

  fileprivate let store: SQLiteJournalStore
  fileprivate let state = Mutex(State())
  fileprivate let lease: Duration
  private let time = SystemTime()

  init(lease: Duration = .seconds(60)) throws {
    store = try SQLiteJournalStore(path: nil)
    self.lease = lease
  }

  deinit { store.close() }

  /// A further owner.
  func open() -> SharedMemoryJournal {
    let (messages, continuation) = AsyncStream<OwnerMessage>.makeStream()
    let epoch = state.withLock { state in
      state.lastEpoch += 1
      state.owners[state.lastEpoch] = Owner(leaseEnd: now(state) + lease, messages: continuation)
      return state.lastEpoch
    }
    return SharedMemoryJournal(self, epoch: epoch, messages: messages)
  }

  /// Moves the engine's clock.
  func advance(by duration: Duration) { state.withLock { $0.clock += duration } }

  /// Ends an owner's lease, as when it was stopped for long.
  func expire(_ epoch: Int64) {
    state.withLock { state in state.owners[epoch]?.leaseEnd = .zero - .seconds(1) }
  }

  /// Whether an owner can reach the journal.
  func setCut(_ epoch: Int64, _ isCut: Bool) {
    state.withLock { state in
      if isCut { state.cut.insert(epoch) } else { state.cut.remove(epoch) }
    }
  }

  /// Has every so many messages lost; 0: none.
  func lose(every interval: Int) { state.withLock { $0.lossInterval = interval } }

  func owner(of job: String) -> Int64? { state.withLock { $0.ownerOfJob[job] } }

  fileprivate func now(_ state: State) -> Duration { time.elapsed + state.clock }
}

/// One owner's opening of a ``SharedMemory``.
final class SharedMemoryJournal: SharedJournalStore {
  let epoch: Int64
  let messages: AsyncStream<OwnerMessage>
  private let memory: SharedMemory

  fileprivate init(_ memory: SharedMemory, epoch: Int64, messages: AsyncStream<OwnerMessage>) {
    (self.memory, self.epoch, self.messages) = (memory, epoch, messages)
  }

  var location: String { "shared memory" }
  var isDurable: Bool { true }
  var limits: JournalLimits { memory.store.limits }
  var run: Int64 { epoch - 1 }

  func close() { memory.state.withLock { $0.owners[epoch]?.messages.finish() } }

  // MARK: Owners

  private func reach(_ state: SharedMemory.State) throws(JournalError) {
    if state.cut.contains(epoch) { throw .unavailable(reason: "the network is cut") }
  }

  private func fence(_ state: SharedMemory.State) throws(JournalError) {
    try reach(state)
    if state.owners[epoch]?.hasEnded != false { throw .fenced(epoch: epoch) }
  }

  func renewLease(note: Data) throws(JournalError) -> [JournalOwner] {
    let result: Result<([JournalOwner], Bool), JournalError> = memory.state.withLock { state in
      do throws(JournalError) { try fence(state) } catch { return .failure(error) }
      let now = memory.now(state)
      state.owners[epoch]?.leaseEnd = now + memory.lease
      state.owners[epoch]?.note = note
      let live = state.owners.filter { !$0.value.hasEnded && $0.value.leaseEnd > now }
      let hasWork = state.owners.contains { !$0.value.hasEnded && $0.value.leaseEnd <= now }
      return .success((live.keys.sorted().map { JournalOwner(epoch: $0, note: live[$0]!.note) }, hasWork))
    }
    let (owners, hasWork) = try result.get()
    if hasWork { _ = memory.state.withLock { $0.owners[epoch]?.messages.yield(.lookForJobs) } }
    return owners
  }

  func adoptJobs(limit: Int) throws(JournalError) -> OpenJobs {
    let all = try memory.store.openJobs()
    let adopted: Result<Set<String>, JournalError> = memory.state.withLock { state in
      do throws(JournalError) { try fence(state) } catch { return .failure(error) }
      let now = memory.now(state)
      for (owner, lease) in state.owners where owner != epoch && lease.leaseEnd <= now {
        state.owners[owner]?.hasEnded = true
      }
      var adopted: Set<String> = []
      for (record, _) in all.jobs where adopted.count < limit {
        guard let owner = state.ownerOfJob[record.job.id], state.owners[owner]?.hasEnded == true else { continue }
        state.ownerOfJob[record.job.id] = epoch
        adopted.insert(record.job.id)
      }
      return .success(adopted)
    }
    let names = try adopted.get()
    return (all.jobs.filter { names.contains($0.record.job.id) }, [])
  }

  func releaseLease() throws(JournalError) {
    let result: Result<Void, JournalError> = memory.state.withLock { state in
      do throws(JournalError) { try reach(state) } catch { return .failure(error) }
      state.owners[epoch]?.hasEnded = true
      for (owner, other) in state.owners where owner != epoch { other.messages.yield(.lookForJobs) }
      return .success(())
    }
    try result.get()
  }

  func owner(of job: String) throws(JournalError) -> Int64? {
    guard let record = try record(of: job, tenant: nil), record.outcomes.contains(.open) else { return nil }
    return memory.owner(of: job)
  }

  func send(_ message: Data, to owner: Int64?) throws(JournalError) {
    guard message.count <= Self.maxMessageBytes else {
      throw .tooLarge(what: "a message", value: message.count, limit: Self.maxMessageBytes)
    }
    let result: Result<Void, JournalError> = memory.state.withLock { state in
      do throws(JournalError) { try reach(state) } catch { return .failure(error) }
      state.messageCount += 1
      if state.lossInterval > 0, state.messageCount % state.lossInterval == 0 { return .success(()) }
      for (other, value) in state.owners where other != epoch && owner.map({ $0 == other }) ?? true {
        if !state.cut.contains(other) { value.messages.yield(.message(from: epoch, message)) }
      }
      return .success(())
    }
    try result.get()
  }

  // MARK: Changes

  func apply(_ changes: [JournalChange]) throws(JournalError) {
    // The check is part of the transaction.
    let result: Result<Void, JournalError> = memory.state.withLock { state in
      do throws(JournalError) {
        try fence(state)
        try memory.store.apply(changes)
      } catch { return .failure(error) }
      for case .admit(let job) in changes { state.ownerOfJob[job.id] = epoch }
      return .success(())
    }
    try result.get()
  }

  private func reading<Value>(
    _ body: (SQLiteJournalStore) throws(JournalError) -> Value
  ) throws(JournalError) -> Value {
    if memory.state.withLock({ $0.cut.contains(epoch) }) { throw .unavailable(reason: "the network is cut") }
    return try body(memory.store)
  }

  func fail(_ damaged: [DamagedJob], code: StatusCode, atMs: Int64) throws(JournalError) {
    try reading { store throws(JournalError) in try store.fail(damaged, code: code, atMs: atMs) }
  }
  func forgetOldJobs(nowMs: Int64) throws(JournalError) -> Int { 0 }
  func lastPayloadID() throws(JournalError) -> UInt64 { UInt64(epoch) << 36 }
  func openJobs() throws(JournalError) -> OpenJobs { ([], []) }
  func record(of job: String, tenant: String?) throws(JournalError) -> StoredRecord? {
    try reading { store throws(JournalError) in try store.record(of: job, tenant: tenant) }
  }
  func job(ofKey key: String, tenant: String) throws(JournalError) -> (job: String, digest: Data)? {
    try reading { store throws(JournalError) in try store.job(ofKey: key, tenant: tenant) }
  }
  func result(of image: ImageReference) throws(JournalError) -> StoredPayload? {
    try reading { store throws(JournalError) in try store.result(of: image) }
  }
  func page(_ query: JobQuery, tenant: String) throws(JournalError) -> JobPage? {
    try reading { store throws(JournalError) in try store.page(query, tenant: tenant) }
  }
  func counts() throws(JournalError) -> (open: Int, all: Int) { try memory.store.counts() }
  func space() throws(JournalError) -> JournalSpace { try memory.store.space() }
  func problems() throws(JournalError) -> [String] { try memory.store.problems() }
  func dueDeliveries(
    nowMs: Int64, excludingHosts hosts: [String], excluding numbers: [Int64], limit: Int
  ) throws(JournalError) -> [DueDelivery] {
    try memory.store.dueDeliveries(nowMs: nowMs, excludingHosts: hosts, excluding: numbers, limit: limit)
  }
  func pendingDeliveries(nowMs: Int64) throws(JournalError) -> (count: Int, nextAtMs: Int64?) {
    try memory.store.pendingDeliveries(nowMs: nowMs)
  }
  func webhooks(of job: String) throws(JournalError) -> [(webhook: StoredWebhook, deliveries: [StoredDelivery])] {
    try memory.store.webhooks(of: job)
  }
}
