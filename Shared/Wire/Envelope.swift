import ClusterCore

/// Names one attempt at one stage task of one job.
public struct TaskReference: Sendable, Hashable {
  /// The job.
  public var jobID: String
  /// The stage task, unique in its job.
  public var taskID: String
  /// From 1; grows by one whenever the task is handed out again. Answers of older attempts are dropped.
  public var attempt: UInt32

  /// See the properties.
  public init(jobID: String, taskID: String, attempt: UInt32) {
    self.jobID = jobID
    self.taskID = taskID
    self.attempt = attempt
  }
}

extension TaskReference: CustomStringConvertible {
  /// `job/task#attempt`
  public var description: String { "\(jobID)/\(taskID)#\(attempt)" }
}

/// One message: who it is about, what it says, and the tensors that travel with it.
public struct Envelope: Sendable, Equatable {
  /// The only protocol version that this code speaks.
  public static let protocolVersion: UInt32 = 1

  /// Unique among the sender's messages on one connection; 0 in a message not yet sent: the socket numbers it.
  public var messageID: UInt64
  /// The message that this one answers.
  public var inReplyTo: UInt64?
  /// The task that this message is about; nil in messages about the session.
  public var task: TaskReference?
  /// Milliseconds since 1970 after which the answer is of no use.
  public var deadlineUnixMs: UInt64?
  /// W3C Trace Context of the request.
  public var traceparent: String?
  /// What the message says.
  public var body: Body
  /// The tensors that travel with it.
  public var tensors: [WireTensor]

  /// See the properties.
  public init(
    messageID: UInt64 = 0, inReplyTo: UInt64? = nil, task: TaskReference? = nil, deadlineUnixMs: UInt64? = nil,
    traceparent: String? = nil, body: Body, tensors: [WireTensor] = []
  ) {
    self.messageID = messageID
    self.inReplyTo = inReplyTo
    self.task = task
    self.deadlineUnixMs = deadlineUnixMs
    self.traceparent = traceparent
    self.body = body
    self.tensors = tensors
  }

  /// The tensor called `name`.
  public func tensor(_ name: String) -> WireTensor? { tensors.first { $0.name == name } }
}

/// Everything a message can say. The .proto files say which peer sends which message.
public enum Body: Sendable, Equatable {
  /// Worker → gateway: opens a session.
  case register(Register)
  /// Gateway → worker: the session is open.
  case registered(Registered)
  /// Worker → gateway: still here.
  case heartbeat(Heartbeat)
  /// Gateway → worker: the lease is renewed.
  case heartbeatReply
  /// Worker → gateway: the task holds a credit and will be answered.
  case accepted
  /// Gateway → worker: stop the task at the next step boundary.
  case cancel(reason: String)
  /// Gateway → worker: drain, and load this one of your standby models.
  case switchModel(ModelIdentity)
  /// Gateway → worker: what runs of these tasks is this gateway's from now on.
  case claim([TaskReference])
  /// Worker → gateway: the adapters that it has now.
  case servedAdapters(AdapterAnnouncement)
  /// Worker → gateway: send no more tasks.
  case draining(reason: String)
  /// Worker → gateway: nothing runs any more, the session is over.
  case goodbye(reason: String)
  /// Either way: the end of what `inReplyTo` or the task names.
  case failed(Status)
  /// Gateway → text encoder.
  case encodeRequest(EncodeRequest)
  /// Text encoder → gateway.
  case encodeResponse(EncodeResponse)
  /// Gateway → denoiser.
  case denoiseRequest(DenoiseRequest)
  /// A stage with steps → gateway, between them.
  case progress(Progress)
  /// Denoiser → gateway.
  case denoiseResponse(DenoiseResponse)
  /// Denoiser → gateway → denoiser.
  case exchange(Exchange)
  /// Gateway → VAE decoder.
  case decodeRequest(DecodeRequest)
  /// VAE decoder → gateway.
  case decodeResponse(DecodeResponse)
  /// Gateway → VAE encoder.
  case encodeImageRequest(EncodeImageRequest)
  /// VAE encoder → gateway.
  case encodeImageResponse(EncodeImageResponse)
  /// Gateway → any stage without messages of its own.
  case runRequest(RunRequest)
  /// Such a stage → gateway.
  case runResponse(RunResponse)

  /// The field's name in envelope.proto.
  public var name: String {
    switch self {
    case .register: "registration"
    case .registered: "registered"
    case .heartbeat: "heartbeat"
    case .heartbeatReply: "heartbeat_reply"
    case .accepted: "accepted"
    case .cancel: "cancel"
    case .switchModel: "switch_model"
    case .claim: "claim"
    case .servedAdapters: "served_adapters"
    case .draining: "draining"
    case .goodbye: "goodbye"
    case .failed: "failed"
    case .encodeRequest: "encode_request"
    case .encodeResponse: "encode_response"
    case .denoiseRequest: "denoise_request"
    case .progress: "progress"
    case .denoiseResponse: "denoise_response"
    case .exchange: "exchange"
    case .decodeRequest: "decode_request"
    case .decodeResponse: "decode_response"
    case .encodeImageRequest: "encode_image_request"
    case .encodeImageResponse: "encode_image_response"
    case .runRequest: "run_request"
    case .runResponse: "run_response"
    }
  }

  /// What every request to a stage has; nil: the message is no such request.
  public var request: (stage: StageName, modelID: String, steps: Int, firstStep: Int)? {
    switch self {
    case .encodeRequest(let request): (.textEncoder, request.modelID, 0, 0)
    case .denoiseRequest(let request): (.denoiser, request.modelID, request.steps, request.firstStep)
    case .decodeRequest(let request): (.vaeDecoder, request.modelID, 0, 0)
    case .encodeImageRequest(let request): (.vaeEncoder, request.modelID, 0, 0)
    case .runRequest(let request): (request.stage, request.modelID, request.steps, request.firstStep)
    default: nil
    }
  }
}

/// The names that tensors have in messages.
public enum TensorName {
  /// [tokens, width]: an encoded prompt.
  public static let promptEmbeds = "prompt_embeds"
  /// [tokens, width]: the encoded negative prompt.
  public static let negativePromptEmbeds = "negative_prompt_embeds"
  /// [tokens, channels · patch²]: packed latents.
  public static let latents = "latents"
  /// u8 [bytes]: an encoded image.
  public static let image = "image"
  /// [tokens, channels · patch²]: packed latents of an image that the denoiser's begin with.
  public static let imageLatents = "image_latents"

  /// [tokens, channels · patch²]: packed latents of the reference number `index`, from 0.
  public static func reference(_ index: Int) -> String { "reference.\(index)" }

  /// [tokens, channels · patch²]: packed latents of the control image number `index`, from 0.
  public static func control(_ index: Int) -> String { "control.\(index)" }

  /// u8 [height, width, channels]: the image number `index` of a request, from 0.
  public static func input(_ index: Int) -> String { "input.\(index)" }

  /// u8 [height, width, 1]: the request's mask.
  public static let mask = "mask"
  /// fp32 [channels + 1, side, side, 3]: what a latent element's channels, and 1, contribute to pixels of a preview.
  public static let previewMap = "preview_map"
  /// u8 [height, width, 3]: what the image looks like so far.
  public static let preview = "preview"
  /// fp32, like the latents: a predicted velocity.
  public static let velocity = "velocity"
}
