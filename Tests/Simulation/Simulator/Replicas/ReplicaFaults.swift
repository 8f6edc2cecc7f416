import Scheduling

extension ReplicaSimulation {
  func isCut(_ slot: Int, _ gateway: Int) -> Bool { now < workerCutUntil[gateway] }

  func reachesJournal(_ gateway: Int) -> Bool { now >= journalDownUntil && now >= journalCutUntil[gateway] }

  func breakWorker() {
    let slot = random.pick(0...workers.count - 1)
    guard workers[slot].process != 0 else { return }
    switch random.pick(0...2) {
    case 0: crashWorker(slot)
    case 1:
      count("worker freezes")
      workers[slot].isFrozen = true
      let end = min(now + random.pick(2000...40_000), scenario.chaosMs)
      schedule(.thaw(slot: slot, process: workers[slot].process), in: max(1, end - now))
    default:
      let link = random.pick(0...gateways.count - 1)
      count("resets")
      disconnect(slot, link)
      schedule(.connect(slot: slot, link: link, process: workers[slot].process), in: random.pick(50...2000))
    }
  }

  func breakGateway() {
    let index = random.pick(0...gateways.count - 1)
    guard let gateway = gateways[index] else { return }
    let end = min(now + random.pick(2000...40_000), scenario.chaosMs)
    switch random.pick(0...99) {
    case 0..<30:
      count("gateway kills")
      log("g\(index) is killed")
      endGateway(index, restartInMs: random.chance(0.2) ? random.pick(10_000...40_000) : random.pick(50...3000))
    case 30..<55:
      count("gateway freezes")
      log("g\(index) stands still until \(end)")
      frozenUntil[index] = max(frozenUntil[index], end)
    case 55..<75:
      count("gateways cut off from the journal")
      log("g\(index) does not reach the journal until \(end)")
      journalCutUntil[index] = end
    case 75..<88:
      count("gateways cut off from workers")
      log("g\(index) does not reach workers until \(end)")
      workerCutUntil[index] = end
    default:
      count("gateway stops")
      log("g\(index) is asked to stop")
      gateway.isStopping = true
      schedule(.stop(index, life: gateway.life), in: 1)
    }
  }

  func breakJournal() {
    count("journal outages")
    journalDownUntil = min(now + random.pick(1000...15_000), scenario.chaosMs)
    log("the journal cannot be reached until \(journalDownUntil)")
  }

  /// Whether what must be soon is.
  func watch() {
    schedule(.watch, in: 500)
    journal.noteOverdue(now: now)
    for index in gateways.indices {
      let isHealthy =
        gateways[index].map { journal.isOwner($0.epoch) && !$0.isStopping } ?? false && now >= frozenUntil[index]
        && reachesJournal(index)
      healthySince[index] = isHealthy ? healthySince[index] ?? now : nil
    }
    guard let healthy = healthySince.compactMap({ $0 }).min() else { return }
    for (id, entry) in journal.images {
      guard let orphanedAt = entry.orphanedAt, now - max(orphanedAt, healthy) > ReplicaScenario.adoptionLimitMs
      else { continue }
      report("no gateway has adopted \(id), which has had no owner since \(orphanedAt) ms")
    }
  }
}
