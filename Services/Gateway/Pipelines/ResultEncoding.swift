import ClusterCore
import GatewayAPI
import ImageCodec
import StrictJSON
import Wire

extension ImageSpec {
  /// Keys of ``options`` that say what file the result is; absent: PNG.
  private static let formatKey = "output_format", qualityKey = "output_compression"
  /// The keys of ``options`` that several edits have in common with their result.
  static let resultKeys: Set = [formatKey, qualityKey, backgroundKey, RequestedAdapter.field]

  /// What file the result is.
  public var encoding: ImageEncoding {
    ImageEncoding(
      format: options[Self.formatKey]?.text.flatMap { ImageFileFormat(name: $0) } ?? .png,
      quality: options[Self.qualityKey]?.integer ?? ImageEncoding.png.quality)
  }

  /// The options with another file as the result.
  static func options(_ options: [String: JSON], with encoding: ImageEncoding) -> [String: JSON] {
    guard encoding.format != .png else { return options }
    let own: [String: JSON] = [
      formatKey: .string(encoding.format.name), qualityKey: .number(JSONNumber(text: "\(encoding.quality)")),
    ]
    return options.merging(own) { $1 }
  }

  /// Refuses what the result's format does not have: layers, and sides that are too long.
  func checkEncoding() throws(APIError) {
    let format = encoding.format
    guard format != .png else { return }
    guard layers == 0 else {
      throw APIError(
        .unsupportedValue, "output_format is \"\(format.name)\", but layers are answered as PNG files",
        param: "output_format")
    }
    let size = resultSize
    guard max(size.widthPx, size.heightPx) <= format.maxSide else {
      throw APIError(
        .invalidValue,
        "output_format is \"\(format.name)\", which has at most \(format.maxSide) pixels a side; the image is \(size)",
        param: "output_format")
    }
  }
}

extension ImageEncoding {
  /// As a message to a VAE decoder says it.
  var wireFormat: ImageFormat {
    switch format {
    case .png: .png
    case .webp: .webp
    case .jpeg: .jpeg
    }
  }

  /// Reads `output_format` and `output_compression`.
  ///
  /// The second is the quality of the encoder, as in OpenAI's API: 100, the default, is the best and the largest.
  init(_ fields: inout FieldReader) throws(APIError) {
    let known = "images are PNG, WebP or JPEG"
    let name = try fields.choice(
      "output_format", ["png", "webp", "jpeg"], unsupported: ["jpg": "write \"jpeg\"", "gif": known, "svg": known])
    let quality = try fields.integer("output_compression", in: Self.qualities)
    self.init(
      format: name.flatMap { ImageFileFormat(name: $0) } ?? .png, quality: quality ?? ImageEncoding.png.quality)
    guard format != .png || self.quality == ImageEncoding.png.quality else {
      throw APIError(
        .invalidValue,
        "output_compression is \(self.quality), which is for \"webp\" and \"jpeg\"; of PNG only 100 is accepted",
        param: "output_compression")
    }
  }
}
