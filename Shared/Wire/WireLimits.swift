/// What a receiver accepts and a sender sends at most.
public struct WireLimits: Sendable, Equatable {
  /// Bytes of frame 0.
  public var maxEnvelopeBytes = 256 << 10
  /// Tensors of one message: the most are embeddings of two prompts, 16 reference images, a mask and latents.
  public var maxTensors = 24
  /// Bytes of one tensor.
  public var maxTensorBytes = 256 << 20
  /// Bytes of all frames of one message.
  public var maxMessageBytes = 320 << 20
  /// Bytes of a prompt, a text parameter or an image's text entry.
  public var maxTextBytes = 64 << 10
  /// Bytes of an identifier or a name.
  public var maxIdentifierBytes = 256
  /// Bytes of a status message or a reason.
  public var maxReasonBytes = 4 << 10
  /// Elements of a list.
  public var maxListElements = 256
  /// Dimensions of a tensor.
  public var maxDimensions = 8

  /// The limits that proto/README.md names.
  public init() {}

  /// The number of frames of the largest message.
  public var maxFrames: Int { 1 + maxTensors }

  /// Bytes of the largest frame.
  public var maxFrameBytes: Int { max(maxEnvelopeBytes, maxTensorBytes) }
}
