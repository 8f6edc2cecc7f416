import Foundation
import ImageCodec
import MCP
import StrictJSON

/// A directory that results are written to.
struct ToolOutputDirectory: Sendable {
  let path: String

  /// - Throws: `OutputError` when there is no such directory, or it is not writable.
  init(_ path: String) throws(OutputError) {
    self.path = try AllowedDirectory(path, option: "--output-directory").path
    guard access(self.path, W_OK) == 0 else {
      throw OutputError(name: "--output-directory \(path)", reason: String(cString: strerror(errno)))
    }
  }
}

/// Turns a job's images into blocks of a tool's result: the image itself as far as a result may be long, else where it
/// is.
struct ToolImages: Sendable {
  let client: GatewayClient
  let maxInlineBytes: Int
  let directory: ToolOutputDirectory?

  /// The images of a job that has succeeded.
  ///
  /// - Returns: blocks for the model, and for programs a description of each image.
  func blocks(of job: GatewayClient.Job) async throws -> (content: [JSON], images: [JSON]) {
    // The name becomes that of a file.
    guard job.id.wholeMatch(of: /[A-Za-z0-9_-]{1,80}/) != nil else {
      throw GatewayClientError.notGateway(client.address, reason: "it names a job \"\(job.id.prefix(80))\"")
    }
    var content: [JSON] = [], images: [JSON] = [], inlineBytes = 0
    for image in job.images where image.status == "succeeded" {
      for layer in try client.layers(of: job) {
        let bytes = [UInt8](try await client.image(of: job.id, index: image.index, layer: layer))
        guard let format = ImageFileFormat(signatureOf: bytes) else { continue }
        let name = "\(job.id)-\(image.index)\(layer.map { "-\($0)" } ?? "").\(format.pathExtensions[0])"
        let url =
          "\(client.address.base)\(client.path(of: job.id))/result?index=\(image.index)"
          + (layer.map { "&layer=\($0)" } ?? "")
        var entry: JSONObject = [
          "index": JSON(image.index), "seed": JSON(image.seed), "mime_type": .string(format.mediaType),
          "bytes": JSON(bytes.count), "url": .string(url),
        ]
        if let layer { entry["layer"] = JSON(layer) }
        var place = url
        if let directory {
          let path = "\(directory.path)/\(name)"
          try Data(bytes).write(to: URL(filePath: path), options: .atomic)
          entry["path"] = .string(path)
          place = URL(filePath: path).absoluteString
        }
        if inlineBytes + bytes.count <= maxInlineBytes {
          inlineBytes += bytes.count
          content.append([
            "type": "image", "data": .string(Data(bytes).base64EncodedString()), "mimeType": .string(format.mediaType),
          ])
        } else {
          content.append([
            "type": "resource_link", "uri": .string(place), "name": .string(name),
            "mimeType": .string(format.mediaType), "size": JSON(bytes.count),
            "description": .string("The image, whose \(bytes.count) bytes are too many for this result"),
          ])
        }
        images.append(.object(entry))
      }
    }
    return (content, images)
  }
}
