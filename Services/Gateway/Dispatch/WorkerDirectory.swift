import ClusterCore
import OrderedCollections
import Scheduling
import Transport
import Wire

/// Which connection belongs to which session of which worker, which workers may register, and which models they have
/// brought.
struct WorkerDirectory {
  /// A class: it is looked up with every message, and has a card.
  final class Session {
    let id: WorkerID
    let peer: PeerID
    let register: Register
    /// What latents of its model look like, if it has said so.
    let previewMap: WireTensor?
    var heartbeat: Heartbeat?
    /// As it has said last.
    var adapters: [ServedAdapter] = []
    /// The beginning of its next list.
    var adapterParts: [ServedAdapter] = []

    init(id: WorkerID, peer: PeerID, register: Register, previewMap: WireTensor?) {
      (self.id, self.peer, self.register, self.previewMap) = (id, peer, register, previewMap)
    }

    var model: ModelIdentity { register.card.model }
    /// Of the model that it has loaded, and of those that it can load.
    var cards: [ModelCard] { [register.card] + register.standbyCards }
  }

  let instance: String
  private var lastID: UInt64 = 0
  private(set) var sessions: OrderedDictionary<WorkerID, Session> = [:]
  private var ids: [PeerID: WorkerID] = [:]
  /// The models that workers have brought.
  private(set) var catalog: ModelCatalog
  /// What the sessions have in common, so that none of them has to be asked.
  private var census = WorkerCensus()
  /// The adapters of workers that have left, of models without a worker that has any.
  private var departedAdapters: [ModelIdentity: [ServedAdapter]] = [:]

  /// `instance` identifies this run of the gateway.
  init(instance: String, catalog: ModelCatalog) {
    self.instance = instance
    self.catalog = catalog
  }

  func session(of peer: PeerID) -> Session? { ids[peer].flatMap { sessions[$0] } }

  func session(_ id: WorkerID) -> Session? { sessions[id] }

  /// The worker's own name, for logs and messages.
  func name(of id: WorkerID) -> String { sessions[id]?.register.workerID ?? "\(id)" }

  /// The name of a session on the wire.
  func sessionName(of id: WorkerID) -> String { "\(instance)-\(id.number)" }

  /// Opens a session, unless the worker does not fit in with those that are there.
  mutating func admit(
    _ register: Register, from peer: PeerID, previewMap: WireTensor? = nil, nowUnix: Int
  ) throws(Status) -> Session {
    try previewMap.map { map throws(Status) in try register.card.check(previewMap: map) }
    let session = Session(id: WorkerID(lastID + 1), peer: peer, register: register, previewMap: previewMap)
    if !census.agrees(with: session) { try check(session) }
    lastID += 1
    // A peer that registers again has given up its earlier session.
    if let earlier = ids[peer] { remove(earlier) }
    sessions[session.id] = session
    ids[peer] = session.id
    census.insert(session)
    for card in session.cards { catalog.insert(card, nowUnix: nowUnix) }
    return session
  }

  /// Compares the session with those of other workers.
  private func check(_ session: Session) throws(Status) {
    let register = session.register
    let others = sessions.values.filter { $0.register.workerID != register.workerID }
    for (card, field) in [(register.card, "card")] + register.standbyCards.map({ ($0, "standby_cards") }) {
      let other = others.first { other in
        other.cards.contains { $0.model == card.model && !$0.isOfOneModel(with: card) }
      }
      guard let other else { continue }
      throw Status(
        .failedPrecondition,
        "the model card differs from that of worker \(other.register.workerID) "
          + "with the same fingerprint \(card.model.fingerprint)",
        field: field)
    }
    let twin = others.first {
      $0.model == session.model && $0.register.stage == register.stage
        && $0.register.componentFingerprint != register.componentFingerprint
    }
    if let twin {
      throw Status(
        .failedPrecondition,
        "component_fingerprint is \(register.componentFingerprint), but worker \(twin.register.workerID) "
          + "of the same stage and model has \(twin.register.componentFingerprint)",
        field: "component_fingerprint")
    }
  }

  /// What latents of a model look like; nil: no worker that is there has said so.
  func previewMap(of model: ModelIdentity) -> WireTensor? {
    census.previewMap(of: model)
  }

  mutating func note(_ heartbeat: Heartbeat, of id: WorkerID) {
    sessions[id]?.heartbeat = heartbeat
  }

  /// Takes a part of a worker's list of adapters; returns the list when it is complete.
  mutating func note(_ announcement: AdapterAnnouncement, of id: WorkerID) -> [ServedAdapter]? {
    guard let session = sessions[id] else { return nil }
    let adapters = announcement.added(to: &session.adapterParts)
    if let adapters {
      session.adapters = adapters
      departedAdapters[session.model] = nil
    }
    return adapters
  }

  /// The adapters that can be asked for with a model: those of its workers, or, as long as none of them has any, those
  /// of the worker that has left last. Jobs wait for it as they wait for any worker.
  func adapters(of model: ModelIdentity) -> AdapterCatalog {
    let lists = sessions.values.filter { $0.model == model && !$0.adapters.isEmpty }.map(\.adapters)
    return AdapterCatalog(lists.isEmpty ? departedAdapters[model].map { [$0] } ?? [] : lists)
  }

  mutating func remove(_ id: WorkerID) {
    guard let session = sessions.removeValue(forKey: id) else { return }
    census.remove(session)
    if !session.adapters.isEmpty { departedAdapters[session.model] = session.adapters }
    if ids[session.peer] == id { ids[session.peer] = nil }
  }

  /// Takes note of which models are complete now.
  mutating func update(_ status: ClusterStatus) { catalog.update(status) }

  /// Whether ``update(_:)`` may find a pipeline complete that was not: every stage of one has a session.
  var mayComplete: Bool {
    catalog.hasIncomplete { model, pipeline in
      pipeline.stages.allSatisfy { census.serves(model, pipeline.name, $0) }
    }
  }
}

extension ModelCard {
  /// Refuses what a denoiser would refuse: jobs must not fail because of it.
  fileprivate func check(previewMap map: WireTensor) throws(Status) {
    let shape = map.shape
    let fits =
      map.dtype == .fp32 && shape.count == 4 && shape[0] == latents.channels + 1 && (1...8).contains(shape[1])
      && shape[1] == shape[2] && shape[3] == 3
    let isFinite = map.bytes.withUnsafeBytes { bytes in
      stride(from: 0, to: bytes.count - 3, by: 4)
        .allSatisfy { bytes.loadUnaligned(fromByteOffset: $0, as: Float.self).isFinite }
    }
    guard fits, isFinite else {
      throw Status(
        .invalidArgument,
        "\(TensorName.previewMap) is \(map.dtype) \(shape), or not of finite numbers; expected F32 "
          + "[\(latents.channels + 1), side, side, 3]",
        field: TensorName.previewMap)
    }
  }
}
