import ClusterCore
import Scheduling

/// What a client asks for: some images, in one job. The numbers stand for prompts, images and noise.
struct ToyJob: Hashable {
  /// Names the request, however often it is sent.
  var key: Int
  var model: ModelIdentity
  var noise: UInt64
  var prompt: UInt64
  var negativePrompt: UInt64?
  /// The image that the job begins with, by its content.
  var input: UInt64?
  /// Whether the text encoder sees it as well, and all images of the job share its encoding.
  var isEdit = false
  var imageCount = 1
  var steps: Int
  var tenant: TenantID
  var priority: JobPriority
  /// On the wall clock, in ms.
  var deadline: Int?

  /// The text encoder refuses this prompt.
  static let badPrompt: UInt64 = 666
  /// This prompt makes denoisers crash in their second step.
  static let deadlyPrompt: UInt64 = 667
  /// The image encoder refuses the image with this content.
  static let badInput: UInt64 = 668
}

/// One image of a job.
struct ToyImage: Hashable {
  /// The job's.
  var name: String
  var index: Int
  var job: ToyJob

  static func id(_ name: String, _ index: Int) -> ImageJobID { ImageJobID("\(name)-\(index)") }

  static func ids(_ name: String, _ job: ToyJob) -> [ImageJobID] { (0..<job.imageCount).map { id(name, $0) } }

  var id: ImageJobID { Self.id(name, index) }

  /// Differs from image to image, as seeds do.
  var noise: UInt64 { job.noise &+ UInt64(index) }

  /// Of the sample that the image encoder draws.
  var sampleSeed: UInt64 { job.isEdit ? 0 : noise }

  /// What the text encoder sees beside the prompt.
  var seen: UInt64 { job.isEdit ? job.input ?? 0 : 0 }

  var plan: ImageJobPlan {
    .toy(
      prompt: "\(job.prompt) \(seen)", negativePrompt: job.negativePrompt.map { "\($0) \(seen)" },
      image: job.input.map { "image \($0) \(sampleSeed)" }, stepCount: job.steps)
  }
}

extension ImageJobPlan {
  /// Encode one or two prompts and perhaps an image, denoise, decode: a plan in which tasks are shared, have steps, and
  /// take several inputs.
  package static func toy(
    prompt: String, negativePrompt: String?, image: String? = nil, stepCount: Int
  ) -> ImageJobPlan {
    let tokenCount = 16.0
    let encodes = [("prompt", prompt)] + (negativePrompt.map { [("negative_prompt", $0)] } ?? [])
    var tasks = encodes.map { TaskPlan(stage: .textEncoder, content: $1, field: $0) }
    if let image { tasks.append(TaskPlan(stage: .vaeEncoder, content: image, cost: tokenCount, field: "image")) }
    let encodings = Array(tasks.indices)
    tasks.append(
      TaskPlan(
        stage: .denoiser, inputs: encodings, stepCount: stepCount,
        cost: Double(stepCount) * tokenCount * Double(encodes.count),
        guidedStepCount: negativePrompt == nil ? 0 : stepCount))
    tasks.append(TaskPlan(stage: .vaeDecoder, inputs: [encodings.count], cost: tokenCount))
    return ImageJobPlan(tasks)
  }
}

/// Arithmetic whose result shows every step that was left out, repeated, or done by another class than the one before.
enum ToyModel {
  static let classes = ["bf16", "fp32"]
  static let identities = ["toy", "other toy"].map { ModelIdentity(id: $0, fingerprint: "f1") }

  static func encode(_ prompt: UInt64, seeing image: UInt64, by numericsClass: String) -> UInt64 {
    mix(1, prompt, image, number(numericsClass))
  }

  static func encode(image: UInt64, seed: UInt64, by numericsClass: String) -> UInt64 {
    mix(4, image, seed, number(numericsClass))
  }

  static func noise(_ seed: UInt64) -> UInt64 { mix(2, seed) }

  static func denoise(_ latents: UInt64, step: Int, inputs: [UInt64], by numericsClass: String) -> UInt64 {
    inputs.reduce(mix(latents, UInt64(step), number(numericsClass))) { mix($0, $1) }
  }

  static func decode(_ latents: UInt64) -> UInt64 { mix(3, latents) }

  /// The results that runs without faults give: one for each choice of classes for the stages.
  static func results(of image: ToyImage) -> Set<UInt64> {
    let job = image.job
    // Each way to get the inputs of the denoiser.
    var ways = classes.map { [encode(job.prompt, seeing: image.seen, by: $0)] }
    if let negativePrompt = job.negativePrompt {
      ways = ways.flatMap { way in classes.map { way + [encode(negativePrompt, seeing: image.seen, by: $0)] } }
    }
    if let input = job.input {
      ways = ways.flatMap { way in classes.map { way + [encode(image: input, seed: image.sampleSeed, by: $0)] } }
    }
    var results: Set<UInt64> = []
    for inputs in ways {
      for numericsClass in classes {
        var latents = noise(image.noise)
        for step in 1...job.steps { latents = denoise(latents, step: step, inputs: inputs, by: numericsClass) }
        results.insert(decode(latents))
      }
    }
    return results
  }

  private static func number(_ numericsClass: String) -> UInt64 { numericsClass == "fp32" ? 5 : 6 }
}

/// A task as it is sent to a worker, with everything that it needs.
struct ToyOffer {
  var attempt: AttemptID
  var model: ModelIdentity
  var stage: StageName
  var prompt: UInt64
  /// The image that comes with it: for the image encoder, and for a text encoder that sees it.
  var image: UInt64?
  var sampleSeed: UInt64
  var inputs: [UInt64]
  var noise: UInt64
  var steps: Int
  var completedSteps: Int
  var latents: UInt64?
}

/// What a worker sends.
enum WorkerMessage {
  case register(running: [AttemptID])
  case report(session: String, running: [AttemptID], isDraining: Bool)
  case accepted(AttemptID)
  case progress(AttemptID, completedSteps: Int, latents: UInt64)
  case finished(AttemptID, UInt64)
  case failed(AttemptID, Status)
  case goodbye
}

/// What the gateway sends.
enum GatewayMessage {
  case registered(session: String)
  case noSession
  case offer(ToyOffer)
  case cancel(AttemptID)
  case switchModel(ModelIdentity)
}

/// What a client sends.
enum Request {
  case submit
  case status(String)
  case cancel(String)
}

/// How an image of a job ended.
enum Outcome: Hashable {
  case finished(UInt64)
  case failed(Status)
}

/// What a client gets.
enum Response {
  case accepted(String)
  case refused(Status)
  case running
  /// One for each image.
  case ended([Outcome])
  case unknown
}

extension SchedulingConfiguration {
  /// Small limits and short times, so that a run meets them.
  static func toy(maxJobs: Int) -> SchedulingConfiguration {
    var configuration = SchedulingConfiguration()
    configuration.maxJobs = maxJobs
    configuration.encodeAheadJobs = 3
    configuration.maxCacheBytes = 300
    configuration.firstStepLimit = .seconds(120)
    configuration.stepLimit = .seconds(30)
    configuration.maxQuarantine = .seconds(60)
    configuration.batchPatience = .seconds(60)
    return configuration
  }
}
