import GatewayPipelines
import Journal
import Scheduling

/// Counts the requests of tenants, each of which may send so many.
public protocol RequestRates: AnyObject, Sendable {
  /// Requests of each tenant that were counted here, since the beginning.
  var spent: [String: UInt64] { get }
  /// Counts requests that other gateways have taken.
  func noteSpentElsewhere(_ counts: [String: UInt64])
}

/// What tenants have in use at all gateways of a journal.
extension Dispatcher {
  /// Has the limits of `rates` hold for all gateways together.
  public func share(_ rates: any RequestRates) { requestRates = rates }

  /// What this owner says of itself.
  func ownNote() -> OwnerNote {
    var note = OwnerNote()
    note.isLeaving = closedReason != nil
    note.take(scheduler.load(now: now))
    note.inputBytes = jobs.inputs.byteCount
    for (tenant, bytes) in jobs.inputs.byteCounts { note.tenants[tenant.text, default: .init()].inputBytes = bytes }
    for (tenant, count) in requestRates?.spent ?? [:] { note.tenants[tenant, default: .init()].requests = count }
    return note
  }

  /// Takes note of what the other owners have in use.
  func noteLoad(of owners: [JournalOwner]) {
    var notes: [Int64: OwnerNote] = [:]
    var spent: [String: UInt64] = [:]
    for owner in owners {
      let earlier = replicas?.notes[owner.epoch]
      // What cannot be read is what an owner of another version says, or one that has said nothing yet.
      guard let note = OwnerNote(owner.note) ?? earlier else { continue }
      notes[owner.epoch] = note
      // The first note of an owner tells of the time before as well, which the buckets have forgotten.
      guard let earlier else { continue }
      for (tenant, load) in note.tenants {
        let before = earlier.tenants[tenant]?.requests ?? 0
        if load.requests > before { spent[tenant, default: 0] += load.requests - before }
      }
    }
    replicas?.notes = notes
    process(.othersChanged(notes.mapValues(\.load)))
    if !spent.isEmpty { requestRates?.noteSpentElsewhere(spent) }
  }

  /// Bytes of images that the open jobs of other owners begin with; nil: of all tenants.
  package func inputBytesElsewhere(of tenant: TenantID?) -> Int {
    (replicas?.notes ?? [:]).values.reduce(0) { sum, note in
      sum + (tenant.map { note.tenants[$0.text]?.inputBytes ?? 0 } ?? note.inputBytes)
    }
  }
}
