import ClusterCore
import ImageCodec
import StrictJSON

/// One image to generate: a request, checked against the model's card and with its defaults filled in. Everything that
/// the image depends on, apart from the workers' numerics class.
public struct ImageSpec: Hashable, Sendable {
  /// Most images of one request.
  public static let maxImageCount = 10
  /// Most images that a request begins with.
  public static let maxInputCount = 16
  /// Most control images of a request.
  public static let maxControlCount = 4

  private var shared: SharedCard
  /// The model, with what it allows.
  public var card: ModelCard {
    get { shared.card }
    set { shared = .of(newValue) }
  }
  /// What is done with the fields below.
  public var pipeline: PipelineName
  /// What to draw.
  public var prompt: String
  /// What the client has sent as the prompt, where that was rewritten; the image does not depend on it. nil: it was
  /// not.
  public var originalPrompt: String?
  /// What not to draw; nil: no true classifier-free guidance.
  public var negativePrompt: String?
  /// Width and height.
  public var size: ImageSize
  /// Denoising steps.
  public var steps: Int
  /// Scale of true classifier-free guidance; acts only with a negative prompt.
  public var trueCFGScale: Double
  /// Seed of the noise.
  public var seed: UInt64
  /// Fields of the pipeline's own, by their names in the API.
  public var options: [String: JSON]
  /// The request's images: those to begin with or to edit, in order, then the control images, then the mask.
  public var inputs: [InputReference]
  /// The request's files as they were sent, which the image names.
  public var files: [ImageSource.Input] = []
  /// The edits of ``PipelineName/editSequence``, in order; card, steps, guidance and seed are the ones above. The first
  /// begins with the request's image, each other one with what the one before has made.
  public var edits: [ImageSpec] = []

  /// See the properties; files and edits are set afterwards.
  public init(
    card: ModelCard, pipeline: PipelineName = .textToImage, prompt: String, negativePrompt: String?, size: ImageSize,
    steps: Int,
    trueCFGScale: Double, seed: UInt64, options: [String: JSON] = [:], inputs: [InputReference] = []
  ) {
    shared = .of(card)
    self.pipeline = pipeline
    self.prompt = prompt
    self.negativePrompt = negativePrompt
    self.size = size
    self.steps = steps
    self.trueCFGScale = trueCFGScale
    self.seed = seed
    self.options = options
    self.inputs = inputs
  }

  /// Image tokens: what a step costs.
  public var tokenCount: Int { latentsShape[0] }

  /// Shape of the packed latents, [tokens, channels · patch²]; layers follow one another.
  public var latentsShape: [Int] {
    let shape = card.latents.packedShape(of: size)
    return [latentCount * shape[0], shape[1]]
  }
}
