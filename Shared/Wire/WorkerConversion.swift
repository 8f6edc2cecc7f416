import CWire
import ClusterCore

extension TaskReference: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__TaskReference>) {
    qwenimage__v1__task_reference__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("job_id", jobID)
    try fields.identifier("task_id", taskID)
    try fields.range("attempt", attempt, 1...UInt32.max)
  }

  func fill(_ message: inout Qwenimage__V1__TaskReference, _ arena: CArena) {
    message.job_id = arena.text(jobID)
    message.task_id = arena.text(taskID)
    message.attempt = attempt
  }

  init(_ message: Qwenimage__V1__TaskReference, _ fields: FieldCheck) {
    self.init(jobID: String(field: message.job_id), taskID: String(field: message.task_id), attempt: message.attempt)
  }
}

extension Register: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__Register>) {
    qwenimage__v1__register__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("worker_id", workerID)
    try card.check(fields.inside("card"))
    try fields.identifier("component_fingerprint", componentFingerprint)
    try fields.identifier("numerics_class", numericsClass)
    try fields.range("credits", credits, 1...1024)
    try fields.label("host", host)
    try fields.label("software_version", softwareVersion)
    try fields.list("running", running) { (element, task) throws(WireError) in try task.check(element) }
    try fields.list("standby_cards", standbyCards) { (element, card) throws(WireError) in try card.check(element) }
  }

  func fill(_ message: inout Qwenimage__V1__Register, _ arena: CArena) {
    message.worker_id = arena.text(workerID)
    message.stage = Self.kinds.first { $0.name == stage }?.kind ?? QWENIMAGE__V1__STAGE_KIND__STAGE_KIND_UNSPECIFIED
    message.stage_name = arena.text(stage.text)
    message.card = card.pointer(arena)
    message.component_fingerprint = arena.text(componentFingerprint)
    message.numerics_class = arena.text(numericsClass)
    message.credits = UInt32(credits)
    message.host = arena.text(host)
    message.pid = pid
    message.software_version = arena.text(softwareVersion)
    message.n_running = running.count
    message.running = arena.array(running.map { $0.pointer(arena) })
    message.n_standby_cards = standbyCards.count
    message.standby_cards = arena.array(standbyCards.map { $0.pointer(arena) })
    message.assists = assists ? 1 : 0
    message.takes_claims = takesClaims ? 1 : 0
  }

  init(_ message: Qwenimage__V1__Register, _ fields: FieldCheck) throws(WireError) {
    self.init(
      workerID: String(field: message.worker_id), stage: try Self.stage(message, fields),
      card: try .required(message.card, "card", of: fields),
      componentFingerprint: String(field: message.component_fingerprint),
      numericsClass: String(field: message.numerics_class), credits: Int(message.credits),
      host: String(field: message.host),
      pid: message.pid, softwareVersion: String(field: message.software_version),
      running: try TaskReference.list(message.running, message.n_running, "running", of: fields),
      standbyCards: try ModelCard.list(message.standby_cards, message.n_standby_cards, "standby_cards", of: fields))
    assists = message.assists != 0
    takesClaims = message.takes_claims != 0
  }

  /// The stages that 0.1 knows by number.
  private static let kinds: [(name: StageName, kind: Qwenimage__V1__StageKind)] = [
    (.textEncoder, QWENIMAGE__V1__STAGE_KIND__STAGE_KIND_TEXT_ENCODER),
    (.denoiser, QWENIMAGE__V1__STAGE_KIND__STAGE_KIND_DENOISER),
    (.vaeDecoder, QWENIMAGE__V1__STAGE_KIND__STAGE_KIND_VAE_DECODER),
  ]

  private static func stage(_ message: Qwenimage__V1__Register, _ fields: FieldCheck) throws(WireError) -> StageName {
    let text = String(field: message.stage_name)
    if let name = StageName(text) { return name }
    guard text.isEmpty else { throw .notAName(field: fields.name("stage_name"), value: text) }
    guard let known = kinds.first(where: { $0.kind == message.stage }) else {
      throw .missing(field: fields.name("stage_name"))
    }
    return known.name
  }
}

