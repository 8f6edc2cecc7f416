import CWire

/// What `Body.claim` holds, at least one task and at most as many as a list may have.
struct Claim: WireMessage {
  var tasks: [TaskReference]

  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__Claim>) {
    qwenimage__v1__claim__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    guard !tasks.isEmpty else { throw .missing(field: fields.name("tasks")) }
    try fields.list("tasks", tasks) { (element, task) throws(WireError) in try task.check(element) }
  }

  func fill(_ message: inout Qwenimage__V1__Claim, _ arena: CArena) {
    message.n_tasks = tasks.count
    message.tasks = arena.array(tasks.map { $0.pointer(arena) })
  }
}

extension Claim {
  init(_ message: Qwenimage__V1__Claim, _ fields: FieldCheck) throws(WireError) {
    tasks = try TaskReference.list(message.tasks, message.n_tasks, "tasks", of: fields)
  }
}
