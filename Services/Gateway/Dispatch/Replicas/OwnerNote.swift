import Foundation
import Journal
import Scheduling

/// What an owner of a shared journal says of itself with every extension of its lease.
struct OwnerNote: Hashable, Sendable, Codable {
  /// What one tenant has in use, and has used.
  struct TenantLoad: Hashable, Sendable, Codable {
    /// Images that have not ended.
    var images = 0
    /// Bytes of the images that open jobs begin with.
    var inputBytes = 0
    /// Work begun, in the scheduler's unit of cost, since the owner has begun.
    var cost = 0.0
    /// Requests since the owner has begun.
    var requests: UInt64 = 0
  }

  /// Tenants in one note; of more, those with the least in use are left out.
  static let maxTenants = 400
  /// The most that a note may take.
  static let maxBytes = 64 << 10

  var version = 1
  /// Whether it takes no more jobs.
  var isLeaving = false
  var tenants: [String: TenantLoad] = [:]
  /// Images of all tenants.
  var images = 0
  /// Bytes of the images of all open jobs, once each.
  var inputBytes = 0

  /// JSON within the bounds.
  func encoded() -> Data {
    var note = self
    var limit = Self.maxTenants
    while limit > 0 {
      if note.tenants.count > limit {
        let kept = note.tenants.sorted {
          ($0.value.images, $0.value.requests, $1.key) > ($1.value.images, $1.value.requests, $0.key)
        }
        note.tenants = Dictionary(uniqueKeysWithValues: kept.prefix(limit).map { ($0.key, $0.value) })
      }
      if let data = try? JSONEncoder().encode(note), data.count <= Self.maxBytes { return data }
      limit /= 2
    }
    return Data()
  }

  /// nil: it is none, or makes no sense.
  init?(_ data: Data) {
    guard data.count <= Self.maxBytes, let note = try? JSONDecoder().decode(Self.self, from: data), note.version == 1,
      note.images >= 0, note.inputBytes >= 0,
      note.tenants.values.allSatisfy({ $0.images >= 0 && $0.inputBytes >= 0 && $0.cost >= 0 && $0.cost.isFinite })
    else { return nil }
    self = note
  }

  init() {}
}
