import ClusterCore
import Scheduling
import Wire

/// One task of a pipeline: which stage does it, what the worker is sent, and what its answer must look like. The
/// dispatcher knows nothing else of stages and tensors.
public struct PipelineTask: Sendable {
  /// What the scheduler needs to know: the stage, the inputs, the steps, the cost.
  public var plan: TaskPlan
  /// The message that hands the task to a worker.
  public var message: @Sendable (TaskInput) -> TaskMessage
  /// What the worker answers with.
  public var output: TensorRule
  /// What progress carries as a checkpoint, and what a resumed attempt is sent; nil: the task has no steps.
  public var checkpoint: TensorRule?
  /// What progress may carry of the image as it looks so far; nil: the task has no previews.
  public var preview: TensorRule?
  /// The request's images that the message carries.
  public var images: [TaskImage] = []
  /// Prompt tokens that an output stands for, for the usage of the request.
  public var promptTokens: @Sendable (WireTensor) -> Int = { _ in 0 }

  /// See the properties.
  public init(
    plan: TaskPlan, output: TensorRule, checkpoint: TensorRule? = nil,
    message: @escaping @Sendable (TaskInput) -> TaskMessage
  ) {
    self.plan = plan
    self.message = message
    self.output = output
    self.checkpoint = checkpoint
  }
}

/// What a task starts from.
public struct TaskInput: Sendable {
  /// The outputs of the tasks that it needs, in the plan's order.
  public var inputs: [WireTensor]
  /// Steps already done, and the state after them; nil: from the beginning.
  public var resume: (completedSteps: Int, state: WireTensor)?
  /// How often checkpoints come back; zero: after every step.
  public var checkpointInterval: Duration
  /// What latents look like; nil: that is not known, and there are no previews.
  public var previewMap: WireTensor?

  /// See the properties.
  public init(
    inputs: [WireTensor], resume: (completedSteps: Int, state: WireTensor)? = nil, checkpointInterval: Duration,
    previewMap: WireTensor? = nil
  ) {
    self.inputs = inputs
    self.resume = resume
    self.checkpointInterval = checkpointInterval
    self.previewMap = previewMap
  }
}

/// A request to a stage.
public struct TaskMessage: Sendable {
  /// What the message says.
  public var body: Body
  /// The tensors that travel with it.
  public var tensors: [WireTensor]

  /// See the properties.
  public init(_ body: Body, _ tensors: [WireTensor] = []) {
    self.body = body
    self.tensors = tensors
  }

  /// Asks for the predictions of a branch of guidance, for a denoiser that makes the steps, instead of for the steps.
  public mutating func predictBranch(_ branch: Int) {
    guard case .denoiseRequest(var request) = body else { preconditionFailure("\(body.name) has no branches") }
    request.branch = branch
    body = .denoiseRequest(request)
  }
}

/// A tensor that a message of a worker must carry.
public struct TensorRule: Sendable {
  /// Its name in the message.
  public var name: String
  /// What is wrong with the tensor; nil: nothing. Also asked of tensors that an earlier run of the gateway has
  /// journalled.
  public var problem: @Sendable (WireTensor) -> String?
  /// What is wrong with the message that carries it; nil: nothing.
  public var problemOfBody: @Sendable (Body) -> String?

  /// See the properties.
  public init(
    _ name: String, problem: @escaping @Sendable (WireTensor) -> String?,
    problemOfBody: @escaping @Sendable (Body) -> String? = { _ in nil }
  ) {
    self.name = name
    self.problem = problem
    self.problemOfBody = problemOfBody
  }

  /// The tensor of an answer.
  ///
  /// - Throws: INTERNAL, so that another attempt is made, when the answer is not what the task must give.
  public func tensor(of envelope: Envelope, stage: StageName) throws(Status) -> WireTensor {
    if let problem = problemOfBody(envelope.body) {
      throw Status(.internal, "the \(stage) answered with \(envelope.body.name): \(problem)")
    }
    guard let tensor = envelope.tensor(name) else {
      throw Status(.internal, "the \(stage)'s \(envelope.body.name) lacks the tensor \(name)")
    }
    if let problem = problem(tensor) { throw Status(.internal, "the \(stage)'s \(name) \(problem)") }
    return tensor
  }

  /// Whether a journalled tensor can still be used.
  public func accepts(_ tensor: WireTensor) -> Bool { problem(tensor) == nil }
}

extension WireTensor {
  /// The same tensor under another name.
  public func renamed(_ name: String) -> WireTensor {
    var tensor = self
    tensor.name = name
    return tensor
  }
}
