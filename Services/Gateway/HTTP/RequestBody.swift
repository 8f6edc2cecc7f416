import ClusterCore
import GatewayAPI
import HTTPTypes
import Hummingbird
import NIOCore

extension Request {
  /// Takes the body, JSON or a form, within the limits, and leaves an empty one behind, so that what comes on the
  /// connection afterwards can still be watched. A body that the header alone rules out is not asked for.
  ///
  /// - Parameter memory: counts the body's bytes as they come.
  mutating func takeBody(
    _ limits: HTTPLimits, _ memory: BodyMemory.Share, _ context: GatewayContext
  ) async throws -> RequestContent {
    let boundary = try MultipartForm.boundary(of: headers[.contentType] ?? "")
    // A JSON body may hold images as well, and nothing before its end says so.
    let maxBytes = limits.maxBodyBytes
    if boundary == nil { try checkJSONType() }
    try checkLength(maxBytes)
    let bytes = try await takeBytes(limits, maxBytes, memory, context)
    guard let boundary else { return .json(try Self.utf8(bytes)) }
    return .form(try MultipartForm(bytes, boundary: boundary))
  }

  mutating func takeBytes(
    _ limits: HTTPLimits, _ maxBytes: Int, _ memory: BodyMemory.Share, _ context: GatewayContext
  ) async throws -> [UInt8] {
    await context.intake.begin(self, on: context.channel)
    let body = body
    let bytes = try await withThrowingTaskGroup(of: [UInt8].self) { group in
      group.addTask {
        var bytes: [UInt8] = []
        for try await part in body {
          guard part.readableBytes <= maxBytes - bytes.count else {
            throw APIError(.bodyTooLarge, "the body has more than \(maxBytes) bytes")
          }
          try memory.grow(to: bytes.count + part.readableBytes)
          bytes.append(contentsOf: part.readableBytesView)
        }
        return bytes
      }
      group.addTask {
        try await SystemTime().sleep(for: limits.bodyTimeout)
        throw APIError(.requestTimeout, "the body did not arrive within \(limits.bodyTimeout)")
      }
      defer { group.cancelAll() }
      guard let bytes = try await group.next() else { throw CancellationError() }
      return bytes
    }
    self.body = RequestBody(buffer: ByteBuffer())
    return bytes
  }

  /// The text without a byte order mark, which PowerShell and editors put before it: RFC 8259, section 8.1, allows to
  /// ignore one.
  package static func utf8(_ bytes: [UInt8]) throws(APIError) -> [UInt8] {
    if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { return Array(bytes.dropFirst(3)) }
    if bytes.starts(with: [0xFF, 0xFE]) || bytes.starts(with: [0xFE, 0xFF]) {
      throw APIError(.invalidJSON, "the body begins with the byte order mark of UTF-16 or UTF-32: send UTF-8")
    }
    return bytes
  }

  private static let utf8Names: Set<Substring> = ["utf-8", "\"utf-8\"", "utf8", "\"utf8\""]

  func checkJSONType() throws(APIError) {
    let contentType = headers[.contentType] ?? ""
    let parts = contentType.lowercased().split(separator: ";").map { $0.trimmingWhitespace() }
    guard parts.first == "application/json",
      parts.dropFirst().allSatisfy({
        !$0.hasPrefix("charset=") || Self.utf8Names.contains($0.dropFirst("charset=".count))
      })
    else {
      throw APIError(
        .unsupportedMediaType,
        "the content type is \"\(contentType.prefix(80))\", but must be application/json in UTF-8, "
          + "or multipart/form-data")
    }
  }

  func checkLength(_ maxBytes: Int) throws(APIError) {
    if let encoding = headers[.contentEncoding], encoding.lowercased() != "identity" {
      throw APIError(.unsupportedMediaType, "the content encoding \"\(encoding.prefix(40))\" is not supported")
    }
    if let length = headers[.contentLength].flatMap({ Int($0) }), length > maxBytes {
      throw APIError(.bodyTooLarge, "the body has \(length) bytes, the limit is \(maxBytes)")
    }
  }
}

extension Substring {
  fileprivate func trimmingWhitespace() -> Substring {
    guard let start = firstIndex(where: { !$0.isWhitespace }), let end = lastIndex(where: { !$0.isWhitespace }) else {
      return ""
    }
    return self[start...end]
  }
}
