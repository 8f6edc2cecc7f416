import ClusterCore
import GatewayAPI
import ImageCodec

/// An image as a client has sent it: the bytes of a file, under the name of a field.
public struct UploadedImage: Hashable, Sendable {
  /// The field's name, without brackets: `image`, `mask`, `control_image`.
  public var field: String
  /// The file.
  public var bytes: [UInt8]

  /// See the properties.
  public init(field: String, bytes: [UInt8]) {
    self.field = field
    self.bytes = bytes
  }
}

/// What clients may send as images, and what becomes of it.
public struct ImageIntake: Hashable, Sendable {
  /// The largest that ``maxPixels`` may be: an image of three channels is one tensor of a message.
  public static let largestMaxPixels = 80 << 20

  /// Largest file in bytes.
  public var maxFileBytes = 50 << 20
  /// Most pixels of one image.
  public var maxPixels = 64 << 20
  /// Most pixels of all images of a request together: one message may carry them all.
  public var maxRequestPixels = 96 << 20

  /// The defaults.
  public init() {}

  /// Reads the images of fields in JSON: data URLs.
  ///
  /// - Throws: when one is no data URL with base64, or there are too many.
  func uploads(in reader: inout FieldReader) throws(APIError) -> [UploadedImage] {
    var uploads: [UploadedImage] = []
    for (field, _, maxCount) in ImageField.all {
      for name in [field, field + "s"] where name != "masks" {
        for text in try reader.dataURLs(name, maxCount: maxCount) ?? [] {
          uploads.append(
            UploadedImage(field: field, bytes: try DataURL.bytes(of: text, field: name, maxBytes: maxFileBytes)))
        }
      }
    }
    return uploads
  }

  /// Takes the images out of a form: files, or texts as in JSON.
  ///
  /// - Throws: when a file is empty, a text is no data URL with base64, or two parts have the same number.
  func uploads(in form: MultipartForm) throws(APIError) -> [UploadedImage] {
    var uploads: [UploadedImage] = []
    var numbered: Set<ImageField> = []
    for (field, part) in ImageField.sorted(form.parts) {
      if let place = ImageField(part.name), place.number != nil, !numbered.insert(place).inserted {
        throw APIError(.invalidValue, "\(part.name) comes twice", param: field)
      }
      guard !part.bytes.isEmpty else { throw APIError(.invalidValue, "\(field) is an empty file", param: field) }
      let isText = part.fileName == nil && DataURL.isText(part.bytes)
      let bytes =
        isText
        ? try DataURL.bytes(of: String(decoding: part.bytes, as: UTF8.self), field: field, maxBytes: maxFileBytes)
        : Array(part.bytes)
      uploads.append(UploadedImage(field: field, bytes: bytes))
    }
    return uploads
  }

  /// Decodes files. Masks become one channel, white where the image is made anew.
  ///
  /// - Throws: an error that names the field and what is wrong with the file.
  func decode(_ uploads: [UploadedImage]) throws(APIError) -> [InputReference.Role: [RasterImage]] {
    try check(uploads)
    var images: [InputReference.Role: [RasterImage]] = [:]
    for (field, role, _) in ImageField.all {
      for file in uploads where file.field == field {
        let image: RasterImage
        do { image = try ImageFile.decode(file.bytes, limits: limits) } catch {
          throw APIError(.invalidValue, "\(field): \(error)", param: field)
        }
        images[role, default: []].append(role == .mask ? image.asMask : image)
      }
    }
    return images
  }

  private var limits: ImageFile.Limits { ImageFile.Limits(maxBytes: maxFileBytes, maxPixels: maxPixels) }

  /// Compares numbers and sizes with the limits before anything is decoded.
  private func check(_ uploads: [UploadedImage]) throws(APIError) {
    var pixelCount = 0
    for (field, _, maxCount) in ImageField.all {
      let files = uploads.filter { $0.field == field }
      guard files.count <= maxCount else {
        throw APIError(.invalidValue, "\(field) has \(files.count) images, the limit is \(maxCount)", param: field)
      }
      for file in files {
        do {
          let header = try ImageFile.header(of: file.bytes, limits: limits)
          pixelCount += header.width * header.height
        } catch {
          throw APIError(.invalidValue, "\(field): \(error)", param: field)
        }
        guard pixelCount <= maxRequestPixels else {
          throw APIError(
            .invalidValue, "the images of the request have more than \(maxRequestPixels) pixels together", param: field)
        }
      }
    }
  }
}
