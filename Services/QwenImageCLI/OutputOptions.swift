import ArgumentParser
import Foundation
import ImageCodec

/// Whether a command prints JSON, for other programs.
struct JSONOption: ParsableArguments {
  @Flag(help: "Print everything, as JSON.")
  var json = false
}

/// Where an image is written, and as what kind of file.
struct OutputOptions: ParsableArguments {
  @Option(
    name: [.short, .long],
    help: "Where to write the image; - is standard output. Default: image.png, image.webp or image.jpg.")
  var output: String?

  @Option(help: "png, webp or jpeg. Default: what the extension of --output says, else png.")
  var format: ImageFileFormat?

  @Option(
    parsing: .unconditional,
    help: "Quality of WebP and JPEG, from 0, the smallest file, to 100; WebP of 100 is lossless. Default: 100.")
  var outputCompression: Int?

  /// What kind of file the image becomes.
  var encoding: ImageEncoding {
    let named = output.flatMap { ImageFileFormat(pathExtension: URL(filePath: $0).pathExtension) }
    return ImageEncoding(format: format ?? named ?? .png, quality: outputCompression ?? ImageEncoding.png.quality)
  }

  /// Where it goes.
  var destination: ImageDestination { ImageDestination(output, [encoding.format]) }

  func validate() throws {
    guard let outputCompression else { return }
    guard ImageEncoding.qualities.contains(outputCompression) else {
      throw ValidationError("--output-compression is \(outputCompression); it must be from 0 to 100")
    }
    guard encoding.format != .png || outputCompression == ImageEncoding.png.quality else {
      throw ValidationError(
        "--output-compression is for WebP and JPEG, and PNG is lossless; name a file that ends with .webp or .jpg, or "
          + "give --format")
    }
  }

  /// Refuses a format without the transparency that is asked for.
  func check(_ sampling: SamplingOptions) throws {
    guard sampling.background != .transparent || encoding.keepsTransparency else {
      throw ValidationError("--background transparent is for PNG and WebP; \(encoding.format) has no transparency")
    }
  }

  /// Refuses formats that layers are not written in.
  func checkForLayers() throws {
    guard encoding.format == .png else {
      throw ValidationError("layers are written as PNG files, not as \(encoding.format)")
    }
  }
}

/// Files for the images of one command.
struct ImageDestination {
  /// nil: a name of this program's.
  private let path: String?
  /// What the files may be.
  private let formats: [ImageFileFormat]

  /// - Parameters:
  ///   - path: as it was given.
  ///   - formats: one, or several where only the gateway knows.
  init(_ path: String?, _ formats: [ImageFileFormat]) {
    self.path = path
    self.formats = formats
  }

  /// What the path is.
  private var file: OutputFile { OutputFile(name, formats: formats) }
  private var name: String { path ?? "image.\(formats[0].pathExtensions[0])" }
  /// Whether nothing else may go to standard output.
  var isStandardOutput: Bool { file.isStandardOutput }

  /// Finds out as much as possible about where `count` images would go, without writing anything.
  func check(count: Int = 1) throws {
    let paths = try paths(count)
    try file.check()
    if count > 1 { for path in paths { try OutputFile(path, formats: formats).check() } }
  }

  /// Writes the images, several ones under the path with their number before the extension, and says where.
  func write(_ images: [[UInt8]]) throws {
    for (path, image) in zip(try paths(images.count), images) { try ImageDestination(path, formats).write(image) }
  }

  /// Writes the images likewise; returns where.
  func save(_ images: [[UInt8]]) throws -> [String?] {
    try zip(try paths(images.count), images).map { path, image in try ImageDestination(path, formats).save(image) }
  }

  /// Writes an image, and says where unless it is standard output.
  func write(_ image: [UInt8]) throws {
    if let name = try save(image) { try Terminal.print(name) }
  }

  /// Writes an image; returns where, or nil: to standard output.
  private func save(_ image: [UInt8]) throws -> String? {
    guard let format = ImageFileFormat(signatureOf: image), formats.contains(format) else {
      throw OutputError(name: "--output \(name)", reason: "the image is not of the format that was asked for")
    }
    let own = ImageDestination(path, [format])
    if formats.count > 1 { try own.check() }
    let isStandardOutput = own.isStandardOutput
    try own.file.write(image)
    return isStandardOutput ? nil : own.name
  }

  private func paths(_ count: Int) throws -> [String] {
    guard count > 1 else { return [name] }
    guard !file.isStandardOutput else {
      throw OutputError(name: "--output \(name)", reason: "there are \(count) images; name a file")
    }
    let url = URL(filePath: name)
    let suffix = url.pathExtension.isEmpty ? "" : ".\(url.pathExtension)"
    return (0..<count).map { "\(name.dropLast(suffix.count)).\($0)\(suffix)" }
  }
}

extension ImageFileFormat: ExpressibleByArgument {
  /// The format of a name on the command line.
  public init?(argument: String) {
    self.init(pathExtension: argument)
  }

  /// Names for users.
  public static var allValueStrings: [String] { allCases.map(\.name) }

  /// The extensions of its files, the usual one first.
  var pathExtensions: [String] { self == .jpeg ? ["jpg", "jpeg"] : [name] }

  /// The format that an extension stands for; nil: none.
  init?(pathExtension: String) {
    guard let format = Self.allCases.first(where: { $0.pathExtensions.contains(pathExtension.lowercased()) }) else {
      return nil
    }
    self = format
  }
}
