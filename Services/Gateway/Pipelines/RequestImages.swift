import ClusterCore
import Foundation
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
  /// Largest file in bytes.
  public var maxFileBytes = 50 << 20
  /// Most pixels of one image.
  public var maxPixels = 64 << 20
  /// Most pixels of all images of a request together.
  public var maxRequestPixels = 128 << 20

  /// The defaults.
  public init() {}

  /// The fields that hold images, and how many each may have.
  static let fields: [(name: String, role: InputReference.Role, maxCount: Int)] = [
    ("image", .image, ImageSpec.maxInputCount), ("control_image", .control, ImageSpec.maxControlCount),
    ("mask", .mask, 1),
  ]

  /// The field that a part of a form, or a name in JSON, is: `image[]`, `image[0]` and `images` are `image`.
  public static func field(named name: String) -> String? {
    let base = name.split(separator: "[", maxSplits: 1).first.map(String.init) ?? name
    let singular = base == "images" ? "image" : base == "control_images" ? "control_image" : base
    return fields.contains { $0.name == singular } ? singular : nil
  }

  /// Reads the images of fields in JSON: data URLs.
  ///
  /// - Throws: when one is no data URL with base64, or there are too many.
  func uploads(in reader: inout FieldReader) throws(APIError) -> [UploadedImage] {
    var uploads: [UploadedImage] = []
    for (field, _, maxCount) in Self.fields {
      for name in [field, field + "s"] where name != "masks" {
        for text in try reader.dataURLs(name, maxCount: maxCount) ?? [] {
          uploads.append(UploadedImage(field: field, bytes: try bytes(ofDataURL: text, field: name)))
        }
      }
    }
    return uploads
  }

  private func bytes(ofDataURL text: String, field: String) throws(APIError) -> [UInt8] {
    // Bare base64 is what many clients of other servers send.
    let isURL = text.hasPrefix("data:")
    guard !text.hasPrefix("http://"), !text.hasPrefix("https://") else {
      throw APIError(
        .unsupportedValue, "\(field) is an address; this server fetches nothing: send the image as a data URL",
        param: field)
    }
    let encoded: Substring
    if isURL {
      guard let comma = text.firstIndex(of: ","), text[..<comma].hasSuffix(";base64") else {
        throw APIError(.invalidValue, "\(field) must be a data URL with base64: data:image/png;base64,…", param: field)
      }
      encoded = text[text.index(after: comma)...]
    } else {
      encoded = text[...]
    }
    guard encoded.utf8.count <= maxFileBytes / 3 * 4 + 4 else {
      throw APIError(
        .bodyTooLarge, "\(field) has about \(encoded.utf8.count / 4 * 3) bytes, the limit is \(maxFileBytes)",
        param: field)
    }
    guard let data = Data(base64Encoded: String(encoded), options: .ignoreUnknownCharacters), !data.isEmpty else {
      throw APIError(.invalidValue, "\(field) is no base64", param: field)
    }
    return [UInt8](data)
  }

  /// Decodes files. Masks become one channel, white where the image is made anew.
  ///
  /// - Throws: an error that names the field and what is wrong with the file.
  func decode(_ uploads: [UploadedImage]) throws(APIError) -> [InputReference.Role: [RasterImage]] {
    var images: [InputReference.Role: [RasterImage]] = [:]
    var pixelsLeft = maxRequestPixels
    for (field, role, maxCount) in Self.fields {
      let files = uploads.filter { $0.field == field }
      guard files.count <= maxCount else {
        throw APIError(.invalidValue, "\(field) has \(files.count) images, the limit is \(maxCount)", param: field)
      }
      for file in files {
        let limits = ImageFile.Limits(maxBytes: maxFileBytes, maxPixels: min(maxPixels, max(pixelsLeft, 1)))
        let image: RasterImage
        do { image = try ImageFile.decode(file.bytes, limits: limits) } catch {
          throw APIError(.invalidValue, "\(field): \(error)", param: field)
        }
        pixelsLeft -= image.width * image.height
        images[role, default: []].append(role == .mask ? image.asMask : image)
      }
    }
    return images
  }
}
