import ImageCodec
import Provenance
import Synchronization

/// What an image looks like while it is denoised.
public struct Preview: Sendable {
  /// Steps done.
  public let step: Int
  /// RGB, an eighth of the image's size, about.
  public let image: RasterImage
  /// What its files say of their origin; nil: nothing.
  public let origin: ImageOrigin?
}

/// The newest preview of an image, for all who watch it: one that comes late finds the newest only, so that slow
/// clients take no memory for the others.
public final class NewestPreview: Sendable {
  private let state = Mutex<Preview?>(nil)

  init() {}

  /// nil: there is none yet, or none any more.
  public internal(set) var preview: Preview? {
    get { state.withLock { $0 } }
    set { state.withLock { $0 = newValue } }
  }
}
