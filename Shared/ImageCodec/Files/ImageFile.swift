import CImageCodec

/// Image files from outside: PNG, JPEG and WebP, whatever their names say.
///
/// What comes out is what Pillow's `exif_transpose` and then `convert("RGB")` or `convert("RGBA")` give:
/// * PNG of all types: the same bytes. 16-bit samples keep their upper byte, grey ones too (Pillow does so for colour
///   and clips grey to 255), and 16-bit colour keys are compared with all 16 bits. Of an animated PNG the default
///   image is taken, which the format has for readers of still images.
/// * JPEG, baseline, progressive or arithmetic-coded; grey, YCbCr, RGB, CMYK and YCCK, the last two always with
///   inverted inks: the same bytes when both use libjpeg-turbo of the same behaviour (exact integer DCT, smooth
///   upsampling).
/// * WebP, lossy and lossless, with and without alpha. Animations are refused.
///
/// Colour profiles and gamma are not applied, as Pillow does not apply them. A file is decoded as a whole or refused:
/// checksums and ends of files are checked, though JPEG and WebP have no checksums that show every damaged byte.
public enum ImageFile {
  /// What is accepted. The limits of pixels and sides are compared with the header, before there is memory for pixels.
  public struct Limits: Sendable, Equatable {
    /// Largest file in bytes.
    public var maxBytes: Int
    /// Most pixels, width times height.
    public var maxPixels: Int
    /// Most pixels of width and of height.
    public var maxSide: Int

    /// Limits; by default 50 MiB, 64 megapixels (8192 × 8192) and 16,384 a side.
    public init(maxBytes: Int = 50 << 20, maxPixels: Int = 8192 * 8192, maxSide: Int = 16384) {
      self.maxBytes = maxBytes
      self.maxPixels = maxPixels
      self.maxSide = maxSide
    }
  }

  /// What is known of an image before its pixels are decoded.
  public struct Header: Sendable, Equatable {
    /// The format that the first bytes say.
    public var format: ImageFileFormat
    /// Width in pixels as it is to be seen, after the EXIF orientation.
    public var width: Int
    /// Height in pixels as it is to be seen, after the EXIF orientation.
    public var height: Int
    /// EXIF's orientation, 1 to 8; 1: upright.
    public var orientation: Int
  }

  /// Reads the header and compares it with the limits, without decoding pixels.
  public static func header(
    of file: [UInt8], limits: Limits = Limits()
  ) throws(ImageFileError) -> Header {
    let (format, stored) = try storedHeader(file, limits)
    let orientation = EXIFOrientation.orientation(of: file, format: format)
    let (width, height) = (Int(stored.width), Int(stored.height))
    return orientation < 5
      ? Header(format: format, width: width, height: height, orientation: orientation)
      : Header(format: format, width: height, height: width, orientation: orientation)
  }

  /// Decodes a file to 8-bit RGB, or RGBA of straight alpha if it has transparency, upright.
  ///
  /// At most the file, two copies of the image, and for progressive JPEG files eight bytes for each pixel are in memory
  /// at a time.
  public static func decode(_ file: [UInt8], limits: Limits = Limits()) throws(ImageFileError) -> RasterImage {
    let (format, stored) = try storedHeader(file, limits)
    let image =
      switch format {
      case .png: try PNG.decode(file, stored)
      case .jpeg: try JPEG.decode(file, stored)
      case .webp: try WebP.decode(file, stored)
      }
    return image.oriented(EXIFOrientation.orientation(of: file, format: format))
  }

  /// The header as it is stored, within the limits.
  private static func storedHeader(
    _ file: [UInt8], _ limits: Limits
  ) throws(ImageFileError) -> (ImageFileFormat, codec_header) {
    guard !file.isEmpty else { throw .empty }
    guard file.count <= limits.maxBytes else { throw .tooManyBytes(found: file.count, limit: limits.maxBytes) }
    let format: ImageFileFormat
    switch ImageFileKind(file) {
    case .image(let known): format = known
    case .other(let kind, let advice): throw .otherKind(kind, advice: advice)
    case .unknown: throw .unknownKind(firstBytes: Array(file.prefix(8)))
    }
    let header =
      switch format {
      case .png: try PNG.header(of: file)
      case .jpeg: try JPEG.header(of: file)
      case .webp: try WebP.header(of: file)
      }
    let (width, height) = (Int(header.width), Int(header.height))
    guard width > 0, height > 0 else { throw .malformed(format, reason: "an image of \(width)×\(height) pixels") }
    guard max(width, height) <= limits.maxSide else {
      throw .sideTooLong(format, width: width, height: height, limit: limits.maxSide)
    }
    guard width * height <= limits.maxPixels else {
      throw .tooManyPixels(format, width: width, height: height, limit: limits.maxPixels)
    }
    guard header.is_animated == 0 else { throw .animated(format) }
    return (format, header)
  }
}

extension ImageFileError {
  /// What a codec's failure means for the sender; nil: it did not fail.
  init?(_ status: codec_status, _ format: ImageFileFormat, reason: String) {
    switch status {
    case CODEC_OK: return nil
    case CODEC_MALFORMED: self = .malformed(format, reason: reason)
    case CODEC_UNSUPPORTED: self = .unsupported(format, reason: reason)
    default: self = .cannotDecode(format, reason: reason)
    }
  }
}

extension RasterImage {
  /// The image as EXIF's orientation, 1 to 8, asks for.
  func oriented(_ orientation: Int) -> RasterImage {
    guard (2...8).contains(orientation) else { return self }
    let isTurned = orientation >= 5
    return RasterImage(width: isTurned ? height : width, height: isTurned ? width : height, channels: channels) {
      image_orient(pixels, size, CInt(orientation), $0)
    }
  }
}
