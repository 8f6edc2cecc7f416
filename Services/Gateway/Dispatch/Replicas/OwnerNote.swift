import Foundation
import Journal
import Scheduling

/// What an owner of a shared journal says of itself with every extension of its lease: JSON with a version.
package struct OwnerNote: Hashable, Sendable, Codable {
  /// What one tenant has at the owner.
  package struct Entry: Hashable, Sendable, Codable {
    /// Images that have not ended; those of them that wait, and those of these that are batch work.
    package var open = 0
    package var waiting = 0
    package var waitingBatch = 0
    /// How long the first of those that wait has waited, in seconds.
    package var wait = 0.0
    /// As the scheduler counts it, see `TenantLoad`.
    package var served = 0.0
    /// Bytes of the images that open jobs begin with.
    package var inputBytes = 0
    /// Requests since the owner has begun, of a tenant that may send so many.
    package var requests: UInt64 = 0

    package init(open: Int = 0, inputBytes: Int = 0, requests: UInt64 = 0) {
      (self.open, self.inputBytes, self.requests) = (open, inputBytes, requests)
    }
  }

  /// The most that a note may take, in bytes.
  package static let maxBytes = 64 << 10
  /// Tenants in one note; of more, those with the least are left out.
  package static let maxTenants = 256

  package var version = 1
  /// Whether it takes no more jobs.
  package var isLeaving = false
  package var tenants: [String: Entry] = [:]
  /// Open images of tenants that are left out.
  package var otherImages = 0
  /// Bytes of the images of all open jobs, once each.
  package var inputBytes = 0

  package init() {}

  /// nil: it is none, or makes no sense.
  package init?(_ data: Data) {
    guard data.count <= Self.maxBytes, let note = try? JSONDecoder().decode(Self.self, from: data), note.version == 1,
      note.inputBytes >= 0, note.tenants.values.allSatisfy({ (0...1 << 50).contains($0.inputBytes) })
    else { return nil }
    self = note
  }

  /// What the scheduler takes note of.
  package var load: OwnerLoad {
    let loads = tenants.sorted { ($1.value.open, $0.key) < ($0.value.open, $1.key) }.map { name, entry in
      TenantLoad(
        tenant: TenantID(name), openJobs: entry.open, waitingJobs: entry.waiting, waitingBatchJobs: entry.waitingBatch,
        waitSeconds: entry.wait, served: entry.served)
    }
    return OwnerLoad(tenants: loads, otherJobs: otherImages)
  }

  /// Takes over what the scheduler says.
  package mutating func take(_ load: OwnerLoad) {
    otherImages = load.otherJobs
    for tenant in load.tenants {
      tenants[tenant.tenant.text, default: Entry()].open = tenant.openJobs
      tenants[tenant.tenant.text]?.waiting = tenant.waitingJobs
      tenants[tenant.tenant.text]?.waitingBatch = tenant.waitingBatchJobs
      tenants[tenant.tenant.text]?.wait = tenant.waitSeconds
      tenants[tenant.tenant.text]?.served = tenant.served
    }
  }

  /// JSON within the bounds.
  package func encoded() -> Data {
    var note = self
    var limit = Self.maxTenants
    while true {
      let sorted = note.tenants.sorted {
        ($1.value.open, $1.value.requests, $0.key) < ($0.value.open, $0.value.requests, $1.key)
      }
      for (name, entry) in sorted.dropFirst(limit) {
        note.otherImages += entry.open
        note.tenants[name] = nil
      }
      if let data = try? JSONEncoder().encode(note), data.count <= Self.maxBytes || limit == 0 { return data }
      guard limit > 0 else { return Data() }
      limit /= 2
    }
  }
}
