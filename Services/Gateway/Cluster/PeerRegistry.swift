import OrderedCollections
import Scheduling
import Transport
import Wire

/// Which connection belongs to which session of which worker, and who may join.
struct PeerRegistry {
  struct Session {
    let id: WorkerID
    let peer: PeerID
    let register: Register
    var heartbeat: Heartbeat?

    var model: ModelIdentity { ModelIdentity(id: register.card.modelID, fingerprint: register.card.modelFingerprint) }
  }

  private let instance: String
  private var lastID: UInt64 = 0
  private(set) var sessions: OrderedDictionary<WorkerID, Session> = [:]
  private var ids: [PeerID: WorkerID] = [:]

  /// `instance` names this run of the gateway.
  init(instance: String) {
    self.instance = instance
  }

  func session(of peer: PeerID) -> Session? { ids[peer].flatMap { sessions[$0] } }

  func session(_ id: WorkerID) -> Session? { sessions[id] }

  /// The name of a session on the wire.
  func name(of id: WorkerID) -> String { "\(instance)-\(id.number)" }

  /// Opens a session, unless the worker does not fit in with those that are there.
  mutating func admit(_ register: Register, from peer: PeerID) throws(Status) -> Session {
    let session = Session(id: WorkerID(lastID + 1), peer: peer, register: register)
    let others = sessions.values.filter { $0.model == session.model && $0.register.workerID != register.workerID }
    if let other = others.first(where: { $0.register.card != register.card }) {
      throw Status(
        .failedPrecondition,
        "the model card differs from that of worker \(other.register.workerID) with the same fingerprint \(session.model.fingerprint)",
        field: "card")
    }
    let twin = others.first {
      $0.register.stage == register.stage && $0.register.componentFingerprint != register.componentFingerprint
    }
    if let twin {
      throw Status(
        .failedPrecondition,
        "component_fingerprint is \(register.componentFingerprint), but worker \(twin.register.workerID) of the same stage and model has "
          + twin.register.componentFingerprint,
        field: "component_fingerprint")
    }
    lastID += 1
    // A peer that registers again has given its earlier session up.
    if let earlier = ids[peer] { sessions[earlier] = nil }
    sessions[session.id] = session
    ids[peer] = session.id
    return session
  }

  mutating func note(_ heartbeat: Heartbeat, of id: WorkerID) {
    sessions[id]?.heartbeat = heartbeat
  }

  mutating func remove(_ id: WorkerID) {
    guard let session = sessions.removeValue(forKey: id) else { return }
    if ids[session.peer] == id { ids[session.peer] = nil }
  }
}
