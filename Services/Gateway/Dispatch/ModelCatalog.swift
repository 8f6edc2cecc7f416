import ClusterCore
import GatewayAPI
import GatewayPipelines
import OrderedCollections
import Scheduling

/// The models that workers have brought: what requests are checked against.
public struct ModelCatalog: Sendable {
  struct Entry: Sendable {
    var card: ModelCard
    /// When the first worker came, in seconds since 1970.
    let createdUnix: Int
    /// Number of the moment when every stage of a pipeline had a ready worker for the first time; 0: that never was.
    var completedAt: UInt64 = 0
    /// The pipelines of which every stage has had a ready worker.
    var completePipelines: Set<PipelineName> = []
  }

  private let pipelines: PipelineRegistry
  private var entries: OrderedDictionary<ModelIdentity, Entry> = [:]
  private var moments: UInt64 = 0

  /// An empty catalog of models that serve `pipelines`.
  public init(pipelines: PipelineRegistry) { self.pipelines = pipelines }

  /// A worker with this card has joined. The model serves and samples as any of its workers does; how many references
  /// it takes is what the denoiser that came last says.
  mutating func insert(_ card: ModelCard, nowUnix: Int) {
    var card = card
    let known = entries[card.model]?.card
    card.pipelines += (known?.pipelines ?? []).filter { !card.pipelines.contains($0) }
    card.samplers += (known?.samplers ?? []).filter { !card.samplers.contains($0) }
    card.schedules += (known?.schedules ?? []).filter { !card.schedules.contains($0) }
    card.limits.maxReferenceTokens = card.limits.maxReferenceTokens ?? known?.limits.maxReferenceTokens
    card.limits.denoiserBlocks = card.limits.denoiserBlocks ?? known?.limits.denoiserBlocks
    entries[card.model, default: Entry(card: card, createdUnix: nowUnix)].card = card
  }

  /// Takes note of which models are complete now.
  mutating func update(_ status: ClusterStatus) {
    for (model, entry) in entries where entry.completePipelines.count < entry.card.pipelines.count {
      let ready = readyPipelines(of: entry.card, status)
      entries[model]?.completePipelines.formUnion(ready)
      guard entry.completedAt == 0, !ready.isEmpty else { continue }
      moments += 1
      entries[model]?.completedAt = moments
    }
  }

  /// Whether a pipeline for which `condition` holds has not been complete yet.
  func hasIncomplete(where condition: (ModelIdentity, Pipeline) -> Bool) -> Bool {
    entries.contains { model, entry in
      entry.completePipelines.count < entry.card.pipelines.count
        && pipelines.pipelines(of: entry.card).contains {
          !entry.completePipelines.contains($0.name) && condition(model, $0)
        }
    }
  }

  /// The card that workers of this model have; nil: none came yet.
  public func card(of model: ModelIdentity) -> ModelCard? { entries[model]?.card }

  /// The model's pipelines that can be served now: each stage has a ready worker.
  public func readyPipelines(of card: ModelCard, _ status: ClusterStatus) -> [PipelineName] {
    pipelines.pipelines(of: card).filter { missingStages($0, of: card, status).isEmpty }.map(\.name)
  }

  /// Whether any of the model's pipelines can be served now.
  public func isReady(_ card: ModelCard, _ status: ClusterStatus) -> Bool { !readyPipelines(of: card, status).isEmpty }

  /// Names of the models that can be asked for, in the order in which they came.
  public var modelIDs: [String] {
    var ids: [String] = []
    for (model, entry) in entries where entry.completedAt > 0 && !ids.contains(model.id) { ids.append(model.id) }
    return ids
  }

  /// When the first worker with the model came, in seconds since 1970.
  public func createdUnix(_ id: String) -> Int { entries.first { $0.key.id == id }?.value.createdUnix ?? 0 }

