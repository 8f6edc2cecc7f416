import Foundation
import ImageCodec

/// Why an argument of a tool cannot be used, for the model that sent it.
struct ToolArgumentError: Error, CustomStringConvertible {
  let description: String
}

/// A directory below which a client may have files read.
struct AllowedDirectory: Sendable {
  /// Without links.
  let path: String

  /// - Throws: `OutputError` when there is no such directory.
  init(_ path: String, option: String = "--allow-directory") throws(OutputError) {
    guard let resolved = realpath(path, nil) else {
      throw OutputError(name: "\(option) \(path)", reason: String(cString: strerror(errno)))
    }
    defer { free(resolved) }
    self.path = String(cString: resolved)
    var status = stat()
    guard stat(self.path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
      throw OutputError(name: "\(option) \(path)", reason: "that is no directory")
    }
  }

  /// Whether the file that is really at `path` lies below it.
  func holds(_ path: String) -> Bool { path.hasPrefix(self.path == "/" ? "/" : self.path + "/") }
}

/// Reads the images that a tool's arguments name: by a job, as a data URL, or by a path below an allowed directory.
struct ToolImageReader: Sendable {
  let client: GatewayClient
  let roots: [AllowedDirectory]

  /// Reads and checks an image.
  ///
  /// - Parameters:
  ///   - text: `job-…` or `job-…/INDEX`, `data:image/…;base64,…`, a path or a `file:` address.
  ///   - argument: what it is the value of, for errors.
  func read(_ text: String, _ argument: String) async throws -> InputFile {
    let bytes: [UInt8]
    if let job = Self.job(text) {
      bytes = [UInt8](try await client.image(of: job.id, index: job.index, layer: nil))
    } else if text.lowercased().hasPrefix("data:") {
      bytes = try Self.decoded(text, argument)
    } else if text.lowercased().hasPrefix("http://") || text.lowercased().hasPrefix("https://") {
      throw ToolArgumentError(
        description: "\(argument) is an address, and addresses are not fetched: give a path, a data URL or a job id")
    } else {
      bytes = try file(text, argument)
    }
    do {
      // How many pixels an image may have is the gateway's to say.
      let limits = ImageFile.Limits(maxBytes: InputFileReader.maxBytes, maxPixels: .max)
      return InputFile(bytes: bytes, format: try ImageFile.header(of: bytes, limits: limits).format, name: argument)
    } catch { throw ToolArgumentError(description: "\(argument): \(error)") }
  }

  /// `job-ID` or `job-ID/INDEX`; nil: something else.
  private static func job(_ text: String) -> (id: String, index: Int)? {
    guard let match = text.wholeMatch(of: /(job-[0-9a-f]{8,64})(?:\/([0-9]{1,2}))?/) else { return nil }
    return (String(match.1), match.2.flatMap { Int($0) } ?? 0)
  }

  private static func decoded(_ text: String, _ argument: String) throws -> [UInt8] {
    guard let comma = text.firstIndex(of: ","), text[..<comma].lowercased().hasSuffix(";base64"),
      let data = Data(base64Encoded: String(text[text.index(after: comma)...]))
    else {
      throw ToolArgumentError(description: "\(argument) must be a data URL with base64: data:image/png;base64,…")
    }
    return [UInt8](data)
  }

  /// The contents of a file. Where it is, is asked after it was opened: a link cannot change in between.
  private func file(_ path: String, _ argument: String) throws -> [UInt8] {
    guard !roots.isEmpty else {
      throw ToolArgumentError(
        description: "\(argument) is a path, but this server reads no files: its operator can allow directories with "
          + "--allow-directory. A job id or a data URL can be given instead")
    }
    let path = path.hasPrefix("file://") ? URL(string: path)?.path ?? path : path
    let refusal = ToolArgumentError(
      description: "\(argument): there is no file \(path.prefix(400)) below "
        + "\(roots.map(\.path).joined(separator: ", ")), where this server may read")
    guard !path.utf8.contains(0) else { throw refusal }
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
    guard descriptor >= 0 else { throw refusal }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG,
      let real = Self.path(of: descriptor), roots.contains(where: { $0.holds(real) })
    else { throw refusal }
    guard status.st_size <= InputFileReader.maxBytes else {
      let limit = InputFileReader.maxBytes
      throw ToolArgumentError(
        description: "\(argument) has \(status.st_size) bytes; the limit of an image file is \(limit)")
    }
    var bytes: [UInt8] = [], buffer = [UInt8](repeating: 0, count: 256 << 10)
    while bytes.count <= InputFileReader.maxBytes {
      let count = Foundation.read(descriptor, &buffer, buffer.count)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { break }
      bytes += buffer[..<count]
    }
    return bytes
  }

  /// Where an open file really is.
  private static func path(of descriptor: Int32) -> String? {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    let count = readlink("/proc/self/fd/\(descriptor)", &buffer, buffer.count)
    guard count > 0, count < buffer.count else { return nil }
    return String(validating: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}
