import ImageCodec

/// A body of `multipart/form-data` (RFC 7578), complete with its boundary: sent again, it is the same bytes.
struct UploadForm {
  private let boundary: String
  private var parts: [UInt8] = []

  /// An empty form.
  ///
  /// - Parameter boundary: what separates the parts; 128 random bits by default, which occur in no file.
  init(
    boundary: String = "qwen-image-" + (0..<2).map { _ in String(UInt64.random(in: 0 ... .max), radix: 36) }.joined()
  ) {
    self.boundary = boundary
  }

  /// The content type of the body.
  var contentType: String { "multipart/form-data; boundary=\(boundary)" }

  /// The body.
  var bytes: [UInt8] { parts + "--\(boundary)--\r\n".utf8 }

  /// Adds a field, unless it has no value.
  mutating func add(_ name: String, _ value: (some LosslessStringConvertible)?) {
    guard let value else { return }
    add("content-disposition: form-data; name=\"\(name)\"\r\n", contents: "\(value)".utf8)
  }

  /// Adds an image. The gateway is not sent the path that it has here.
  mutating func add(_ name: String, _ file: InputFile) {
    let fileName = "\(name).\(file.format.rawValue.lowercased())"
    add(
      "content-disposition: form-data; name=\"\(name)\"; filename=\"\(fileName)\"\r\n"
        + "content-type: \(file.format.mediaType)\r\n",
      contents: file.bytes)
  }

  private mutating func add(_ header: String, contents: some Sequence<UInt8>) {
    parts += "--\(boundary)\r\n\(header)\r\n".utf8
    parts += contents
    parts += "\r\n".utf8
  }
}
