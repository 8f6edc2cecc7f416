import ClusterCore

/// Any stage with steps → gateway, between steps; with the state as a tensor when the step is a checkpoint.
public struct Progress: Sendable, Equatable {
  /// Steps done, at least 1.
  public var completedSteps: Int
  /// Steps in all.
  public var steps: Int
  /// Mean duration of a step since the progress before.
  public var stepSeconds: Double
  /// Steps that need not be done again by one that resumes from the state; 0: ``completedSteps``.
  public var checkpointSteps = 0

  /// See the properties.
  public init(completedSteps: Int, steps: Int, stepSeconds: Double) {
    self.completedSteps = completedSteps
    self.steps = steps
    self.stepSeconds = stepSeconds
  }
}

/// Gateway → a stage that has no messages of its own. Answered by `Progress` between steps and `RunResponse` with the
/// output tensor.
public struct RunRequest: Sendable, Equatable {
  /// The stage that is meant.
  public var stage: StageName
  /// The model, as its card names it.
  public var modelID: String
  /// The arguments.
  public var parameters: [Parameter]
  /// Steps that are reported one by one; 0: none.
  public var steps: Int
  /// Steps already done: the state after them is among the tensors. 0: start from the beginning.
  public var firstStep: Int
  /// Progress carries the state when this long has passed since the last that did; 0: after every step.
  public var checkpointIntervalSeconds: Double

  /// See the properties.
  public init(
    stage: StageName, modelID: String, parameters: [Parameter] = [], steps: Int = 0, firstStep: Int = 0,
    checkpointIntervalSeconds: Double = 0
  ) {
    self.stage = stage
    self.modelID = modelID
    self.parameters = parameters
    self.steps = steps
    self.firstStep = firstStep
    self.checkpointIntervalSeconds = checkpointIntervalSeconds
  }

  /// The argument called `name`.
  public func parameter(_ name: String) -> Parameter.Value? { parameters.first { $0.name == name }?.value }
}

/// The stage's answer to `RunRequest`, with its output as a tensor.
public struct RunResponse: Sendable, Equatable {
  /// What the stage says of its output.
  public var parameters: [Parameter]
  /// Time spent computing in this attempt.
  public var computeSeconds: Double

  /// See the properties.
  public init(parameters: [Parameter] = [], computeSeconds: Double = 0) {
    self.parameters = parameters
    self.computeSeconds = computeSeconds
  }
}

/// Gateway → text encoder. Answered by `EncodeResponse` with the tensor `prompt_embeds` [tokens, width].
public struct EncodeRequest: Sendable, Equatable {
  /// The model, as its card names it.
  public var modelID: String
  /// What the image shall show.
  public var prompt: String
  /// Further arguments.
  public var parameters: [Parameter]
  /// Which of the model's templates the prompt is put into.
  public var template: PromptTemplate
  /// The images that the prompt speaks of, in order; each names a tensor.
  public var images: [PreparedImage]

  /// See the properties.
  public init(
    modelID: String, prompt: String, parameters: [Parameter] = [], template: PromptTemplate = .textToImage,
    images: [PreparedImage] = []
  ) {
    self.modelID = modelID
    self.prompt = prompt
    self.parameters = parameters
    self.template = template
    self.images = images
  }
}

/// Text encoder → gateway, with the tensor `prompt_embeds` [promptTokens, width].
public struct EncodeResponse: Sendable, Equatable {
  /// Rows of `prompt_embeds`.
  public var promptTokens: Int
  /// Time spent computing.
  public var computeSeconds: Double

  /// See the properties.
  public init(promptTokens: Int, computeSeconds: Double = 0) {
    self.promptTokens = promptTokens
    self.computeSeconds = computeSeconds
  }
}

/// How the initial noise is drawn from the seed.
public enum NoiseKind: Int32, Sendable, CaseIterable {
  /// The normal stream of a torch CPU generator (mt19937).
  case torchCPU = 1
  /// The same, of a request with noise levels: denoisers before 0.2 refuse it instead of leaving them out.
  case torchCPUWithSigmas = 2
  /// The same, of a request with a sampler, a step cache or adapters.
  case torchCPUWithOptions = 3
}

/// Gateway → denoiser, with the tensors `prompt_embeds` [tokens, width], with true CFG also `negative_prompt_embeds`,
/// and to resume also `latents`. Answered by `Progress` between steps and `DenoiseResponse`.
public struct DenoiseRequest: Sendable, Equatable {
  /// The model, as its card names it.
  public var modelID: String
  /// The image's size.
  public var size: ImageSize
  /// Denoising steps in all.
  public var steps: Int
  /// Scale of true classifier-free guidance; it acts only when `negative_prompt_embeds` is there.
  public var trueCFGScale: Double
  /// Seed of the initial noise.
  public var seed: UInt64
  /// How noise is drawn from the seed.
  public var noise: NoiseKind
  /// Steps already done: `latents` are those after them. 0: start from noise.
  public var firstStep: Int
  /// Progress carries `latents` when this long has passed since the last that did; 0: after every step.
  public var checkpointIntervalSeconds: Double
  /// Further arguments.
  public var parameters: [Parameter]
  /// Sizes of the images that were encoded to the tensors `reference.0`, `reference.1` …
  public var references: [ImageSize] = []
  /// Steps that are left out at the beginning: the latents begin with `image_latents` at the noise level of this step.
  public var startStep = 0
  /// Draws of as many numbers that the generator has made before the noise.
  public var precedingDraws = 0
  /// Where this mask is black, `image_latents` are kept; nil: everything is made anew.
  public var mask: PreparedImage?
  /// Control images.
  public var controls: [ControlReference] = []
  /// Images of the size that are made together, one after the other in the latents, the composite first; 0: one image.
  public var layers = 0
  /// Noise levels of the steps before the shift, ``steps`` of them; none: the model's.
  public var sigmas: [Double] = []
  /// Which steps leave out parts of the network; nil: none.
  public var cache: StepCache?
  /// Adapters that act together, in their order.
  public var adapters: [ChosenAdapter] = []
  /// How the steps are taken.
  public var sampling = SamplingChoice.standard
  /// 0: the steps are made. From 1: for a denoiser that makes them, the velocities of this branch of guidance are
  /// predicted (1: the negative prompt's).
  public var branch = 0

