import Foundation
import Subprocess
import SystemPackage
import Testing

/// `qwen-image` as it is installed, run to its end.
struct CommandLineTool: Sendable {
  /// The file beside the tests.
  static let path = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().appendingPathComponent(
    "qwen-image"
  ).path

  /// The small model that the project carries.
  static let model = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
    .appending(path: "compose/models/nano-qwen-image").path

  /// How it ended, and what it wrote.
  struct Result: Sendable {
    let status: TerminationStatus
    let output: [UInt8]
    let errors: String

    var text: String { String(decoding: output, as: UTF8.self) }
    var isSuccess: Bool { status == .exited(0) }
  }

  /// Runs it with `arguments`.
  ///
  /// - Parameter input: its standard input.
  static func run(
    _ arguments: [String], environment: [String: String?] = [:], directory: URL? = nil, input: [UInt8] = []
  ) async throws -> Result {
    let result = try await Subprocess.run(
      .path(FilePath(path)), arguments: Arguments(arguments), environment: inherited.updating(keyed(environment)),
      workingDirectory: directory.map { FilePath($0.path) }, input: .array(input), output: .bytes(limit: 4 << 20),
      error: .string(limit: 1 << 20))
    return Result(status: result.terminationStatus, output: result.standardOutput, errors: result.standardError)
  }

  /// Runs it with standard output, or standard error, connected to an open file.
  static func run(
    _ arguments: [String], output: FileDescriptor
  ) async throws -> (status: TerminationStatus, errors: String) {
    let result = try await Subprocess.run(
      .path(FilePath(path)), arguments: Arguments(arguments), environment: inherited,
      output: .fileDescriptor(output, closeAfterSpawningProcess: false), error: .string(limit: 1 << 20))
    return (result.terminationStatus, result.standardError)
  }

  /// Runs it as a user whom file permissions bind: as another one if the tests are root's. What it writes must be open
  /// to all.
  static func runUnprivileged(_ arguments: [String], in folder: URL) async throws -> Result {
    guard geteuid() == 0 else { return try await run(arguments, directory: folder) }
    // The one beside the tests may lie where only root can read.
    let copy = folder.appending(path: "qwen-image.copy").path
    if !FileManager.default.fileExists(atPath: copy) { try FileManager.default.copyItem(atPath: path, toPath: copy) }
    let result = try await Subprocess.run(
      .name("setpriv"), arguments: Arguments(["--reuid=65534", "--regid=65534", "--clear-groups", copy] + arguments),
      environment: inherited, workingDirectory: FilePath(folder.path), output: .bytes(limit: 4 << 20),
      error: .string(limit: 1 << 20))
    return Result(status: result.terminationStatus, output: result.standardOutput, errors: result.standardError)
  }

  /// Runs it with a terminal as standard error; returns what the terminal got.
  static func runOnTerminal(_ arguments: [String]) async throws -> (status: TerminationStatus, screen: String) {
    let terminal = try PseudoTerminal()
    let result = try await Subprocess.run(
      .path(FilePath(path)), arguments: Arguments(arguments), environment: inherited, output: .discarded,
      error: .fileDescriptor(terminal.user, closeAfterSpawningProcess: true))
    return (result.terminationStatus, terminal.contents())
  }

  /// The tests' environment, without what would name another gateway.
  private static let inherited = Environment.inherit.updating(
    keyed(["QWEN_IMAGE_GATEWAY": nil, "QWEN_IMAGE_API_KEY": nil]))

  private static func keyed(_ variables: [String: String?]) -> [Environment.Key: String?] {
    Dictionary(uniqueKeysWithValues: variables.map { (Environment.Key(stringLiteral: $0), $1) })
  }
}

/// A terminal whose screen is a buffer.
private struct PseudoTerminal {
  let user: FileDescriptor
  private let screen: Int32

  init() throws {
    // As posix_openpt, unlockpt and ptsname do, which Foundation does not export.
    let (setLock, getNumber) = (UInt(0x4004_5431), UInt(0x8004_5430))
    var (lock, number) = (Int32(0), UInt32(0))
    screen = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)
    try #require(screen >= 0 && ioctl(screen, setLock, &lock) == 0 && ioctl(screen, getNumber, &number) == 0)
    let descriptor = open("/dev/pts/\(number)", O_RDWR | O_NOCTTY | O_CLOEXEC)
    try #require(descriptor >= 0)
    user = FileDescriptor(rawValue: descriptor)
  }

  /// What was written, once nothing writes to it any more.
  func contents() -> String {
    var bytes: [UInt8] = [], buffer = [UInt8](repeating: 0, count: 4096)
    while case let count = read(screen, &buffer, buffer.count), count > 0 { bytes += buffer[..<count] }
    close(screen)
    return String(decoding: bytes, as: UTF8.self)
  }
}

/// A new folder that is removed with `body`'s end.
func withFolder<Result>(_ body: (URL) async throws -> Result) async throws -> Result {
  let folder = URL(filePath: NSTemporaryDirectory()).appending(path: "qwen-image-cli-\(UInt64.random(in: 0 ... .max))")
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: folder) }
  return try await body(folder)
}
