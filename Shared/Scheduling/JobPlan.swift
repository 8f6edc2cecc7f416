import ClusterCore

/// One step of a job's plan: work for one stage.
public struct TaskPlan: Hashable, Sendable {
  /// Who does it.
  public var stage: StageName
  /// Places in the plan of the tasks whose outputs this one takes, each before this one's own place.
  public var inputs: [Int]
  /// Tasks of one model with equal content have equal outputs: they are done once, and the output is cached. nil: never
  /// shared.
  public var content: String?
  /// Steps that are reported one by one; 0 for a task without steps.
  public var stepCount: Int
  /// How much work it is, in a unit of the submitter's choice that is the same for all tasks of a stage.
  public var cost: Double
  /// Steps from the first on that make two predictions, of which another worker can make one.
  public var guidedStepCount: Int
  /// The pipeline that a worker must serve to do it; nil: every worker of the stage can.
  public var pipeline: PipelineName?
  /// Digests of the adapters that a worker must have to do it.
  public var adapters: [String] = []
  /// The request field that the task works on: a failure that blames the task's own input blames this field; nil: none.
  public var field: String?
  /// Whether some steps may take far less time than others: the slowest ones then tell how fast a worker is, and what a
  /// step may take.
  public var hasUnevenSteps = false

  /// A task for `stage`; adapters are set afterwards.
  public init(
    stage: StageName, inputs: [Int] = [], content: String? = nil, stepCount: Int = 0, cost: Double = 1,
    guidedStepCount: Int = 0, pipeline: PipelineName? = nil, field: String? = nil
  ) {
    self.guidedStepCount = guidedStepCount
    self.pipeline = pipeline
    self.stage = stage
    self.inputs = inputs
    self.content = content
    self.stepCount = stepCount
    self.cost = cost
    self.field = field
  }
}

/// What a job does: tasks in an order in which every task comes after those whose outputs it takes. The last one's
/// output is the job's.
public struct ImageJobPlan: Hashable, Sendable {
  /// Never empty.
  public let tasks: [TaskPlan]

  /// A plan of `tasks`; empty plans, inputs that do not come earlier and shared tasks with inputs are programmer
  /// errors.
  public init(_ tasks: [TaskPlan]) {
    if let problem = Self.problem(of: tasks) { preconditionFailure(problem) }
    self.tasks = tasks
  }

  /// A plan that was read from somewhere.
  ///
  /// - Throws: INVALID_ARGUMENT for what would be a programmer error otherwise.
  public init(checking tasks: [TaskPlan]) throws(Status) {
    if let problem = Self.problem(of: tasks) { throw Status(.invalidArgument, problem, field: "tasks") }
    self.tasks = tasks
  }

  private static func problem(of tasks: [TaskPlan]) -> String? {
    if tasks.isEmpty { return "a job needs a task" }
    for (index, task) in tasks.enumerated() {
      if !task.inputs.allSatisfy({ (0..<index).contains($0) }) {
        return "task \(index) takes an output that does not come before it"
      }
      if task.content != nil, !task.inputs.isEmpty {
        return "task \(index) is shared, so it must not take another's output"
      }
      if task.stepCount < 0 { return "task \(index) has \(task.stepCount) steps" }
      if !(task.cost >= 0 && task.cost.isFinite) { return "task \(index) costs \(task.cost)" }
    }
    return nil
  }

  /// The task that the job waits for in the queue: the first with steps, or the first.
  var principal: Int { tasks.firstIndex { $0.stepCount > 0 } ?? 0 }

  /// Steps of all tasks.
  var stepCount: Int { tasks.reduce(0) { $0 + $1.stepCount } }

  /// Steps of the tasks before task `index`.
  func stepCount(before index: Int) -> Int { tasks[..<index].reduce(0) { $0 + $1.stepCount } }
}

/// A job as it is submitted.
public struct ImageJobSubmission: Hashable, Sendable {
  /// Never used before.
  public var id: ImageJobID
  /// The model whose stages do all of its tasks.
  public var model: ModelIdentity
  /// What is to be done.
  public var plan: ImageJobPlan
  /// When the job fails if it is not done; nil: never.
  public var deadline: Instant?
  /// Whose share of the work it uses.
  public var tenant: TenantID
  /// How urgent it is.
  public var priority: JobPriority

  /// ImageJob `id`: `plan`, done by `model`.
  public init(
    id: ImageJobID, model: ModelIdentity, plan: ImageJobPlan, deadline: Instant? = nil, tenant: TenantID = .anonymous,
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
