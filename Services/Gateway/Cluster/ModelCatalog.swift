import Foundation
import OrderedCollections
import Scheduling
import Wire

/// The models that workers have brought: what requests are checked against.
public struct ModelCatalog: Sendable {
  struct Entry: Sendable {
    var card: ModelCard
    /// When the first worker came.
    let createdUnix = Int(Date().timeIntervalSince1970)
    /// Number of the moment when every stage had a ready worker for the first time; 0: that never was.
    var completedAt: UInt64 = 0
  }

  private var entries: OrderedDictionary<ModelIdentity, Entry> = [:]
  private var moments: UInt64 = 0

  /// The card that workers of this model have; nil: none came yet.
  func card(of model: ModelIdentity) -> ModelCard? { entries[model]?.card }

  /// A worker with this card has joined.
  mutating func insert(_ card: ModelCard, for model: ModelIdentity) {
    entries[model, default: Entry(card: card)].card = card
  }

  /// Notes which models are complete now.
  mutating func update(_ status: ClusterStatus) {
    for model in status.readyModels() where entries[model]?.completedAt == 0 {
      moments += 1
      entries[model]?.completedAt = moments
    }
  }

  /// Names of the models that can be asked for, in the order in which they came.
  public var modelIDs: [String] {
    var ids: [String] = []
    for (model, entry) in entries where entry.completedAt > 0 && !ids.contains(model.id) { ids.append(model.id) }
    return ids
  }

  /// When the first worker with the model came, in seconds since 1970.
  func createdUnix(_ id: String) -> Int { entries.first { $0.key.id == id }?.value.createdUnix ?? 0 }

  /// The card to check a request against: that of the weights which became complete last, if possible of those that are so now.
  ///
  /// A model whose stages were all there once is served even while one is away: its jobs wait in the queue.
  ///
  /// - Parameters:
  ///   - name: the model asked for; nil: the first that came.
  ///   - status: who is there now.
  public func card(named name: String?, status: ClusterStatus) throws(APIError) -> ModelCard {
    guard let name = name ?? modelIDs.first else { throw notReady(entries.keys.first, status) }
    let candidates = entries.filter { $0.key.id == name }
    guard !candidates.isEmpty else {
      if entries.isEmpty { throw notReady(nil, status) }
      let known = modelIDs.map { "\"\($0)\"" }.joined(separator: ", ")
      throw APIError(
        .modelNotFound, "the model \"\(name.prefix(80))\" does not exist; there is \(known.isEmpty ? "none yet" : known)", param: "model")
    }
    let ready = status.readyModels()
    let best = candidates.filter { $0.value.completedAt > 0 }
      .max { (ready.contains($0.key) ? 1 : 0, $0.value.completedAt) < (ready.contains($1.key) ? 1 : 0, $1.value.completedAt) }
    guard let best else { throw notReady(candidates.keys.last, status) }
    return best.value.card
  }

  private func notReady(_ model: ModelIdentity?, _ status: ClusterStatus) -> APIError {
    APIError(.notReady, Self.missing(model, status), retryAfterSeconds: 5)
  }

  /// Says what keeps the cluster from serving `model`.
  static func missing(_ model: ModelIdentity?, _ status: ClusterStatus) -> String {
    guard let model, !status.workers.isEmpty else {
      return "no worker has registered yet: a \(Stage.allCases.map(\.rawValue).joined(separator: ", a ")) are needed"
    }
    let missing = status.missingStages(of: model).map(\.rawValue).joined(separator: ", ")
    return "no ready worker for: \(missing) (model \(model))"
  }
}
