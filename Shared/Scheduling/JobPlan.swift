/// One step of a job's plan: work for one stage.
public struct TaskPlan: Hashable, Sendable {
  /// Who does it.
  public var stage: Stage
  /// Places in the plan of the tasks whose outputs this one takes, each before this one's own place.
  public var inputs: [Int]
  /// Tasks of one model with equal content have equal outputs: they are done once, and the output is cached. nil: never shared.
  public var content: String?
  /// Steps that are reported one by one; 0 for a task without steps.
  public var stepCount: Int
  /// How much work it is, in a unit of the submitter's choice that is the same for all tasks of a stage.
  public var cost: Double
  /// The request's field that the task is about. A failure that blames a field of the task's own message blames this
  /// one for the job.
  public var field: String?

  /// A task for `stage`.
  public init(
    stage: Stage, inputs: [Int] = [], content: String? = nil, stepCount: Int = 0, cost: Double = 1, field: String? = nil
  ) {
    self.stage = stage
    self.inputs = inputs
    self.content = content
    self.stepCount = stepCount
    self.cost = cost
    self.field = field
  }
}

/// What a job does: tasks in an order in which every task comes after those whose outputs it takes. The last one's output is the job's.
public struct JobPlan: Hashable, Sendable {
  /// Never empty.
  public let tasks: [TaskPlan]

  /// A plan of `tasks`; empty plans, inputs that do not come earlier and shared tasks with inputs are programmer errors.
  public init(_ tasks: [TaskPlan]) {
    if let problem = Self.problem(of: tasks) { preconditionFailure(problem) }
    self.tasks = tasks
  }

  /// A plan that was read from somewhere.
  ///
  /// - Throws: INVALID_ARGUMENT for what would be a programmer error otherwise.
  public init(checking tasks: [TaskPlan]) throws(Failure) {
    if let problem = Self.problem(of: tasks) { throw Failure(.invalidArgument, problem, field: "tasks") }
    self.tasks = tasks
  }

  private static func problem(of tasks: [TaskPlan]) -> String? {
    if tasks.isEmpty { return "a job needs a task" }
    for (index, task) in tasks.enumerated() {
      if !task.inputs.allSatisfy({ (0..<index).contains($0) }) { return "task \(index) takes an output that does not come before it" }
      if task.content != nil, !task.inputs.isEmpty { return "task \(index) is shared, so it must not take another's output" }
      if task.stepCount < 0 { return "task \(index) has \(task.stepCount) steps" }
      if !(task.cost >= 0 && task.cost.isFinite) { return "task \(index) costs \(task.cost)" }
    }
    return nil
  }

  /// Encode the prompt (and, for true CFG, the negative prompt), denoise, decode.
  ///
  /// - Parameters:
  ///   - prompt: content key of the prompt's encoding.
  ///   - negativePrompt: content key of the negative prompt's encoding; nil: no true CFG.
  ///   - stepCount: denoising steps.
  ///   - tokenCount: image tokens; a job's cost is steps × tokens × forward passes.
  public static func textToImage(prompt: String, negativePrompt: String?, stepCount: Int, tokenCount: Int) -> JobPlan {
    let encodes = [("prompt", prompt), ("negative_prompt", negativePrompt)].compactMap { field, text in
      text.map { TaskPlan(stage: .textEncoder, content: $0, field: field) }
    }
    let denoise = TaskPlan(
      stage: .denoiser, inputs: Array(encodes.indices), stepCount: stepCount,
      cost: Double(stepCount) * Double(tokenCount) * Double(encodes.count))
    let decode = TaskPlan(stage: .vaeDecoder, inputs: [encodes.count], cost: Double(tokenCount))
    return JobPlan(encodes + [denoise, decode])
  }

  /// The task that the job waits for in the queue: the one with the most steps, or the first.
  var principal: Int {
    tasks.indices.max { (tasks[$0].stepCount, -$0) < (tasks[$1].stepCount, -$1) } ?? 0
  }
}

/// A job as it is handed in.
public struct JobSubmission: Hashable, Sendable {
  /// Never used before.
  public var id: JobID
  /// The model whose stages do all of its tasks.
  public var model: ModelIdentity
  /// What is to be done.
  public var plan: JobPlan
  /// When nobody wants the result any more; nil: never.
  public var deadline: Instant?
  /// Whose share of the work it uses.
  public var tenant: TenantID
  /// How urgent it is.
  public var priority: JobPriority

  /// Job `id`: `plan`, done by `model`.
  public init(
    id: JobID, model: ModelIdentity, plan: JobPlan, deadline: Instant? = nil, tenant: TenantID = .anonymous,
    priority: JobPriority = .interactive
  ) {
    self.id = id
    self.model = model
    self.plan = plan
    self.deadline = deadline
    self.tenant = tenant
    self.priority = priority
  }
}
