import Foundation

/// One run: gateways, workers and clients, from start to end.
final class Run {
  private let options: Options
  private let folder: URL
  private let gateways: [GatewayProcess]
  private let recorder = Recorder()
  private let workers = WorkerControl()
  private let clients = ClientControl()
  private var report = Report()

  init(_ options: Options) throws {
    self.options = options
    folder = URL(filePath: NSTemporaryDirectory()).appending(path: "capacity-\(getpid())")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    let keys = options.curve ? folder.appending(path: "keys") : nil
    if let keys {
      let command = URL(filePath: options.binaries).appending(path: "qwen-image")
      let process = try Process.run(command, arguments: ["keygen", keys.path()])
      process.waitUntilExit()
    }
    gateways = (0..<options.gateways).map { [folder] in GatewayProcess($0, options, folder: folder, keys: keys) }
    _ = try gateways.map { try $0.start() }
    let endpoints = gateways.map(\.endpoint), ports = gateways.map(\.httpPort)
    Self.thread("workers") { [recorder, workers] in
      try WorkerPool(options, endpoints: endpoints, keys: keys, recorder, workers).run()
    }
    Self.thread("clients") { [recorder, clients] in LoadClient(options, ports: ports, recorder, clients).run() }
  }

  private static func thread(_ name: String, _ body: @escaping @Sendable () throws -> Void) {
    let thread = Thread {
      do { try body() } catch {
        FileHandle.standardError.write(Data("\(error)\n".utf8))
        GatewayProcess.killAll()
        exit(1)
      }
    }
    thread.name = name
    thread.stackSize = 8 << 20
    thread.start()
  }

  /// Ends everything that was started.
  func end() {
    clients.set { $0.isStopping = true }
    workers.send(.stop)
    for gateway in gateways {
      gateway.stop(SIGTERM)
      gateway.removeJournal()
    }
    try? FileManager.default.removeItem(at: folder)
  }

  func measure() throws -> Report {
    try connectWorkers()
    if options.soakMinutes > 0 { try soak() } else { try serve() }
    if options.recovery > 0 { try recover() }
    return report
  }

  // MARK: Phases

  private var usage: Usage { Usage.total(gateways.map(\.usage)) }

  private func sleep(_ seconds: Double) throws {
    usleep(UInt32(seconds * 1e6))
    if let gone = gateways.first(where: { !$0.isRunning }) { throw Failure("gateway \(gone.endpoint) has ended") }
  }

  private func wait(_ what: String, atMost seconds: Double, until condition: () -> Bool) throws -> Double {
    let began = nowNs()
    while !condition() {
      guard Double(nowNs() - began) < seconds * 1e9 else { throw Failure("\(what): not within \(seconds) s") }
      try sleep(0.02)
    }
    return Double(nowNs() - began) / 1e9
  }

  private func connectWorkers() throws {
    let before = usage
    workers.send(.connect)
    let wanted = options.workers * gateways.count
    let seconds = try wait("the registration of \(wanted) workers", atMost: 300) {
      recorder.snapshot.counts.registered >= wanted
    }
    try sleep(1)
    let after = usage
    report.add("workers", Double(wanted))
    report.add("register_seconds", seconds)
    report.add("register_cpu_ms_per_worker", (after.cpuSeconds - before.cpuSeconds) * 1000 / Double(wanted))
    report.add("rss_kib_per_worker", Double(after.residentBytes - before.residentBytes) / 1024 / Double(wanted))
    report.add("descriptors_per_worker", Double(after.descriptors - before.descriptors) / Double(wanted))
    let idle = usage
    try sleep(5)
    report.add("idle_cpu_percent", (usage.cpuSeconds - idle.cpuSeconds) / 5 * 100)
  }

  private func startLoad() {
    clients.set { [options] load in
      load.rate = options.rate
      load.follow = options.follow
    }
  }

  private func serve() throws {
    startLoad()
    try sleep(options.warmup)
    recorder.reset()
    let before = usage, began = nowNs()
    try sleep(options.seconds)
    let state = recorder.snapshot, seconds = Double(nowNs() - began) / 1e9, after = usage
    clients.set { $0.rate = 0 }
    addRates(state, seconds, before, after)
    try drain(after: state)
  }

  private func addRates(_ state: Recorder.State, _ seconds: Double, _ before: Usage, _ after: Usage) {
    let counts = state.counts
    let cpu = after.cpuSeconds - before.cpuSeconds
    report.add("offered_jobs_per_second", options.rate)
    report.add("admitted_jobs_per_second", Double(counts.accepted) / seconds)
    report.add("finished_jobs_per_second", Double(counts.decoded) / seconds)
    report.add("refused_jobs", Double(counts.refused))
    report.add("messages_per_second", Double(counts.sent + counts.received) / seconds)
    report.add("gateway_cpu_percent", cpu / seconds * 100)
    report.add("gateway_cpu_ms_per_job", cpu * 1000 / Double(max(1, counts.decoded)))
    report.add("gateway_cpu_us_per_message", cpu * 1e6 / Double(max(1, counts.sent + counts.received)))
    report.add("gateway_rss_mib", Double(after.residentBytes) / 1048576)
    report.add("gateway_descriptors", Double(after.descriptors))
    report.add("written_mib_per_second", Double(after.writtenBytes - before.writtenBytes) / 1048576 / seconds)
    report.add("dispatch", state.dispatch)
    report.add("first_offer", state.firstOffer)
    report.add("submit", state.submit)
    report.add("job", state.job)
    report.add("repeated_attempts", Double(counts.repeated))
    report.add("broken_connections", Double(counts.broken))
    report.add("lost_messages", Double(counts.lost))
  }

