import ClusterCore
import OrderedCollections

/// What some job needs a worker for.
struct ModelNeed: Hashable, Sendable {
  let stage: StageName
  let model: ModelIdentity
  /// Of the checkpoint to resume from; nil: workers of any class do.
  let numericsClass: String?

  func isMet(by worker: WorkerRegistration, with model: ModelIdentity) -> Bool {
    worker.stage == stage && model == self.model && numericsClass.map { $0 == worker.numericsClass } ?? true
  }
}

/// Since when some job needs it, and for which pipelines.
private struct Demand {
  private(set) var since: Instant
  private(set) var pipelines: [PipelineName] = []

  init(since: Instant) { self.since = since }

  mutating func note(_ admittedAt: Instant, _ pipeline: PipelineName?) {
    since = min(since, admittedAt)
    if let pipeline, !pipelines.contains(pipeline) { pipelines.append(pipeline) }
  }
}

extension Scheduler {
  /// Asks workers to load a model that jobs wait for and that no worker of the stage has loaded.
  ///
  /// A worker is asked when no job needs the model that it has; or when the other jobs have waited for
  /// `modelPatience`, and the worker has had its model for as long: so models of steady demand take turns, each of at
  /// least that time.
  mutating func switchModels(now: Instant) {
    guard workers.values.contains(where: { !$0.registration.standby.isEmpty }) else { return }
    // To walk through a long queue takes longer than a tick may.
    if jobs.count > 4096, let needsSeenAt, now - needsSeenAt < .seconds(2) { return }
    needsSeenAt = now
    let needs = modelNeeds()
    for (need, wanted) in needs {
      if let earlier = modelSwitches[need], now - earlier.at < configuration.modelSwitchLimit { continue }
      let isLoaded = workers.values.contains {
        need.isMet(by: $0.registration, with: $0.registration.model) && !$0.isLeaving
      }
      guard !isLoaded, let worker = workerToSwitch(to: need, wanted, needs, now: now),
        let name = workers[worker]?.registration.name
      else { continue }
      modelSwitches[need] = (name, now)
      workers[worker]?.switchAskedAt = now
      free.update(worker, workers[worker])
      effects.append(.switchModel(worker, to: need.model))
    }
  }

  /// A worker has come: what it was asked for is done, or it is to be asked again.
  mutating func endModelSwitches(with registration: WorkerRegistration) {
    forgetModelSwitches { need, worker in
      worker == registration.name || need.isMet(by: registration, with: registration.model)
    }
  }

  /// A worker that takes tasks, long after it was asked to load another model, has not heard of that: it may be asked
  /// again.
  mutating func repeatModelSwitch(of id: WorkerID, now: Instant) {
    guard let worker = workers[id], !worker.isDraining, let askedAt = worker.switchAskedAt,
      now - askedAt >= configuration.lease
    else { return }
    workers[id]?.switchAskedAt = nil
    forgetModelSwitches { $1 == worker.registration.name }
  }

  private mutating func forgetModelSwitches(_ isOver: (_ need: ModelNeed, _ worker: String) -> Bool) {
    modelSwitches = modelSwitches.filter { !isOver($0.key, $0.value.worker) }
  }

  /// What unfinished jobs need, in the order in which they were admitted.
  private func modelNeeds() -> OrderedDictionary<ModelNeed, Demand> {
    var needs: OrderedDictionary<ModelNeed, Demand> = [:]
    for job in jobs.values {
      for (id, plan) in zip(job.tasks, job.plan.tasks) {
        guard let id else { continue }
        let need = ModelNeed(
          stage: plan.stage, model: job.submission.model, numericsClass: tasks[id]?.numericsClass)
        needs[need, default: Demand(since: job.admittedAt)].note(job.admittedAt, plan.pipeline)
      }
    }
    return needs
  }

  /// Of the workers that can load the model one that no job needs, else one whose time is over: with the fewest tasks.
  private func workerToSwitch(
    to need: ModelNeed, _ wanted: Demand,
    _ needs: OrderedDictionary<ModelNeed, Demand>, now: Instant
  ) -> WorkerID? {
    let candidates = workers.values.filter { worker in
      let offered = worker.registration.standby[need.model]
      return need.isMet(by: worker.registration, with: need.model) && !worker.isLeaving
        && !worker.isQuarantined(now: now)
        && offered.map { wanted.pipelines.isEmpty || wanted.pipelines.contains(where: $0.contains) } ?? false
    }
    let isOverdue = now - wanted.since >= configuration.modelPatience
    return candidates.filter { worker in
      let registration = worker.registration
      let isNeeded = needs.keys.contains { $0.isMet(by: registration, with: registration.model) }
      guard isNeeded else { return worker.isAtMostAssisting }
      return isOverdue && now - worker.joinedAt >= configuration.modelPatience
    }.min { ($0.attempts.count, $0.joinedAt) < ($1.attempts.count, $1.joinedAt) }?.registration.id
  }
}
