import ClusterCore
import Foundation

/// The durable memory of a gateway: jobs, how far they have got, results, idempotency keys and notifications.
///
/// What every journal promises:
/// * What ``apply(_:)`` has returned for is durable: neither the end of this process nor of the engine behind the
///   journal takes it back.
/// * The changes of one call are made together or not at all, and those of a later call never without those of an
///   earlier one.
/// * What comes late changes nothing: an image that has ended keeps its end, and an older checkpoint never takes the
///   place of a newer one.
/// * What was written is what is read, or the error is ``JournalError/corrupt(what:)``.
///
/// Its methods block: do not call them on a thread that others wait for. `JournalWriter` calls the writing ones.
public protocol JournalStore: AnyObject, Sendable {
  /// Where it is, for people; never a secret.
  var location: String { get }
  /// Whether jobs outlive the process.
  var isDurable: Bool { get }
  /// How much is kept, and for how long.
  var limits: JournalLimits { get }
  /// Names this opening of the journal: grows with every opening, from 1.
  var epoch: Int64 { get }
  /// How often the journal was opened before with jobs in it that have not ended.
  var run: Int64 { get }

  /// Writes what is left and lets go of the journal.
  func close()

  // MARK: Changes

  /// Makes all of `changes`, durably, or none.
  ///
  /// - Throws: `full` when there is no space left, `unavailable` when the engine cannot be reached, `fenced` when
  ///   another opening has taken the jobs over; then nothing has changed.
  func apply(_ changes: [JournalChange]) throws(JournalError)
  /// Ends jobs that cannot be made any more: whatever is not finished of them fails.
  ///
  /// - Parameters:
  ///   - damaged: from ``openJobs()``.
  ///   - code: the failure's code.
  ///   - atMs: the end's time, in milliseconds since 1970.
  func fail(_ damaged: [DamagedJob], code: StatusCode, atMs: Int64) throws(JournalError)
  /// Removes jobs that ended too long ago, and the oldest ones while the results take more space than allowed.
  ///
  /// - Parameter nowMs: wall clock, in milliseconds since 1970.
  /// - Returns: how many were removed; at most 100 at a time, so that other changes are not delayed.
  @discardableResult
  func forgetOldJobs(nowMs: Int64) throws(JournalError) -> Int

  // MARK: Reading

  /// The greatest number that a payload has had; this opening may use those above it.
  func lastPayloadID() throws(JournalError) -> UInt64
  /// Jobs of this opening with unfinished images, in the order of their admission, and apart from them those whose own
  /// rows are damaged, so that what was requested is lost: see ``fail(_:code:atMs:)``.
  ///
  /// A damaged checkpoint or output is left out: it is computed again.
  func openJobs() throws(JournalError) -> OpenJobs
  /// The job, if it is this tenant's; nil for `tenant`: any tenant's.
  func record(of job: String, tenant: String?) throws(JournalError) -> StoredRecord?
  /// The job that a tenant has sent under `key`, and the hash of what it asked for.
  func job(ofKey key: String, tenant: String) throws(JournalError) -> (job: String, digest: Data)?
  /// The image, if it is done.
  ///
  /// - Throws: `corrupt` when its bytes are not those that were written.
  func result(of image: ImageReference) throws(JournalError) -> StoredPayload?
  /// A page of a tenant's jobs, by the time of their submission.
  ///
  /// - Returns: nil when the query begins behind a job that the tenant does not have.
  func page(_ query: JobQuery, tenant: String) throws(JournalError) -> JobPage?
  /// Jobs that have not ended, and all.
  func counts() throws(JournalError) -> (open: Int, all: Int)
  /// How much space there is now.
  func space() throws(JournalError) -> JournalSpace
  /// Everything that the engine and the checksums find wrong; empty: the journal is sound. Reads all of it.
  func problems() throws(JournalError) -> [String]

  // MARK: Notifications

  /// The deliveries that are due, the oldest first.
  ///
  /// - Parameters:
  ///   - nowMs: in milliseconds since 1970.
  ///   - hosts: those that get none now.
  ///   - numbers: deliveries that are being attempted.
  ///   - limit: at most so many.
  func dueDeliveries(
    nowMs: Int64, excludingHosts hosts: [String], excluding numbers: [Int64], limit: Int
  ) throws(JournalError) -> [DueDelivery]
  /// How many deliveries wait, and when the first one is due that is not due at `nowMs`; times in milliseconds since
  /// 1970.
  func pendingDeliveries(nowMs: Int64) throws(JournalError) -> (count: Int, nextAtMs: Int64?)
  /// What is notified of a job, in order, and its deliveries, the oldest first.
  func webhooks(of job: String) throws(JournalError) -> [(webhook: StoredWebhook, deliveries: [StoredDelivery])]
}

/// What ``JournalStore/openJobs()`` returns.
public typealias OpenJobs = (jobs: [(record: StoredRecord, images: [OpenImage])], damaged: [DamagedJob])

/// How much space a journal takes and has left.
public struct JournalSpace: Hashable, Sendable {
  /// What it takes now, without what is free within it.
  public var usedBytes: Int64
  /// What may still be written, as far as that is known.
  public var freeBytes: Int64

  /// See the properties.
  public init(usedBytes: Int64, freeBytes: Int64) {
    self.usedBytes = usedBytes
    self.freeBytes = freeBytes
  }
}
