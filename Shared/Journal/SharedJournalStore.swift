import Foundation

/// A journal that several gateways have open at a time. Each opening is an *owner*, named by its epoch: it owns the
/// jobs that it has admitted or adopted, and holds one lease for all of them.
///
/// * A lease that is not renewed in time may be ended by any other owner, by the engine's clock, which is the only one
///   that counts. From then on every write of the old owner throws ``JournalError/fenced(epoch:)``: the check is part
///   of the transaction.
/// * Jobs whose owner's lease has ended are adopted by others, each job by exactly one.
public protocol SharedJournalStore: JournalStore {
  /// Extends the lease and tells what the other owners have said of themselves.
  ///
  /// - Parameter note: what this owner says of itself, such as what its tenants have in use; at most 64 KiB.
  /// - Returns: the owners whose leases hold, this one included, in the order of their epochs.
  /// - Throws: `fenced` when the lease was ended by another owner.
  func renewLease(note: Data) throws(JournalError) -> [JournalOwner]
  /// Ends the leases that are over, then takes over open jobs without an owner, the oldest first.
  ///
  /// - Parameter limit: at most so many, so that other owners get some as well.
  func adoptJobs(limit: Int) throws(JournalError) -> OpenJobs
  /// Ends this opening's own lease, so that others can adopt its open jobs at once; further writes are fenced, messages
  /// can still be sent.
  func releaseLease() throws(JournalError)
  /// The owner of an open job; nil: there is no such open job.
  func owner(of job: String) throws(JournalError) -> Int64?
  /// Sends other owners a message; it may be lost, and is never delivered twice.
  ///
  /// - Parameters:
  ///   - message: at most ``maxMessageBytes``.
  ///   - owner: its epoch; nil: all others.
  func send(_ message: Data, to owner: Int64?) throws(JournalError)
  /// What other owners send, as it comes. One consumer; ends when the journal is closed.
  var messages: AsyncStream<OwnerMessage> { get }
}

extension SharedJournalStore {
  /// The largest message between owners, in bytes.
  public static var maxMessageBytes: Int { 5_000 }
}

/// One that has a shared journal open.
public struct JournalOwner: Hashable, Sendable {
  /// Names it.
  public var epoch: Int64
  /// What it has said of itself last.
  public var note: Data

  /// See the properties.
  public init(epoch: Int64, note: Data) {
    self.epoch = epoch
    self.note = note
  }
}

/// What reaches an owner of a shared journal.
public enum OwnerMessage: Hashable, Sendable {
  /// There are open jobs without an owner, or messages may have been lost.
  case lookForJobs
  /// Another owner has sent this.
  case message(from: Int64, Data)
}