/// Of `SwitchModel`.
extension ModelIdentity: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__SwitchModel>) {
    qwenimage__v1__switch_model__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("model_id", id)
    try fields.identifier("model_fingerprint", fingerprint)
  }

  func fill(_ message: inout Qwenimage__V1__SwitchModel, _ arena: CArena) {
    message.model_id = arena.text(id)
    message.model_fingerprint = arena.text(fingerprint)
  }

  init(_ message: Qwenimage__V1__SwitchModel, _ fields: FieldCheck) {
    self.init(id: String(field: message.model_id), fingerprint: String(field: message.model_fingerprint))
  }
}

extension Registered: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__Registered>) {
    qwenimage__v1__registered__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("session_id", sessionID)
    try fields.range("heartbeat_interval_ms", heartbeatIntervalMs, 1...3_600_000)
    try fields.range("lease_ms", leaseMs, heartbeatIntervalMs...86_400_000)
    try fields.label("gateway_id", gatewayID)
  }

  func fill(_ message: inout Qwenimage__V1__Registered, _ arena: CArena) {
    message.session_id = arena.text(sessionID)
    message.heartbeat_interval_ms = UInt32(heartbeatIntervalMs)
    message.lease_ms = UInt32(leaseMs)
    message.takes_adapters = takesAdapters ? 1 : 0
    message.gateway_id = arena.text(gatewayID)
  }

  init(_ message: Qwenimage__V1__Registered, _ fields: FieldCheck) {
    self.init(
      sessionID: String(field: message.session_id), heartbeatIntervalMs: Int(message.heartbeat_interval_ms),
      leaseMs: Int(message.lease_ms), takesAdapters: message.takes_adapters != 0,
      gatewayID: String(field: message.gateway_id))
  }
}

extension TaskActivity: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__TaskActivity>) {
    qwenimage__v1__task_activity__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try task.check(fields.inside("task"))
    try fields.range("steps", steps, 0...FieldCheck.maxSteps)
    try fields.range("completed_steps", completedSteps, 0...steps)
    try fields.seconds("step_seconds", stepSeconds)
  }

  func fill(_ message: inout Qwenimage__V1__TaskActivity, _ arena: CArena) {
    message.task = task.pointer(arena)
    message.completed_steps = UInt32(completedSteps)
    message.steps = UInt32(steps)
    message.step_seconds = stepSeconds
  }

  init(_ message: Qwenimage__V1__TaskActivity, _ fields: FieldCheck) throws(WireError) {
    self.init(
      task: try .required(message.task, "task", of: fields), completedSteps: Int(message.completed_steps),
      steps: Int(message.steps),
      stepSeconds: message.step_seconds)
  }
}

extension Heartbeat: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__Heartbeat>) {
    qwenimage__v1__heartbeat__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("session_id", sessionID)
    try fields.range("free_credits", freeCredits, 0...1024)
    try fields.list("running", running) { (element, activity) throws(WireError) in try activity.check(element) }
  }

  func fill(_ message: inout Qwenimage__V1__Heartbeat, _ arena: CArena) {
    message.session_id = arena.text(sessionID)
    message.free_credits = UInt32(freeCredits)
    message.resident_bytes = residentBytes
    message.peak_resident_bytes = peakResidentBytes
    message.tasks_done = tasksDone
    message.tasks_failed = tasksFailed
    message.n_running = running.count
    message.running = arena.array(running.map { $0.pointer(arena) })
    message.draining = draining ? 1 : 0
  }

  init(_ message: Qwenimage__V1__Heartbeat, _ fields: FieldCheck) throws(WireError) {
    self.init(
      sessionID: String(field: message.session_id), freeCredits: Int(message.free_credits),
      residentBytes: message.resident_bytes,
      peakResidentBytes: message.peak_resident_bytes, tasksDone: message.tasks_done, tasksFailed: message.tasks_failed,
      running: try TaskActivity.list(message.running, message.n_running, "running", of: fields),
      draining: message.draining != 0)
  }
}
