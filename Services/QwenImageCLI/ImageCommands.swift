import ArgumentParser
import ClusterCore
import Foundation

/// `qwen-image edit`: images as a prompt says, through a cluster's gateway.
struct EditCommand: PromptedImageCommand {
  static let configuration = CommandConfiguration(
    commandName: "edit", abstract: "Edit images as a prompt says, or begin with one, through a cluster.",
    discussion: Self.interruptionHelp)

  @OptionGroup var source: SourceOptions
  @OptionGroup var strength: StrengthOptions
  @OptionGroup var pipeline: PipelineChoiceOptions
  @OptionGroup var request: RequestOptions
  @OptionGroup var enhancement: EnhancementOptions
  @OptionGroup var output: OutputOptions
  @OptionGroup var submission: SubmissionOptions
  @OptionGroup var gateway: GatewayOptions
  @OptionGroup var previews: PreviewOptions
  @OptionGroup var report: ResultReportOptions

  var flags: [any ImageFlags] { [source, strength] }

  func validate() throws {
    try checkSize()
    guard !source.image.isEmpty else { throw ValidationError("--image is missing: the image to edit") }
  }
}

/// `qwen-image inpaint`: a part of an image, through a cluster's gateway.
struct InpaintCommand: PromptedImageCommand {
  static let configuration = CommandConfiguration(
    commandName: "inpaint", abstract: "Make a part of an image anew, through a cluster.",
    discussion: Self.interruptionHelp)

  @OptionGroup var source: SourceOptions
  @OptionGroup var mask: MaskOptions
  @OptionGroup var strength: StrengthOptions
  @OptionGroup var crop: CropOptions
  @OptionGroup var blur: MaskBlurOptions
  @OptionGroup var paste: PasteOptions
  @OptionGroup var pipeline: PipelineChoiceOptions
  @OptionGroup var request: RequestOptions
  @OptionGroup var enhancement: EnhancementOptions
  @OptionGroup var output: OutputOptions
  @OptionGroup var submission: SubmissionOptions
  @OptionGroup var gateway: GatewayOptions
  @OptionGroup var previews: PreviewOptions
  @OptionGroup var report: ResultReportOptions

  var flags: [any ImageFlags] { [source, mask, strength, crop, blur, paste] }

  func validate() throws {
    try checkSize()
    try source.requireOne()
    guard mask.mask != nil else {
      throw ValidationError(
        "--mask is missing: what is to be made anew, white or transparent; the image's own file if it has transparency")
    }
    try paste.check(with: crop)
  }
}

/// `qwen-image outpaint`: around an image, through a cluster's gateway.
struct OutpaintCommand: PromptedImageCommand {
  static let configuration = CommandConfiguration(
    commandName: "outpaint", abstract: "Make an image larger, through a cluster.",
    discussion: Self.interruptionHelp)

  @OptionGroup var source: SourceOptions
  @OptionGroup var outpaint: OutpaintOptions
  @OptionGroup var strength: StrengthOptions
  @OptionGroup var blur: MaskBlurOptions
  @OptionGroup var paste: PasteOptions
  @OptionGroup var pipeline: PipelineChoiceOptions
  @OptionGroup var request: RequestOptions
  @OptionGroup var enhancement: EnhancementOptions
  @OptionGroup var output: OutputOptions
  @OptionGroup var submission: SubmissionOptions
  @OptionGroup var gateway: GatewayOptions
  @OptionGroup var previews: PreviewOptions
  @OptionGroup var report: ResultReportOptions

  var flags: [any ImageFlags] { [source, outpaint, strength, blur, paste] }

  func validate() throws {
    try checkSize()
    try source.requireOne()
    guard outpaint.outpainting != nil else {
      throw ValidationError("no pixels are to be made; give some of --left, --right, --top and --bottom")
    }
  }
}

