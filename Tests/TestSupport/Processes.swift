import Foundation

/// Runs `body` until this process is killed; the last number that it has noted is in the file even then.
///
/// - Parameters:
///   - microseconds: the time until SIGKILL.
///   - path: the file, for ``notedNumber(in:)``.
public func untilKilled(
  afterMicroseconds microseconds: UInt32, notingIn path: String,
  _ body: (_ note: @escaping @Sendable (UInt64) -> Void) throws -> Void
) rethrows {
  let file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
  let killer = Thread {
    usleep(microseconds)
    kill(getpid(), SIGKILL)
  }
  killer.start()
  try body { number in
    var text = Array(String(format: "%12llu", number).utf8)
    _ = pwrite(file, &text, text.count, 0)
  }
}

/// What a process that was killed has noted last; nil: nothing.
public func notedNumber(in path: String) -> Int? {
  let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
  return Int(text.trimmingCharacters(in: .whitespaces))
}

/// Whether a program runs and succeeds.
public func succeeds(_ program: String, _ arguments: String...) -> Bool {
  let process = Process()
  process.executableURL = URL(filePath: program)
  process.arguments = arguments
  process.standardError = FileHandle.nullDevice
  guard (try? process.run()) != nil else { return false }
  process.waitUntilExit()
  return process.terminationStatus == 0
}
