import Diffusion
import Foundation
import ImageCodec

/// An image file that a command was given: of a kind that is read, and within the limits. Its pixels are not decoded.
struct InputFile {
  /// The contents.
  let bytes: [UInt8]
  /// What the first bytes say that it is.
  let format: ImageFileFormat
  /// How messages name it: the flag and the path.
  let name: String

  /// The pixels.
  func decoded() throws(OutputError) -> RasterImage {
    do { return try ImageFile.decode(bytes) } catch { throw OutputError(name: name, reason: "\(error)") }
  }

  /// The pixels of a file that the result is to name among those of `inputs`.
  func decoded(as role: String, of inputs: inout PipelineInputs) throws(OutputError) -> RasterImage {
    inputs.files.append(ImageSource.Input(role: role, file: bytes))
    return try decoded()
  }
}

/// Reads the image files of one command; `-` is standard input, once.
struct InputFileReader {
  /// The gateway's limit, too.
  static let maxBytes = ImageFile.Limits().maxBytes

  private var standardInputName: String?

  /// Reads and checks a file.
  ///
  /// - Parameters:
  ///   - path: a file, a pipe, or `-`.
  ///   - option: the flag that names it.
  /// - Throws: an error that names the flag and the path: the file cannot be read, is too large, or is no image.
  mutating func read(_ path: String, _ option: String) throws(OutputError) -> InputFile {
    let name = "\(option) \(path)"
    guard !path.isEmpty else { throw OutputError(name: option, reason: "the path is empty") }
    if path == "-" {
      if let standardInputName {
        throw OutputError(
          name: name, reason: "standard input is one file, which \(standardInputName) reads; name a file")
      }
      standardInputName = name
    }
    let bytes = try Self.contents(of: path, name)
    do {
      // How many pixels an image may have is the gateway's to say.
      let limits = ImageFile.Limits(maxBytes: Self.maxBytes, maxPixels: .max)
      return InputFile(bytes: bytes, format: try ImageFile.header(of: bytes, limits: limits).format, name: name)
    } catch {
      throw OutputError(name: name, reason: "\(error)")
    }
  }

  private static func contents(of path: String, _ name: String) throws(OutputError) -> [UInt8] {
    func systemFailure() -> OutputError { OutputError(name: name, reason: String(cString: strerror(errno))) }
    let descriptor = path == "-" ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY)
    guard descriptor >= 0 else { throw systemFailure() }
    defer { if path != "-" { close(descriptor) } }
    guard isatty(descriptor) == 0 else {
      throw OutputError(name: name, reason: "that is a terminal; name a file, or redirect one to it")
    }
    var bytes: [UInt8] = []
    var status = stat()
    if fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG {
      guard status.st_size <= maxBytes else { throw tooLarge(name, "\(status.st_size) bytes") }
      bytes.reserveCapacity(Int(status.st_size))
    }
    var buffer = [UInt8](repeating: 0, count: 256 << 10)
    while true {
      let count = Foundation.read(descriptor, &buffer, buffer.count)
      if count == 0 { return bytes }
      guard count > 0 else {
        if errno == EINTR { continue }
        throw systemFailure()
      }
      guard bytes.count + count <= maxBytes else { throw tooLarge(name, "more than \(maxBytes) bytes") }
      bytes += buffer[..<count]
    }
  }

  private static func tooLarge(_ name: String, _ size: String) -> OutputError {
    OutputError(name: name, reason: "it has \(size); the limit of an image file is \(maxBytes)")
  }
}
