import ClusterCore
import ImageCodec
import TensorCore
import Wire

/// An image of a request, by its content. The pixels are kept once, however many jobs use them.
public struct InputReference: Hashable, Sendable, Codable {
  /// What the image is for.
  public enum Role: String, Sendable, Codable, CaseIterable {
    /// To begin with, or to edit.
    case image
    /// One channel: white where the image is made anew.
    case mask
    /// To follow.
    case control
  }

  /// What the image is for.
  public var role: Role
  /// SHA-256 of the decoded pixels with their size and channels, in hexadecimal.
  public var digest: String
  /// Width and height.
  public var size: ImageSize
  /// 1 for masks, 3 for RGB, 4 for RGBA.
  public var channels: Int

  /// See the properties.
  public init(role: Role, digest: String, size: ImageSize, channels: Int) {
    self.role = role
    self.digest = digest
    self.size = size
    self.channels = channels
  }
}

/// The pixels that an ``InputReference`` stands for.
public struct InputImage: Sendable {
  /// What the image is for, and its content.
  public var reference: InputReference
  /// u8 [height, width, channels].
  public var tensor: WireTensor

  /// A decoded image.
  public init(_ image: RasterImage, role: InputReference.Role) {
    let digest = image.contentDigest.map { byte in
      let text = String(byte, radix: 16)
      return byte < 16 ? "0" + text : text
    }.joined()
    reference = InputReference(
      role: role, digest: digest, size: ImageSize(widthPx: image.width, heightPx: image.height),
      channels: image.channels)
    tensor = WireTensor(
      name: role.rawValue, dtype: .uint8, shape: [image.height, image.width, image.channels],
      bytes: FrameBuffer(copying: image.pixels))
  }

  /// An image of the journal; nil when the pixels are not those that the reference says.
  public init?(_ reference: InputReference, pixels: FrameBuffer) {
    let (size, channels) = (reference.size, reference.channels)
    guard pixels.count == size.widthPx * size.heightPx * channels else { return nil }
    self.reference = reference
    tensor = WireTensor(
      name: reference.role.rawValue, dtype: .uint8, shape: [size.heightPx, size.widthPx, channels], bytes: pixels)
  }
}

/// An image that a task's message carries.
public struct TaskImage: Hashable, Sendable {
  /// Which one.
  public var digest: String
  /// The tensor's name in the message.
  public var name: String

  /// See the properties.
  public init(_ reference: InputReference, name: String) {
    digest = reference.digest
    self.name = name
  }
}
