import ClusterCore
import Foundation
import Journal
import Synchronization

/// A journal around another one, which keeps its large bytes as objects. Everything but those is the other one's.
protocol OffloadingJournal: PreparingJournalStore {
  var core: OffloadedBytes { get }
}

extension OffloadingJournal {
  var location: String { core.base.location }
  var isDurable: Bool { core.base.isDurable }
  var limits: JournalLimits { core.base.limits }
  var epoch: Int64 { core.base.epoch }
  var run: Int64 { core.base.run }

  func close() { core.close() }

  func prepare(_ changes: [JournalChange]) { core.prepare(changes) }
  func discard(_ changes: [JournalChange]) { core.discard(changes) }
  func apply(_ changes: [JournalChange]) throws(JournalError) { try core.apply(changes) }

  func fail(_ damaged: [DamagedJob], code: StatusCode, atMs: Int64) throws(JournalError) {
    try core.base.fail(damaged, code: code, atMs: atMs)
  }

  @discardableResult
  func forgetOldJobs(nowMs: Int64) throws(JournalError) -> Int {
    defer { core.tidy() }
    return try core.base.forgetOldJobs(nowMs: nowMs)
  }

  func lastPayloadID() throws(JournalError) -> UInt64 { try core.base.lastPayloadID() }
  func openJobs() throws(JournalError) -> OpenJobs { try core.resolved(core.base.openJobs()) }

  func record(of job: String, tenant: String?) throws(JournalError) -> StoredRecord? {
    try core.base.record(of: job, tenant: tenant)
  }

  func job(ofKey key: String, tenant: String) throws(JournalError) -> (job: String, digest: Data)? {
    try core.base.job(ofKey: key, tenant: tenant)
  }

  func result(of image: ImageReference) throws(JournalError) -> StoredPayload? { try core.result(of: image) }

  func page(_ query: JobQuery, tenant: String) throws(JournalError) -> JobPage? {
    try core.base.page(query, tenant: tenant)
  }

  func counts() throws(JournalError) -> (open: Int, all: Int) { try core.base.counts() }
  func space() throws(JournalError) -> JournalSpace { try core.space() }
  func problems() throws(JournalError) -> [String] { try core.problems() }

  func dueDeliveries(
    nowMs: Int64, excludingHosts hosts: [String], excluding numbers: [Int64], limit: Int
  ) throws(JournalError) -> [DueDelivery] {
    try core.base.dueDeliveries(nowMs: nowMs, excludingHosts: hosts, excluding: numbers, limit: limit)
  }

  func pendingDeliveries(nowMs: Int64) throws(JournalError) -> (count: Int, nextAtMs: Int64?) {
    try core.base.pendingDeliveries(nowMs: nowMs)
  }

  func webhooks(of job: String) throws(JournalError) -> [(webhook: StoredWebhook, deliveries: [StoredDelivery])] {
    try core.base.webhooks(of: job)
  }
}

/// Around a journal that one process has open.
final class OffloadingJournalStore: OffloadingJournal {
  let core: OffloadedBytes

  init(_ core: OffloadedBytes) { self.core = core }
}

/// Around a journal that several gateways have open.
final class SharedOffloadingJournalStore: OffloadingJournal, SharedJournalStore {
  let core: OffloadedBytes
  private let base: any SharedJournalStore
  /// Jobs that were taken over while their objects could not be read.
  private let unread = Mutex<OpenJobs?>(nil)

  init(_ base: any SharedJournalStore, _ core: OffloadedBytes) {
    self.base = base
    self.core = core
  }

  func renewLease(note: Data) throws(JournalError) -> [JournalOwner] { try base.renewLease(note: note) }

  func adoptJobs(limit: Int) throws(JournalError) -> OpenJobs {
    let earlier = unread.withLock { unread in
      defer { unread = nil }
      return unread
    }
    let adopted: OpenJobs
    if let earlier { adopted = earlier } else { adopted = try base.adoptJobs(limit: limit) }
    do throws(JournalError) {
      return try core.resolved(adopted)
    } catch {
      // They are this owner's now: the next call returns them.
      unread.withLock { $0 = adopted }
      throw error
    }
  }

  func releaseLease() throws(JournalError) { try base.releaseLease() }
  func owner(of job: String) throws(JournalError) -> Int64? { try base.owner(of: job) }
  func send(_ message: Data, to owner: Int64?) throws(JournalError) { try base.send(message, to: owner) }
  var messages: AsyncStream<OwnerMessage> { base.messages }
}