  /// See the properties; those of images are set afterwards.
  public init(
    modelID: String, size: ImageSize, steps: Int, trueCFGScale: Double, seed: UInt64, noise: NoiseKind = .torchCPU,
    firstStep: Int = 0, checkpointIntervalSeconds: Double = 0, parameters: [Parameter] = []
  ) {
    self.modelID = modelID
    self.size = size
    self.steps = steps
    self.trueCFGScale = trueCFGScale
    self.seed = seed
    self.noise = noise
    self.firstStep = firstStep
    self.checkpointIntervalSeconds = checkpointIntervalSeconds
    self.parameters = parameters
  }
}

/// Denoiser → gateway, with the tensor `latents`.
public struct DenoiseResponse: Sendable, Equatable {
  /// Steps in all.
  public var steps: Int
  /// Time spent computing in this attempt.
  public var computeSeconds: Double

  /// See the properties.
  public init(steps: Int, computeSeconds: Double = 0) {
    self.steps = steps
    self.computeSeconds = computeSeconds
  }
}

/// Between two denoisers that make an image's predictions together, passed on by the gateway.
public struct Exchange: Sendable, Equatable {
  /// What is said.
  public enum Kind: Int32, Sendable, CaseIterable {
    /// Assistant → the denoiser that makes the steps: ask from now on.
    case ready = 1
    /// The other way, with the tensor `latents`: predict from these.
    case state = 2
    /// And back, with the tensor `velocity`.
    case velocity = 3
    /// Gateway → the denoiser that makes the steps: there is no assistant any more.
    case lost = 4
  }
  /// What is said.
  public var kind: Kind
  /// Of a state and its velocity: which prediction, from 1.
  public var call: Int
  /// Of a state: the step whose noise level the latents have, from 0.
  public var step: Int

  /// See the properties.
  public init(_ kind: Kind, call: Int = 0, step: Int = 0) {
    self.kind = kind
    self.call = call
    self.step = step
  }
}

/// What becomes of an image's transparency.
public enum Background: Int32, Sendable, CaseIterable {
  /// It stays as the model makes it.
  case asMade = 0
  /// The image lies over white, and has no alpha channel.
  case opaque = 1
}

/// In which form a decoded image is wanted.
public enum ImageFormat: Int32, Sendable, CaseIterable {
  /// Portable Network Graphics, 8 bits per channel.
  case png = 1
  /// No file: U8 [height, width, channels], for tasks that continue with the image.
  case pixels = 2
  /// WebP: lossless, or 8 bits per channel with colour at half of the resolution.
  case webp = 3
  /// JPEG, over white.
  case jpeg = 4

  /// The media type of the answer.
  public var mediaType: String {
    switch self {
    case .png: "image/png"
    case .pixels: "application/octet-stream"
    case .webp: "image/webp"
    case .jpeg: "image/jpeg"
    }
  }
}

/// A text of the file: of PNG a text chunk, of WebP and JPEG a field of the EXIF data.
public struct TextEntry: Sendable, Equatable {
  /// 1–79 Latin-1 characters.
  public var keyword: String
  /// The text.
  public var text: String

  /// See the properties.
  public init(keyword: String, text: String) {
    self.keyword = keyword
    self.text = text
  }
}

/// Gateway → VAE decoder, with the tensor `latents`. Answered by `DecodeResponse` with the tensor `image`.
public struct DecodeRequest: Sendable, Equatable {
  /// The model, as its card names it.
  public var modelID: String
  /// The image's size.
  public var size: ImageSize
  /// The form of the answer.
  public var format: ImageFormat
  /// Texts of the file.
  public var textEntries: [TextEntry]
  /// Further arguments.
  public var parameters: [Parameter]
  /// What the decoded image becomes a part of; nil: it is the result.
  public var overlay: Overlay?
  /// Layers, each an image of the size with transparency, behind a composite in the latents that is left out; 0: one
  /// image.
  public var layers = 0
  /// What becomes of the image's transparency.
  public var background = Background.asMade
  /// Of WebP and JPEG, from 0 (smallest) to 100; WebP of 100 is lossless.
  public var quality = 0

  /// See the properties; overlay, layers, background and quality are set afterwards.
  public init(
    modelID: String, size: ImageSize, format: ImageFormat = .png, textEntries: [TextEntry] = [],
    parameters: [Parameter] = []
  ) {
    self.modelID = modelID
    self.size = size
    self.format = format
    self.textEntries = textEntries
    self.parameters = parameters
  }
}

/// VAE decoder → gateway, with the tensor `image`: u8 [bytes of the file].
public struct DecodeResponse: Sendable, Equatable {
  /// ``ImageFormat/mediaType`` of what was asked for.
  public var mediaType: String
  /// The image's size.
  public var size: ImageSize
  /// Time spent computing.
  public var computeSeconds: Double

  /// See the properties.
  public init(mediaType: String, size: ImageSize, computeSeconds: Double = 0) {
    self.mediaType = mediaType
    self.size = size
    self.computeSeconds = computeSeconds
  }
}
