import ClusterCore
import GatewayDispatch
import Hummingbird
import Scheduling
import Wire

/// `GET /v1/workers`.
struct WorkersRoutes: Sendable {
  let dispatcher: Dispatcher

  struct Task: Encodable {
    var job: String
    var attempt: UInt32
    /// Whether it only makes half of the predictions, for another worker that runs the attempt.
    var assists: Bool
    var step: Int
    var steps: Int
  }

  struct Worker: Encodable {
    var id: String
    var object = "worker"
    var stage: String
    var state: String
    var model: String
    var fingerprint: String
    /// Names of the models that it can load in place of that one.
    var standbyModels: [String]
    /// The adapters that requests may name; absent: none.
    var adapters: [AdapterItem]?
    var componentFingerprint: String
    var numericsClass: String
    var credits: Int
    var freeCredits: Int
    var running: [Task]
    var host: String
    var pid: UInt64
    var softwareVersion: String
    var tasksFinished: Int
    var tasksFailed: Int
    var residentBytes: UInt64?
    var peakResidentBytes: UInt64?
    var silentSeconds: Double
    var sessionSeconds: Double
  }

  struct List: Encodable {
    var object = "list"
    var data: [Worker]
    /// Images, by the name that 0.1 gave them.
    var queuedJobs: Int
    var startedJobs: Int
  }

  func add(to router: Router<GatewayContext>) {
    router.serve("/v1/workers", [(.get, { _, _ in try .json(await list()) })])
  }

  private func list() async -> List {
    let status = await dispatcher.status
    let details = await dispatcher.workerDetails
    let workers = status.workers.compactMap { worker in
      details[worker.registration.id].map { Worker(worker, $0.register, $0.heartbeat, $0.adapters) }
    }
    return List(data: workers, queuedJobs: status.queuedImages, startedJobs: status.startedImages)
  }
}

extension WorkersRoutes.Worker {
  init(_ status: WorkerStatus, _ register: Register, _ heartbeat: Heartbeat?, _ adapters: [ServedAdapter]) {
    id = register.workerID
    stage = status.registration.stage.text
    state = status.state.rawValue
    model = status.registration.model.id
    fingerprint = status.registration.model.fingerprint
    standbyModels = register.standbyCards.map(\.model.id)
    self.adapters = adapters.isEmpty ? nil : adapters.map { AdapterItem($0) }
    componentFingerprint = register.componentFingerprint
    numericsClass = register.numericsClass
    credits = register.credits
    freeCredits = status.freeCredits
    running = status.running.map { attempt in
      let activity = heartbeat?.running.first { $0.task.attemptID == attempt }
      return .init(
        job: attempt.task.job.text, attempt: attempt.number, assists: attempt.assistance > 0,
        step: activity?.completedSteps ?? 0,
        steps: activity?.steps ?? 0)
    }
    host = register.host
    pid = register.pid
    softwareVersion = register.softwareVersion
    tasksFinished = status.tasksFinished
    tasksFailed = status.tasksFailed
    residentBytes = heartbeat?.residentBytes
    peakResidentBytes = heartbeat?.peakResidentBytes
    silentSeconds = status.silentSeconds
    sessionSeconds = status.sessionSeconds
  }
}
