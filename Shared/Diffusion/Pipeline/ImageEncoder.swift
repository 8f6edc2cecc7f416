import ClusterCore
import ImageCodec
import TensorCore

/// Images → packed latents: an autoencoder's encoder, and what pipelines do before and after it.
public struct ImageEncoder: Sendable {
  private let codec: any LatentCodec
  private let geometry: LatentGeometry

  /// - Parameters:
  ///   - codec: loaded with its encoder.
  ///   - geometry: the shape of its latents.
  public init(_ codec: any LatentCodec, _ geometry: LatentGeometry) {
    self.codec = codec
    self.geometry = geometry
  }

  /// Channels of the images that it takes.
  public var imageChannels: Int { codec.imageChannels }

  /// The packed latents of an image whose sides are multiples of a token's edge.
  ///
  /// - Parameters:
  ///   - noise: samples the posterior; nil: its mean is taken.
  ///   - number: of the encoding, for the names of recorded tensors.
  public func encode(_ image: RasterImage, noise: Tensor? = nil, number: Int = 0, probe: Probe = .none) -> Tensor {
    let pixels = Tensor(pixels: image.converted(toChannels: codec.imageChannels))
    let planes = codec.encode(
      pixels, noise: noise, probe: probe.scoped("vae").renamed("encode0", "encode\(number)"))
    return LatentPacking.pack(planes, patch: geometry.patch)
  }

  /// The packed latents of an image without its masked part, and the mask as another channel: 1 where the image was
  /// kept (diffusers `QwenImageControlNetInpaintPipeline`).
  ///
  /// - Parameter mask: one channel, of the image's size; white pixels are blanked out.
  public func encode(
    _ image: RasterImage, blanking mask: RasterImage, noise: Tensor?, probe: Probe = .none
  ) -> Tensor {
    let mask = mask.binarised()
    var pixels = Tensor(pixels: image).floats()
    for index in mask.pixels.indices where mask.pixels[index] > 0 {
      for channel in 0..<image.channels { pixels[index * image.channels + channel] = -1 }
    }
    let masked = Tensor(pixels, shape: [image.height, image.width, image.channels])
    let planes = codec.encode(masked, noise: noise, probe: probe.scoped("vae"))
    let kept = Tensor(mask: mask.inverted, scale: geometry.downscale)
    return LatentPacking.pack(
      Tensor(planes.floats() + kept.floats(), shape: [geometry.channels + 1, kept.shape[1], kept.shape[2]]),
      patch: geometry.patch)
  }

  /// A mask as the denoising loop takes it, packed like latents: 1 where the image is made anew.
  ///
  /// - Parameter mask: one channel, of the image's size.
  public static func packedMask(_ mask: RasterImage, _ geometry: LatentGeometry) -> Tensor {
    let plane = Tensor(mask: mask, scale: geometry.downscale), values = plane.floats()
    let planes = Tensor(
      (0..<geometry.channels).flatMap { _ in values },
      shape: [geometry.channels, plane.shape[1], plane.shape[2]])
    return LatentPacking.pack(planes, patch: geometry.patch)
  }
}
