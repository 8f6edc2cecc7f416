import Scheduling

extension Simulation {
  func breakWorker() {
    let slot = random.pick(0...workers.count - 1)
    guard workers[slot].process != 0 else { return }
    let end = max(now + 1, min(now + random.pick(2000...60_000), scenario.chaosMs))
    switch random.pick(0...99) {
    case 0..<35: crashWorker(slot, restartInMs: random.pick(500...20_000))
    case 35..<55:
      count("freezes")
      log("slot \(slot) freezes until \(end)")
      workers[slot].isFrozen = true
      schedule(.thaw(slot: slot, process: workers[slot].process), in: end - now)
    case 55..<75:
      count("partitions")
      log("slot \(slot) is cut off until \(end)")
      partitions[slot] = end
    case 75..<83:
      count("slow workers")
      workers[slot].slowness = random.pick(3...30)
    case 83..<88:
      count("sick workers")
      log("slot \(slot) fails from now on")
      workers[slot].isSick = true
    case 88..<95:
      count("resets")
      log("the connection of slot \(slot) breaks")
      disconnect(slot)
      schedule(.connect(slot: slot, process: workers[slot].process), in: random.pick(50...2000))
    default: stopWorker(slot)
    }
  }

  /// A step that never ends; the process still says that all is well, until it is killed.
  func stick(slot: Int, process: Int) {
    log("p\(process) is stuck")
    schedule(.killStuck(slot: slot, process: process), in: random.pick(40_000...100_000))
  }

  /// SIGSTOP, or a machine that is suspended.
  func freezeGateway() {
    count("gateway freezes")
    gatewayFrozenUntil = min(now + random.pick(2000...60_000), scenario.chaosMs)
    log("the gateway freezes until \(gatewayFrozenUntil)")
  }

  func fillDisk() {
    count("full disks")
    diskFullUntil = max(diskFullUntil, min(now + random.pick(2000...30_000), scenario.chaosMs))
    log("the disk is full until \(diskFullUntil)")
  }
}
