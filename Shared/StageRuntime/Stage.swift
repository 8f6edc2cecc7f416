import ClusterCore
import Wire

/// What an executable computes: everything else that a worker does is the same for all stages.
public protocol Stage: Sendable {
  /// Which requests it answers.
  var name: StageName { get }
  /// The model it serves.
  var card: ModelCard { get }
  /// Identifies the weights it has loaded.
  var componentFingerprint: String { get }
  /// Workers of one class give the same bytes for the same task.
  var numericsClass: String { get }
  /// How many tasks it computes best at a time: the worker's credits, unless they are configured.
  var tasksAtATime: Int { get }
  /// Whether it makes predictions together with other workers, see `Exchange`.
  var assists: Bool { get }
  /// What a gateway is sent with the registration, for other stages.
  var registrationTensors: [WireTensor] { get }
  /// The adapters that requests may name now; asked many times a second, from any thread.
  var servedAdapters: ServedAdapters { get }

  /// Computes one task, on a thread made for it: blocking is fine. As many calls run at a time as the worker has
  /// credits.
  ///
  /// Between steps it calls `context.checkCancelled()`, and `context.progress` after each.
  ///
  /// - Throws: a `Status`, which the gateway gets as it is; anything else is reported as INTERNAL.
  func run(_ task: StageTask, context: TaskContext) throws -> StageOutput
}

extension Stage {
  /// One.
  public var tasksAtATime: Int { 1 }
  /// No.
  public var assists: Bool { false }
  /// None.
  public var registrationTensors: [WireTensor] { [] }
  /// None.
  public var servedAdapters: ServedAdapters { .none }
}

/// What to compute.
public struct StageTask: Sendable {
  /// Which attempt at which task of which job.
  public var reference: TaskReference
  /// The request, of the stage's own kind.
  public var request: Body
  /// The tensors that came with it.
  public var tensors: [WireTensor]

  /// See the properties.
  public init(reference: TaskReference, request: Body, tensors: [WireTensor]) {
    self.reference = reference
    self.request = request
    self.tensors = tensors
  }

  /// The tensor called `name`.
  ///
  /// - Throws: INVALID_ARGUMENT naming the tensor when it is not there.
  public func requiredTensor(_ name: String) throws(Status) -> WireTensor {
    guard let tensor = tensor(name) else {
      throw Status(.invalidArgument, "the tensor \(name) is missing", field: name)
    }
    return tensor
  }

  /// The tensor called `name`.
  public func tensor(_ name: String) -> WireTensor? { tensors.first { $0.name == name } }
}

/// What was computed.
public struct StageOutput: Sendable {
  /// The response, of the stage's own kind.
  public var response: Body
  /// The tensors that go with it.
  public var tensors: [WireTensor]

  /// See the properties.
  public init(_ response: Body, tensors: [WireTensor] = []) {
    self.response = response
    self.tensors = tensors
  }
}