  /// The card to check a request against: that of the weights which became complete last, if possible of those that are
  /// so now.
  ///
  /// A model whose stages were all there once is served even while one is away: its jobs wait in the queue.
  ///
  /// - Parameters:
  ///   - name: the model asked for; nil: the first that came.
  ///   - status: which workers are there now.
  public func card(named name: String?, status: @autoclosure () -> ClusterStatus) throws(APIError) -> ModelCard {
    guard let name = name ?? modelIDs.first else { throw notReady(entries.values.first?.card, status()) }
    let candidates = entries.values.filter { $0.card.model.id == name }
    guard !candidates.isEmpty else {
      if entries.isEmpty { throw notReady(nil, status()) }
      let known = modelIDs.map { "\"\($0)\"" }.joined(separator: ", ")
      throw APIError(
        .modelNotFound,
        "the model \"\(name.prefix(80))\" does not exist; there is \(known.isEmpty ? "none yet" : known)",
        param: "model")
    }
    let complete = candidates.filter { $0.completedAt > 0 }
    // Most models have one checkpoint: no worker has to be asked then.
    if complete.count == 1 { return complete[0].card }
    let status = status()
    let best =
      complete
      .max { (isReady($0.card, status) ? 1 : 0, $0.completedAt) < (isReady($1.card, status) ? 1 : 0, $1.completedAt) }
    guard let best else { throw notReady(candidates.last?.card, status) }
    return best.card
  }

  /// ``card(named:status:)`` with those of its pipelines whose stages were all there once.
  public func servedCard(
    named name: String?, status: @autoclosure () -> ClusterStatus
  ) throws(APIError) -> ModelCard {
    var card = try card(named: name, status: status())
    card.pipelines.removeAll { entries[card.model]?.completePipelines.contains($0) != true }
    return card
  }

  /// The model's pipelines that some workers serve, and for which a stage has no worker at all yet. Workers of a stage
  /// that serve other pipelines say that this one is not to come: a denoiser without a control network.
  func pendingPipelines(of model: ModelIdentity, _ status: @autoclosure () -> ClusterStatus) -> [PipelineName] {
    guard let entry = entries[model], entry.completePipelines.count < entry.card.pipelines.count else { return [] }
    let status = status()
    let present = Set(status.workers.filter { $0.registration.model == model }.map(\.registration.stage))
    return pipelines.pipelines(of: entry.card).filter { pipeline in
      !entry.completePipelines.contains(pipeline.name)
        && missingStages(pipeline, of: entry.card, status).allSatisfy { !present.contains($0) }
    }.map(\.name)
  }

  private func notReady(_ card: ModelCard?, _ status: ClusterStatus) -> APIError {
    APIError(.notReady, missing(card, status), retryAfterSeconds: 5)
  }

  /// The stages that a model lacks: those of the pipeline that lacks the fewest.
  public func missingStages(_ card: ModelCard, _ status: ClusterStatus) -> [StageName] {
    pipelines.pipelines(of: card).map { missingStages($0, of: card, status) }.min { $0.count < $1.count } ?? []
  }

  private func missingStages(_ pipeline: Pipeline, of card: ModelCard, _ status: ClusterStatus) -> [StageName] {
    status.missingStages(of: card.model, for: pipeline.name, stages: pipeline.stages)
  }

  /// Says what keeps the cluster from serving a model.
  public func missing(_ card: ModelCard?, _ status: ClusterStatus) -> String {
    guard let card, !status.workers.isEmpty else {
      let stages = pipelines.pipelines.first?.stages.map(\.text) ?? []
      return "no worker has registered yet: a \(stages.joined(separator: ", a ")) are needed"
    }
    guard !pipelines.pipelines(of: card).isEmpty else {
      let names = card.pipelines.map(\.text).joined(separator: ", ")
      return "this gateway knows none of the pipelines of model \(card.model): \(names)"
    }
    return
      "no ready worker for: \(missingStages(card, status).map(\.text).joined(separator: ", ")) (model \(card.model))"
  }
}