/// `qwen-image control`: by control networks, through a cluster's gateway.
struct ControlCommand: PromptedImageCommand {
  static let configuration = CommandConfiguration(
    commandName: "control", abstract: "Draw an image that follows control images, through a cluster.",
    discussion: "The model's denoisers must have control networks. With --mask, only what is white is made anew.\n"
      + Self.interruptionHelp)

  @OptionGroup var control: ControlOptions
  @OptionGroup var mask: MaskOptions
  @OptionGroup var blur: MaskBlurOptions
  @OptionGroup var pipeline: PipelineChoiceOptions
  @OptionGroup var request: RequestOptions
  @OptionGroup var enhancement: EnhancementOptions
  @OptionGroup var output: OutputOptions
  @OptionGroup var submission: SubmissionOptions
  @OptionGroup var gateway: GatewayOptions
  @OptionGroup var previews: PreviewOptions
  @OptionGroup var report: ResultReportOptions

  var flags: [any ImageFlags] { [control, mask, blur] }

  func validate() throws {
    try checkSize()
    guard !control.controlImage.isEmpty else { throw ValidationError("--control-image is missing") }
  }
}

/// `qwen-image layers`: an image's layers, through a cluster's gateway.
struct LayersCommand: ImageCommand {
  static let configuration = CommandConfiguration(
    commandName: "layers", abstract: "Take an image apart into layers with transparency, through a cluster.",
    discussion: "The same image as with local's --pipeline layered.\n" + Self.interruptionHelp)

  @Argument(help: "The image: PNG, JPEG or WebP; - is standard input.", completion: .file())
  var image: String

  @OptionGroup var layers: LayerOptions

  @Option(
    name: [.short, .long], parsing: .unconditional,
    help: "What the image shows. Default: a space, since images are not described automatically.")
  var prompt = " "

  @OptionGroup var sampling: SamplingOptions
  @OptionGroup var output: OutputOptions
  @OptionGroup var submission: SubmissionOptions
  @OptionGroup var gateway: GatewayOptions
  @OptionGroup var previews: PreviewOptions
  @OptionGroup var report: ResultReportOptions

  private var source: SourceOptions {
    var source = SourceOptions()
    source.image = [image]
    return source
  }

  var flags: [any ImageFlags] { [source, layers] }
  var pipelineName: String? { PipelineName.layered.text }
  var fileCount: Int { layers.layers ?? LayerCount.default }

  func validate() throws {
    try checkSize()
    try output.checkForLayers()
  }
}

/// How a request is submitted.
struct SubmissionOptions: ParsableArguments {
  @OptionGroup var choice: ModelChoiceOptions
  @OptionGroup var fields: JobFieldOptions

  @Option(
    help: """
      Idempotency key: the same key and request again give the same job. Default: a random one, so that a request \
      whose connection breaks can be sent again.
      """)
  var key: String?
}

/// A command that sends images to a gateway and writes what is made of them.
protocol ImageCommand: AsyncParsableCommand, Sendable {
  var flags: [any ImageFlags] { get }
  var pipelineName: String? { get }
  var prompt: String { get }
  /// Whether the prompt is rewritten; nil: the request does not say.
  var enhancesPrompt: Bool? { get }
  var sampling: SamplingOptions { get }
  var output: OutputOptions { get }
  var submission: SubmissionOptions { get }
  var gateway: GatewayOptions { get }
  var previews: PreviewOptions { get }
  var report: ResultReportOptions { get }
  /// How many files the result has.
  var fileCount: Int { get }
}

extension ImageCommand {
  static var interruptionHelp: String {
    "Ctrl-C cancels the request. A job that is submitted outlives this command: with --key it can be asked for again."
  }

  var fileCount: Int { 1 }
  var enhancesPrompt: Bool? { nil }

  /// The other side would be the model's without images, and the image's with them.
  func checkSize() throws {
    try output.check(sampling)
    try report.check(with: output)
    guard (sampling.width == nil) == (sampling.height == nil) else {
      throw ValidationError("give both --width and --height, or none of them for a size that follows from the image")
    }
  }

