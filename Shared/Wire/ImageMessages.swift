import ClusterCore

/// An image of a request as a network is to see it: a tensor u8 [height, width, channels] of the same message, and what
/// is done with it.
public struct PreparedImage: Sendable, Equatable {
  /// The tensor's name.
  public var tensor: String
  /// The part that is used, and its size afterwards.
  public var preparation: ImagePreparation

  /// See the properties.
  public init(tensor: String, _ preparation: ImagePreparation) {
    self.tensor = tensor
    self.preparation = preparation
  }
}

/// Which of a model's templates a prompt is put into.
public enum PromptTemplate: Int32, Sendable, CaseIterable {
  /// A prompt alone.
  case textToImage = 0
  /// One image, then the prompt.
  case edit = 1
  /// Numbered images, then the prompt.
  case editPlus = 2
}

/// How latents are taken from the posterior that a VAE encoder gives.
public enum PosteriorUse: Int32, Sendable, CaseIterable {
  /// The mean.
  case mean = 1
  /// A sample, drawn from a seed.
  case sample = 2
}

/// Gateway → VAE encoder, with the tensors of the images. Answered by `EncodeImageResponse` with the tensor `latents`.
public struct EncodeImageRequest: Sendable, Equatable {
  /// The model, as its card names it.
  public var modelID: String
  /// The image.
  public var image: PreparedImage
  /// How latents are taken from the posterior.
  public var posterior: PosteriorUse
  /// Of the generator that samples.
  public var seed: UInt64
  /// Draws of as many numbers that the generator has made before.
  public var precedingDraws: Int
  /// White pixels are blanked out before encoding, and the mask becomes a channel of the latents; nil: neither.
  public var mask: PreparedImage?

  /// See the properties.
  public init(
    modelID: String, image: PreparedImage, posterior: PosteriorUse = .mean, seed: UInt64 = 0, precedingDraws: Int = 0,
    mask: PreparedImage? = nil
  ) {
    self.modelID = modelID
    self.image = image
    self.posterior = posterior
    self.seed = seed
    self.precedingDraws = precedingDraws
    self.mask = mask
  }
}

/// VAE encoder → gateway, with the tensor `latents`, packed and normalised: [tokens, channels · patch²].
public struct EncodeImageResponse: Sendable, Equatable {
  /// The size of the image that was encoded.
  public var size: ImageSize
  /// Time spent computing.
  public var computeSeconds: Double

  /// See the properties.
  public init(size: ImageSize, computeSeconds: Double = 0) {
    self.size = size
    self.computeSeconds = computeSeconds
  }
}

/// An encoded control image of a `DenoiseRequest`.
public struct ControlReference: Sendable, Equatable {
  /// The name of its tensor [tokens, channels · patch²].
  public var tensor: String
  /// Which of the worker's control networks reads it.
  public var network: Int
  /// What the network's residuals are multiplied with.
  public var scale: Double
  /// The part of the steps in which it acts, from 0 to 1.
  public var range: ClosedRange<Double>

  /// See the properties.
  public init(tensor: String, network: Int = 0, scale: Double = 1, range: ClosedRange<Double> = 0...1) {
    self.tensor = tensor
    self.network = network
    self.scale = scale
    self.range = range
  }
}

/// What a decoded image becomes a part of: it is seen where the mask is white; elsewhere the image's own pixels stay.
public struct Overlay: Sendable, Equatable {
  /// The name of the image's tensor.
  public var imageTensor: String
  /// The name of the mask's tensor, which has the image's size.
  public var maskTensor: String
  /// The part that the decoded image shows; nil: all of it.
  public var region: PixelRegion?

  /// See the properties.
  public init(imageTensor: String, maskTensor: String, region: PixelRegion? = nil) {
    self.imageTensor = imageTensor
    self.maskTensor = maskTensor
    self.region = region
  }
}
