import ArgumentParser
import ClusterCore
import Diffusion
import Foundation
import ImageCodec
import Kernels
import ModelRegistry
import Provenance
import Settings
import Synchronization
import TensorCore
import Weights

/// `qwen-image local`: all stages in one process.
struct LocalCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "local", abstract: "Draw an image in this process, without a cluster.")

  @Option(help: "Directory of a checkpoint in diffusers layout, or with a model.json.")
  var model: String

  @OptionGroup var request: RequestOptions

  @OptionGroup var source: SourceOptions
  @OptionGroup var mask: MaskOptions
  @OptionGroup var strength: StrengthOptions
  @OptionGroup var crop: CropOptions
  @OptionGroup var blur: MaskBlurOptions
  @OptionGroup var paste: PasteOptions
  @OptionGroup var outpaint: OutpaintOptions
  @OptionGroup var control: ControlOptions
  @Option(help: "Directory of a control network. Repeat it for several.")
  var controlnet: [String] = []

  @OptionGroup var lora: AdapterOptions

  @OptionGroup var layers: LayerOptions
  @OptionGroup var pipeline: PipelineChoiceOptions

  @OptionGroup var output: OutputOptions
  @OptionGroup var report: ResultReportOptions

  @Option(
    help: """
      Arithmetic: \(PrecisionChoice.allCases.map(\.rawValue).joined(separator: ", ")). \
      auto: as the checkpoint is packed or quantised, else bf16, or int8 on a processor with \
      instructions for it but none for bf16.
      """)
  var precision = PrecisionChoice.auto

  @Flag(
    inversion: .prefixedNo,
    help: """
      Keep keys and values of text and references for all steps, of models where they are the same in each. The image \
      is the same without.
      """)
  var prefixCache = true

  @Option(help: "Where packed weights are kept: a directory, none, or auto: beside a large model.")
  var weightCache = "auto"

  @Option(parsing: .unconditional, help: "Compute threads.")
  var threads = AvailableProcessors.current.threadCount

  @Flag(
    inversion: .prefixedNo,
    help: "Write into the file, as XMP, that a model made the image (IPTC's DigitalSourceType).")
  var digitalSourceType = true

  @Option(help: "Also write every intermediate tensor to this safetensors file.")
  var dump: String?

  func validate() throws {
    try paste.check(with: crop)
    try output.check(request.sampling)
    try report.check(with: output)
  }

  private var destination: ImageDestination { output.destination }

  func run() async throws {
    try destination.check()
    try tensorFile?.checkReplaceable()
    let interruption = Interruption()
    // Compute blocks its thread for minutes; it must not hold one of the concurrency pool's.
    let result = await withCheckedContinuation { continuation in
      Thread.detachNewThread { continuation.resume(returning: Result { try draw(interruption) }) }
    }
    do {
      try result.get()
    } catch PipelineError.cancelled {
      throw ExitCode(Interruption.exitStatus)
    }
  }

  private var tensorFile: OutputFile? { dump.map { OutputFile($0, option: "--dump", formats: nil) } }

  private func draw(_ interruption: Interruption) throws {
    let start = ContinuousClock.now
    var progress = ProgressBar()
    progress.show("loading \(model)")
    let directory = try ModelDirectory(URL(filePath: model))
    let card = try directory.card()
    let inputs = try inputs(for: card)
    let pipeline = try card.pipeline(named: pipeline.pipeline, for: inputs.summary)
    if pipeline == .layered { try output.checkForLayers() }
    try destination.check(count: pipeline == .layered ? inputs.layers : 1)
    let sampling = request.sampling
    let own = card.size(
      for: pipeline, nil, inputs.summary.sizes, outputResolutionPx: sampling.outputResolution)
    let asked = ImageSize(widthPx: sampling.width ?? own.widthPx, heightPx: sampling.height ?? own.heightPx)
    let size = card.size(
      for: pipeline, asked, inputs.summary.sizes, outputResolutionPx: sampling.outputResolution)
    var imageRequest = ImageRequest(
      card, prompt: try prompt(for: pipeline, card), negativePrompt: sampling.negativePrompt,
      trueCFGScale: sampling.trueCfgScale,
      steps: sampling.steps, sigmas: sampling.sigmas?.values, sampling: sampling.sampler.choice,
      width: size.widthPx, height: size.heightPx, seed: request.seed.fixed ?? UInt64.random(in: 0...UInt64(UInt32.max)))
    imageRequest.cache = sampling.cache?.cache
    try card.limits.validate(imageRequest)
    let loading = WeightLoading(precision: precision, cache: .init(weightCache)) {
      Terminal.note($0)
    }
    if let caution = InstructionSet.best.caution { Terminal.note(caution) }
    let adapters = try lora.adapters { Terminal.note($0) }
    let model = try LocalModel(
      directory, for: pipeline, loading: loading, pool: ThreadPool(threads: threads),
      options: PredictorOptions(
        controlNetworks: controlnet.map { URL(filePath: $0) }, usesPrefixCache: prefixCache, prefixCacheBytesMax: .max),
      adapters: adapters)

    let recording = dump.map { _ in TensorRecording() }
    let clock = StepClock(steps: imageRequest.steps)
    progress.show("encoding")
    let drawn = try model(pipeline, imageRequest, inputs, probe: recording?.probe ?? .none) { completed in
      guard !interruption.isInterrupted else { throw PipelineError.cancelled }
      progress.show(
        "denoising", completed: completed, total: imageRequest.steps,
        secondsLeft: clock.secondsLeft(afterStep: completed))
    }
    progress.finish()
    if let recording { try tensorFile?.replace(by: recording.write(to:)) }
    if request.seed == .random, !report.json { Terminal.note("seed \(imageRequest.seed)") }
    var metadata = imageRequest.metadata(
      card.model, softwareVersion: SoftwareVersion.current, source: inputs.source(for: pipeline))
    if inputs.isOpaque, card.hasTransparency { metadata.background = BackgroundChoice.opaque.rawValue }
    metadata.loras = adapters.members.map {
      ImageMetadata.AppliedAdapter(name: $0.adapter.name, sha256: $0.adapter.digest, scale: $0.scale)
    }
    let files = try drawn.map { image -> [UInt8] in
      let file = try output.encoding.file(of: image, texts: metadata.texts)
      return digitalSourceType ? try XMP.adding(ImageOrigin(metadata), to: file) : file
    }
    let result = ResultReport(
      file: "", seed: imageRequest.seed, size: "\(size)", seconds: (ContinuousClock.now - start) / .seconds(1))
    try destination.write(files, report.json ? result : nil)
  }
}

