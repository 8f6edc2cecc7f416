import ClusterCore
import Scheduling

/// What a client asks for. The numbers stand for prompts and noise.
struct ToyJob: Hashable {
  /// Names the request, however often it is sent.
  var key: Int
  var noise: UInt64
  var prompt: UInt64
  var negativePrompt: UInt64?
  var steps: Int
  var tenant: TenantID
  var priority: JobPriority
  /// On the wall clock, in ms.
  var deadline: Int?

  /// The text encoder refuses this prompt.
  static let badPrompt: UInt64 = 666
  /// This prompt makes denoisers crash in their second step.
  static let deadlyPrompt: UInt64 = 667

  var plan: ImageJobPlan {
    .toy(prompt: "\(prompt)", negativePrompt: negativePrompt.map { "\($0)" }, stepCount: steps)
  }
}

extension ImageJobPlan {
  /// Encode one or two prompts, denoise, decode: a plan in which tasks are shared, have steps, and take several inputs.
  package static func toy(prompt: String, negativePrompt: String?, stepCount: Int) -> ImageJobPlan {
    let tokenCount = 16.0
    let encodes = [("prompt", prompt)] + (negativePrompt.map { [("negative_prompt", $0)] } ?? [])
    var tasks = encodes.map { TaskPlan(stage: .textEncoder, content: $1, field: $0) }
    tasks.append(
      TaskPlan(
        stage: .denoiser, inputs: Array(encodes.indices), stepCount: stepCount,
        cost: Double(stepCount) * tokenCount * Double(encodes.count)))
    tasks.append(TaskPlan(stage: .vaeDecoder, inputs: [encodes.count], cost: tokenCount))
    return ImageJobPlan(tasks)
  }
}

/// Arithmetic whose result shows every step that was left out, repeated, or done by another class than the one before.
enum ToyModel {
  static let classes = ["bf16", "fp32"]

  static func encode(_ prompt: UInt64, by numericsClass: String) -> UInt64 { mix(1, prompt, number(numericsClass)) }

  static func noise(_ seed: UInt64) -> UInt64 { mix(2, seed) }

  static func denoise(_ latents: UInt64, step: Int, inputs: [UInt64], by numericsClass: String) -> UInt64 {
    inputs.reduce(mix(latents, UInt64(step), number(numericsClass))) { mix($0, $1) }
  }

  static func decode(_ latents: UInt64) -> UInt64 { mix(3, latents) }

  /// The images that runs without faults give: one for each choice of classes for the stages.
  static func images(of job: ToyJob) -> Set<UInt64> {
    var images: Set<UInt64> = []
    for first in classes {
      for second in job.negativePrompt == nil ? [first] : classes {
        let inputs = [encode(job.prompt, by: first)] + (job.negativePrompt.map { [encode($0, by: second)] } ?? [])
        for numericsClass in classes {
          var latents = noise(job.noise)
          for step in 1...job.steps { latents = denoise(latents, step: step, inputs: inputs, by: numericsClass) }
          images.insert(decode(latents))
        }
      }
    }
    return images
  }

  private static func number(_ numericsClass: String) -> UInt64 { numericsClass == "fp32" ? 5 : 6 }
}

/// A task as it is sent to a worker, with everything that it needs.
struct ToyOffer {
  var attempt: AttemptID
  var stage: StageName
  var prompt: UInt64
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
}

/// What a client sends.
enum Request {
  case submit
  case status(ImageJobID)
  case cancel(ImageJobID)
}

/// How a job ended.
enum Outcome: Hashable {
  case finished(UInt64)
  case failed(Status)
}

/// What a client gets.
enum Response {
  case accepted(ImageJobID)
  case refused(Status)
  case running
  case ended(Outcome)
  case unknown
}