  /// Waits for the end of all jobs that were accepted; one that has none is lost.
  private func drain(after state: Recorder.State) throws {
    let began = nowNs()
    var left = queuedAndStarted
    while clients.openCount > 0 || left > 0, Double(nowNs() - began) < 300e9 {
      try sleep(0.5)
      left = queuedAndStarted
    }
    report.add("drain_seconds", Double(nowNs() - began) / 1e9)
    let counts = recorder.snapshot.counts
    report.add("failed_jobs", Double(counts.failed))
    report.add("unfinished_jobs", Double(max(left, clients.openCount)))
    if counts.failed > 0 { report.failures.append("\(counts.failed) jobs have failed") }
    if max(left, clients.openCount) > 0 {
      report.failures.append("\(left) jobs have not ended, and \(clients.openCount) clients wait")
    }
  }

  private var queuedAndStarted: Int {
    gateways.reduce(0) {
      $0 + Int($1.metric("qwenimage_gateway_queued_jobs") + $1.metric("qwenimage_gateway_started_jobs"))
    }
  }

  /// Queues jobs with no worker there, ends the gateways without warning, and starts them again.
  private func recover() throws {
    workers.send(.leave)
    _ = try wait("the workers' leaving", atMost: 60) {
      gateways.reduce(0) { $0 + $1.metric("qwenimage_gateway_workers") } == 0
    }
    try sleep(2)
    let before = usage, beforeBytes = gateways.reduce(0) { $0 + $1.journalBytes }
    recorder.reset()
    clients.set { [options] load in (load.fill, load.fillConnections) = (options.recovery, 32) }
    let seconds = try wait("the queue of \(options.recovery) jobs", atMost: 3600) {
      let counts = recorder.snapshot.counts
      return counts.accepted + counts.refused + counts.broken >= options.recovery
    }
    try sleep(1)
    let counts = recorder.snapshot.counts, after = usage, accepted = Double(max(1, counts.accepted))
    report.add("queued_jobs", Double(counts.accepted))
    report.add("queue_refused", Double(counts.refused + counts.broken))
    report.add("queue_seconds", seconds)
    report.add("queue_cpu_ms_per_job", (after.cpuSeconds - before.cpuSeconds) * 1000 / accepted)
    report.add("rss_bytes_per_queued_job", Double(after.residentBytes - before.residentBytes) / accepted)
    report.add(
      "journal_bytes_per_queued_job", Double(gateways.reduce(0) { $0 + $1.journalBytes } - beforeBytes) / accepted)
    for gateway in gateways { gateway.stop(SIGKILL) }
    let starts = try gateways.map { try $0.start() }
    report.add("recovery_seconds", starts.max() ?? 0)
    report.add("recovery_cpu_seconds", usage.cpuSeconds)
    report.add("recovered_rss_bytes_per_job", Double(usage.residentBytes) / accepted)
    // The metrics come with the first look at the clock, which may take a while with a long queue.
    _ = try? wait("the queue after the restart", atMost: 60) { queuedAndStarted == counts.accepted }
    let found = queuedAndStarted
    report.add("recovered_jobs", Double(found))
    if found != counts.accepted { report.failures.append("\(counts.accepted) jobs were queued, \(found) are there") }
    let began = nowNs()
    recorder.reset()
    workers.send(.connect)
    _ = try wait("a job's end after the recovery", atMost: 300) { recorder.snapshot.counts.decoded > 0 }
    report.add("first_result_after_recovery_seconds", Double(nowNs() - began) / 1e9)
  }

  /// Serves for long, and judges whether memory and descriptors stay as they are.
  private func soak() throws {
    startLoad()
    try sleep(options.warmup)
    recorder.reset()
    let before = usage, began = nowNs()
    var samples: [Usage] = []
    let end = options.soakMinutes * 60
    while Double(nowNs() - began) / 1e9 < end {
      try sleep(min(10, max(1, end / 60)))
      samples.append(usage)
      let minutes = Double(nowNs() - began) / 60e9
      print(
        "minute \((minutes * 10).rounded() / 10): \(samples[samples.count - 1].residentBytes >> 20) MiB, "
          + "\(samples[samples.count - 1].descriptors) descriptors, \(recorder.snapshot.counts.decoded) jobs")
    }
    let state = recorder.snapshot, seconds = Double(nowNs() - began) / 1e9, after = usage
    clients.set { $0.rate = 0 }
    addRates(state, seconds, before, after)
    judge(samples)
    try drain(after: state)
  }

  /// Compares the last quarter with the second one: the first is still filling caches.
  private func judge(_ samples: [Usage]) {
    guard samples.count >= 8 else { return }
    func median(_ range: Range<Int>, _ value: (Usage) -> Int) -> Int {
      samples[range].map(value).sorted()[range.count / 2]
    }
    let quarter = samples.count / 4
    for (name, value, allowance) in [
      ("rss_mib", { $0.residentBytes >> 20 }, 16), ("descriptors", { $0.descriptors }, 64),
    ] as [(String, (Usage) -> Int, Int)] {
      let early = median(quarter..<2 * quarter, value), late = median(samples.count - quarter..<samples.count, value)
      report.add("soak_\(name)_second_quarter", Double(early))
      report.add("soak_\(name)_last_quarter", Double(late))
      if late > early + max(allowance, early / 20) {
        report.failures.append("\(name) has grown from \(early) to \(late)")
      }
    }
  }
}