extension LocalCommand {
  /// The prompt, with the words that ask for transparency.
  fileprivate func prompt(for pipeline: PipelineName, _ card: ModelCard) throws -> String {
    let background = request.sampling.background ?? .auto
    do throws(Status) { return try background.prompt(request.prompt, pipeline, card) } catch {
      throw OutputError(name: "--background \(background)", reason: error.message)
    }
  }

  /// The images and how they are used, by the gateway's rules.
  fileprivate func inputs(for card: ModelCard) throws -> PipelineInputs {
    var inputs = PipelineInputs(), reader = InputFileReader()
    for group in [source, mask, strength, crop, blur, paste, control, outpaint, layers] as [any ImageFlags] {
      try group.add(to: &inputs, &reader)
    }
    inputs.outputResolutionPx = request.sampling.outputResolution
    inputs.isOpaque = request.sampling.background == .opaque
    // As in OpenAI's API: an image with transparency is its own mask.
    if inputs.mask == nil, inputs.images.count == 1, inputs.images[0].hasTransparency, card.takesMaskFromTransparency {
      inputs.mask = inputs.images[0].asMask
      inputs.images[0] = inputs.images[0].rgb
    }
    guard let mask = inputs.mask, let target = inputs.images.first ?? inputs.controls.first?.image else {
      return inputs
    }
    guard (mask.width, mask.height) == (target.width, target.height) else {
      throw OutputError(
        name: "--mask \(self.mask.mask ?? "")",
        reason: "it is \(mask.width)x\(mask.height), but the image \(target.width)x\(target.height)")
    }
    return inputs
  }
}

extension PrecisionChoice: ExpressibleByArgument {}

/// Measures the pace of steps.
private struct StepClock {
  private let steps: Int
  private let start = ContinuousClock.now

  init(steps: Int) { self.steps = steps }

  func secondsLeft(afterStep completed: Int) -> Double {
    let elapsed = (ContinuousClock.now - start) / .seconds(1)
    return elapsed / Double(completed) * Double(steps - completed)
  }
}

/// Keeps recorded tensors for `--dump`.
private final class TensorRecording: Sendable {
  private let tensors = Mutex<[(name: String, tensor: Tensor)]>([])

  var probe: Probe { Probe { name, tensor in self.tensors.withLock { $0.append((name, tensor)) } } }

  func write(to url: URL) throws {
    try SafetensorsWriter.write(tensors.withLock { $0 }, to: url)
  }
}