  func run() async throws {
    try output.destination.check(count: fileCount)
    let upload = try GatewayClient.Upload(form(), key: submission.key)
    let work = Task { try await gateway.withClient { try await make(upload, $0) } }
    let interruption = Interruption { work.cancel() }
    do {
      try await work.value
    } catch {
      if interruption.isInterrupted { throw ExitCode(Interruption.exitStatus) }
      throw error
    }
  }

  /// The request with all of its files, which are read and checked.
  func form() throws -> UploadForm {
    var form = UploadForm(), reader = InputFileReader()
    form.add("prompt", prompt)
    form.add("enhance_prompt", enhancesPrompt)
    form.add("negative_prompt", sampling.negativePrompt)
    form.add("true_cfg_scale", sampling.trueCfgScale)
    form.add("num_inference_steps", sampling.steps)
    if let sigmas = sampling.sigmas {
      form.add("sigmas", "[\(sigmas.values.map { "\($0)" }.joined(separator: ","))]")
    }
    sampling.sampler.add(to: &form)
    form.add("cache", try sampling.cache?.formValue)
    form.add("output_resolution", sampling.outputResolution)
    form.add("width", sampling.width)
    form.add("height", sampling.height)
    form.add("seed", sampling.seed.fixed)
    if output.encoding.format != .png {
      form.add("output_format", output.encoding.format.name)
      form.add("output_compression", output.encoding.quality)
    }
    form.add("background", sampling.background?.rawValue)
    form.add("model", submission.choice.model)
    submission.fields.add(to: &form)
    form.add("pipeline", pipelineName)
    for group in flags { try group.add(to: &form, &reader) }
    return form
  }

  private func make(_ upload: GatewayClient.Upload, _ client: GatewayClient) async throws {
    let start = ContinuousClock.now
    var progress = ProgressBar()
    progress.show("sending to \(client.address)")
    let job: GatewayClient.Job
    do {
      job = try await client.submit(upload)
    } catch {
      progress.finish()
      throw error
    }
    progress.finish()
    if !report.json {
      if sampling.seed == .random, let seed = job.images.first?.seed { Terminal.note("seed \(seed)") }
      Terminal.note(prompt: job.revisedPrompt)
    }
    do {
      let ended = try await JobsCommand.follow(job.id, client, previews.preview)
      var files: [[UInt8]] = []
      for layer in try client.layers(of: ended) {
        files.append([UInt8](try await client.image(of: job.id, index: 0, layer: layer)))
      }
      let own = ResultReport(ended, seconds: (ContinuousClock.now - start) / .seconds(1))
      try output.destination.write(files, report.json ? own : nil)
    } catch is CancellationError {
      await client.cancelQuietly(job.id)
      throw CancellationError()
    }
  }
}

/// A command with a prompt and a choice of pipelines.
protocol PromptedImageCommand: ImageCommand {
  var request: RequestOptions { get }
  var pipeline: PipelineChoiceOptions { get }
  var enhancement: EnhancementOptions { get }
}

extension PromptedImageCommand {
  var prompt: String { request.prompt }
  var enhancesPrompt: Bool? { enhancement.field }
  var sampling: SamplingOptions { request.sampling }
  var pipelineName: String? { pipeline.pipeline }
}

extension SourceOptions {
  /// Refuses any number of images but one.
  func requireOne() throws {
    guard image.count == 1 else {
      throw ValidationError(
        image.isEmpty ? "--image is missing" : "--image is given \(image.count) times; give it once")
    }
  }
}

extension PasteOptions {
  /// Refuses what the two flags together cannot mean.
  func check(with crop: CropOptions) throws {
    guard pasteBack == false, crop.paddingMaskCrop != nil else { return }
    throw ValidationError("--no-paste-back is not for --padding-mask-crop, whose part is always put back")
  }
}
