import ClusterCore
import Foundation
import TensorCore
import Wire

/// What one worker is and does; ``WorkerPool`` moves its messages.
final class SimulatedWorker {
  /// A connection to one gateway.
  final class Link {
    let socket: WorkerSocket
    var session: String?
    var heartbeatMs = 5000

    init(_ socket: WorkerSocket) { self.socket = socket }
  }

  /// A task that it has accepted.
  struct Running {
    let link: Int
    let messageID: UInt64
    let steps: Int
    let side: ImageSize
    let checkpointIntervalMs: Int64
    var step: Int
    var checkpointAtMs: Int64
  }

  let number: Int
  let stage: StageName
  let name: String
  let credits: Int
  var links: [Link] = []
  var running: [TaskReference: Running] = [:]
  var tasksDone: UInt64 = 0
  /// Whether its credits were counted as free.
  var isCounted = false

  init(_ number: Int, _ stage: StageName, _ options: Options) {
    (self.number, self.stage, credits) = (number, stage, options.credits)
    name = "capacity-\(getpid())-\(number)"
  }

  var freeCredits: Int { credits - running.count }

  func registration(_ card: ModelCard) -> Envelope {
    Envelope(
      body: .register(
        Register(
          workerID: name, stage: stage, card: card, componentFingerprint: "capacity", numericsClass: "capacity",
          credits: credits, host: "capacity", pid: UInt64(getpid()), softwareVersion: "capacity",
          running: Array(running.keys))))
  }

  func heartbeat(_ session: String) -> Envelope {
    Envelope(
      body: .heartbeat(
        Heartbeat(
          sessionID: session, freeCredits: freeCredits, tasksDone: tasksDone,
          running: running.map { TaskActivity(task: $0, completedSteps: $1.step, steps: $1.steps, stepSeconds: 0) })))
  }
}

/// The tensors and cards that workers send: of the right shape, and without a meaning.
struct Material {
  let card: ModelCard
  let embeddings: WireTensor
  let image: WireTensor
  private let latents: [Int: FrameBuffer]

  init(_ options: Options) {
    let size = ImageSize(widthPx: options.side, heightPx: options.side)
    card = ModelCard(
      model: ModelIdentity(id: "capacity/model", fingerprint: "0123456789abcdef"), pipelineClass: "QwenImagePipeline",
      pipelines: [.textToImage],
      limits: ModelLimits(
        sizeMultiplePx: 16, minSidePx: 64, maxSidePx: 2048, maxPixels: 2048 * 2048, maxSteps: 1000,
        maxPromptTokens: 1024, maxPromptBytes: 32_768),
      defaults: GenerationDefaults(size: size, steps: 4, trueCFGScale: 4, negativePrompt: ""),
      recommendedSizes: [size], latents: LatentGeometry(channels: 16, downscale: 8, patch: 2))
    func tensor(_ name: String, _ dtype: DType, _ shape: [Int]) -> WireTensor {
      let bytes = shape.reduce(dtype.byteWidth, *)
      return WireTensor(
        name: name, dtype: dtype, shape: shape, bytes: FrameBuffer(copying: [UInt8](repeating: 1, count: bytes)))
    }
    embeddings = tensor(TensorName.promptEmbeds, .bf16, [24, 64])
    let header: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A, 0, 0, 0, 13] + Array("IHDR".utf8)
    let sides = [options.side, options.side].flatMap { side in withUnsafeBytes(of: UInt32(side).bigEndian) { Array($0) }
    }
    let file = header + sides + [8, 2, 0, 0, 0]
    let bytes = file + [UInt8](repeating: 7, count: max(0, options.resultBytes - file.count))
    image = WireTensor(
      name: TensorName.image, dtype: .uint8, shape: [bytes.count], bytes: FrameBuffer(copying: bytes))
    let shape = card.latents.packedShape(of: size)
    let count = shape[0] * shape[1] * 4
    latents = [count: FrameBuffer(copying: [UInt8](repeating: 0, count: count))]
  }

  /// Latents of an image; nil: it has another size than was asked for.
  func latents(of size: ImageSize) -> WireTensor? {
    let shape = card.latents.packedShape(of: size)
    return latents[shape[0] * shape[1] * 4].map {
      WireTensor(name: TensorName.latents, dtype: .fp32, shape: shape, bytes: $0)
    }
  }
}
