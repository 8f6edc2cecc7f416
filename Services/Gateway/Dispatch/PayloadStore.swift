import Scheduling
import Wire

/// Keeps the tensors that the scheduler knows by number.
struct PayloadStore {
  private var tensors: [UInt64: WireTensor] = [:]
  private var lastID: UInt64 = 0
  private(set) var byteCount = 0

  var count: Int { tensors.count }

  /// Gives numbers above `lastID`, which the journal knows already.
  init(lastID: UInt64) { self.lastID = lastID }

  /// Takes back what the journal has kept; the same one may come several times.
  mutating func restore(_ tensor: WireTensor, id: UInt64) -> Payload {
    if tensors[id] == nil {
      tensors[id] = tensor
      byteCount += tensor.bytes.count
      // Other openings of a shared journal number theirs apart; see `JournalStore.lastPayloadID()`.
      if id >> 36 == lastID >> 36 { lastID = max(lastID, id) }
    }
    return Payload(id: id, byteCount: tensor.bytes.count)
  }

  mutating func insert(_ tensor: WireTensor) -> Payload {
    lastID += 1
    tensors[lastID] = tensor
    byteCount += tensor.bytes.count
    return Payload(id: lastID, byteCount: tensor.bytes.count)
  }

  mutating func remove(_ payload: Payload) {
    guard tensors.removeValue(forKey: payload.id) != nil else { return }
    byteCount -= payload.byteCount
  }

  subscript(_ payload: Payload) -> WireTensor? { tensors[payload.id] }
}
