import Foundation
import Synchronization

/// Where credentials come from: a file in the format of Amazon's command line, which is read again when it has changed,
/// or the environment.
///
/// ```ini
/// [default]
/// aws_access_key_id = …
/// aws_secret_access_key = …
/// aws_session_token = …
/// ```
public final class S3CredentialSource: Sendable {
  private struct State {
    var credentials: S3Credentials?
    /// What the file looked like when it was read: device, inode, size and time.
    var mark: [Int64] = []
  }

  private let path: String?
  private let profile: String
  private let state: Mutex<State>

  /// - Parameters:
  ///   - file: the file; nil: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, else the file that
  ///     `AWS_SHARED_CREDENTIALS_FILE` names, else `~/.aws/credentials`.
  ///   - environment: of the process. `AWS_PROFILE` names the section of the file, `default` without it.
  public init(file: String?, environment: [String: String] = ProcessInfo.processInfo.environment) {
    func value(_ name: String) -> String? { environment[name].flatMap { $0.isEmpty ? nil : $0 } }
    profile = value("AWS_PROFILE") ?? "default"
    if file == nil, let id = value("AWS_ACCESS_KEY_ID"), let secret = value("AWS_SECRET_ACCESS_KEY") {
      path = nil
      state = Mutex(
        State(
          credentials: S3Credentials(
            accessKeyID: id, secretAccessKey: secret, sessionToken: value("AWS_SESSION_TOKEN"))))
    } else {
      path = file ?? value("AWS_SHARED_CREDENTIALS_FILE") ?? value("HOME").map { "\($0)/.aws/credentials" } ?? ""
      state = Mutex(State())
    }
  }

  /// The credentials of now.
  ///
  /// - Throws: `settings`, saying what is missing where.
  public func current() throws(ObjectError) -> S3Credentials {
    let outcome = state.withLock { state -> Result<S3Credentials, ObjectError> in
      guard let path else { return state.credentials.map { .success($0) } ?? .failure(.settings("no credentials")) }
      let mark = Self.mark(of: path)
      if mark == state.mark, let credentials = state.credentials { return .success(credentials) }
      do throws(ObjectError) {
        let credentials = try Self.read(path, profile)
        state = State(credentials: credentials, mark: mark)
        return .success(credentials)
      } catch {
        // A file that is being written has the old ones until it is whole.
        return state.credentials.map { .success($0) } ?? .failure(error)
      }
    }
    return try outcome.get()
  }

  private static func mark(of path: String) -> [Int64] {
    var status = stat()
    guard stat(path, &status) == 0 else { return [] }
    return [
      Int64(truncatingIfNeeded: status.st_dev), Int64(truncatingIfNeeded: status.st_ino), Int64(status.st_size),
      Int64(status.st_mtim.tv_sec), Int64(status.st_mtim.tv_nsec),
    ]
  }

  private static let maxFileBytes = 1 << 20

  private static func read(_ path: String, _ profile: String) throws(ObjectError) -> S3Credentials {
    guard let file = FileHandle(forReadingAtPath: path) else {
      throw .settings(
        "there are no credentials for S3: neither the file \(path) nor AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    }
    defer { try? file.close() }
    guard let bytes = try? file.read(upToCount: maxFileBytes), let text = String(data: bytes, encoding: .utf8) else {
      throw .settings("\(path) cannot be read, or is no text")
    }
    var section = "", values: [String: String] = [:]
    for line in text.split(whereSeparator: \.isNewline) {
      let line = line.trimmingCharacters(in: .whitespaces)
      if line.hasPrefix("["), line.hasSuffix("]") {
        section = line.dropFirst().dropLast().trimmingCharacters(in: .whitespaces)
      } else if section == profile, !line.hasPrefix("#"), let equals = line.firstIndex(of: "=") {
        let name = line[..<equals].trimmingCharacters(in: .whitespaces).lowercased()
        values[name] = line[line.index(after: equals)...].trimmingCharacters(in: .whitespaces)
      }
    }
    guard let id = values["aws_access_key_id"], let secret = values["aws_secret_access_key"], !id.isEmpty,
      !secret.isEmpty
    else { throw .settings("\(path) has no aws_access_key_id and aws_secret_access_key in its section [\(profile)]") }
    return S3Credentials(accessKeyID: id, secretAccessKey: secret, sessionToken: values["aws_session_token"])
  }
}
