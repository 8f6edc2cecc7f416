import Foundation
import Synchronization

/// A PostgreSQL server for tests: a database cluster of its own in a temporary directory, reached by a Unix socket, run
/// by an unprivileged user when the tests are root. It ends with the object, and when the test process does.
public final class PostgreSQLServer: Sendable {
  /// Why a server cannot be used.
  public struct Failure: Error, CustomStringConvertible {
    /// For people.
    public let description: String
  }

  /// The directory with `initdb` and `postgres`; nil: PostgreSQL is not installed.
  public static let programs: String? = {
    if let given = ProcessInfo.processInfo.environment["PG_BIN"], !given.isEmpty { return given }
    let versions = (try? FileManager.default.contentsOfDirectory(atPath: "/usr/lib/postgresql")) ?? []
    return versions.sorted { (Int($0) ?? 0) > (Int($1) ?? 0) }.map { "/usr/lib/postgresql/\($0)/bin" }
      .first { FileManager.default.isExecutableFile(atPath: "\($0)/postgres") }
  }()

  /// Everything of this server.
  public let folder: String
  /// Where its socket is.
  public let port: Int
  private let process = Mutex<Process?>(nil)
  private let guardian = Mutex<(process: Process, input: Pipe)?>(nil)

  /// A new cluster that runs.
  ///
  /// - Parameters:
  ///   - settings: lines of `postgresql.conf`.
  ///   - primary: of which server this one is to be a streaming replica; nil: of none.
  public init(_ settings: [String] = [], replicaOf primary: PostgreSQLServer? = nil, named name: String = "replica")
    throws
  {
    guard let programs = Self.programs else { throw Failure(description: "PostgreSQL is not installed") }
    folder = try Self.makeFolder()
    port = Int.random(in: 10_000...60_000)
    if let primary {
      try Self.run([
        "\(programs)/pg_basebackup", "--pgdata=\(folder)/data", "--checkpoint=fast", "--write-recovery-conf",
        "--dbname=host=\(primary.folder) port=\(primary.port) user=journal application_name=\(name)",
      ])
    } else {
      try Self.run([
        "\(programs)/initdb", "--pgdata=\(folder)/data", "--username=journal", "--auth=trust", "--encoding=UTF8",
        "--locale=C", "--no-sync",
      ])
    }
    let lines =
      [
        "listen_addresses = ''", "unix_socket_directories = '\(folder)'", "port = \(port)", "shared_buffers = 16MB",
        "max_connections = 60", "logging_collector = off", "log_min_messages = warning", "max_wal_size = 256MB",
        "wal_keep_size = 64MB", "cluster_name = '\(name)'",
      ] + settings
    let file = "\(folder)/data/postgresql.conf"
    let before = try String(contentsOfFile: file, encoding: .utf8)
    // In place: the file belongs to the user who runs the server.
    let handle = try FileHandle(forWritingTo: URL(filePath: file))
    try handle.truncate(atOffset: 0)
    try handle.write(contentsOf: Data((before + "\n" + lines.joined(separator: "\n") + "\n").utf8))
    try handle.close()
    try start()
  }

  deinit {
    kill()
    guardian.withLock { $0?.process.terminate() }
    try? FileManager.default.removeItem(atPath: folder)
  }

  /// What connects to it.
  public var url: String { "host=\(folder) port=\(port) user=journal dbname=postgres" }

  /// The process that all others of the server are children of; 0: it does not run.
  public var pid: Int32 { process.withLock { $0?.processIdentifier ?? 0 } }

  /// Starts the server and waits until it takes connections.
  public func start() throws {
    guard let programs = Self.programs else { return }
    let server = Process()
    server.executableURL = URL(filePath: "/usr/bin/setpriv")
    server.arguments = Self.user + ["\(programs)/postgres", "-D", "\(folder)/data"]
    server.currentDirectoryURL = URL(filePath: folder)
    let log = "\(folder)/log"
    if !FileManager.default.fileExists(atPath: log) { _ = FileManager.default.createFile(atPath: log, contents: nil) }
    let handle = try FileHandle(forWritingTo: URL(filePath: log))
    try handle.seekToEnd()
    server.standardOutput = handle
    server.standardError = handle
    try server.run()
    process.withLock { $0 = server }
    try guardServer(server.processIdentifier)
    let deadline = Date().addingTimeInterval(60)
    while Date() < deadline, server.isRunning {
      if (try? Self.run([
        "\(programs)/pg_isready", "--quiet", "--username=journal", "--host=\(folder)", "--port=\(port)",
      ])) != nil {
        return
      }
      usleep(50_000)
    }
    throw Failure(
      description: "PostgreSQL has not started: \((try? String(contentsOfFile: log, encoding: .utf8)) ?? "")")
  }

  /// When the test process ends in any way, so does the server: a shell that waits for the end of a pipe sees to it.
  private func guardServer(_ pid: Int32) throws {
    let shell = Process(), input = Pipe()
    shell.executableURL = URL(filePath: "/bin/sh")
    // Without a child of its own, which would keep this process from noticing its end.
    let script = """
      while read -r line; do :; done; kill -QUIT $0
      for second in 1 2 3 4 5; do kill -0 $0 || break; sleep 1; done
      rm -rf "$1"
      """
    shell.arguments = ["-c", script, "\(pid)", folder]
    shell.standardInput = input
    shell.standardOutput = FileHandle.nullDevice
    shell.standardError = FileHandle.nullDevice
    try shell.run()
    let earlier = guardian.withLock { guardian in
      defer { guardian = (shell, input) }
      return guardian
    }
    earlier?.process.terminate()
  }

  /// Ends it at once, as a power failure would, with all its processes.
  public func kill() {
    guard
      let server = process.withLock({ process -> Process? in
        defer { process = nil }
        return process
      })
    else { return }
    let children = Self.children(of: server.processIdentifier)
    for pid in [server.processIdentifier] + children { _ = Foundation.kill(pid, SIGKILL) }
    server.waitUntilExit()
    // The next one refuses to start while a process of this one still has the shared memory.
    for pid in children {
      for _ in 0..<500 where Foundation.kill(pid, 0) == 0 && !Self.isZombie(pid) { usleep(10_000) }
    }
    try? FileManager.default.removeItem(atPath: "\(folder)/data/postmaster.pid")
  }

  /// Ends it in order.
  public func stop() {
    guard let server = process.withLock({ $0 }) else { return }
    _ = Foundation.kill(server.processIdentifier, SIGINT)
    server.waitUntilExit()
    process.withLock { $0 = nil }
  }

  /// Makes a replica a server of its own.
  public func promote() throws {
    guard let programs = Self.programs else { return }
    try Self.run(["\(programs)/pg_ctl", "promote", "--wait", "--pgdata=\(folder)/data"])
  }

  /// Runs SQL by `psql`, as the server's administrator; what it prints, without headers.
  @discardableResult
  public func sql(_ text: String, database: String = "postgres") throws -> String {
    guard let programs = Self.programs else { return "" }
    return try Self.run([
      "\(programs)/psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1",
      "--host=\(folder)", "--port=\(port)", "--username=journal", "--dbname=\(database)", "--command=\(text)",
    ])
  }

  // MARK: Processes

  /// Root may not run PostgreSQL.
  private static let user: [String] = {
    guard geteuid() == 0 else { return [] }
    let (uid, gid) = account
    return ["--reuid=\(uid)", "--regid=\(gid)", "--clear-groups"]
  }()

  private static let account: (uid: uid_t, gid: gid_t) = {
    if let entry = getpwnam("postgres") { return (entry.pointee.pw_uid, entry.pointee.pw_gid) }
    return (65_534, 65_534)
  }()

  private static func makeFolder() throws -> String {
    // A socket's path has 107 bytes at most.
    let folder = "/tmp/pg-\(UInt32.random(in: 0 ... .max))"
    try FileManager.default.createDirectory(
      atPath: folder, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o755])
    if geteuid() == 0 { chown(folder, account.uid, account.gid) }
    return folder
  }

  @discardableResult
  private static func run(_ command: [String]) throws -> String {
    let process = Process(), output = Pipe(), errors = Pipe()
    process.executableURL = URL(filePath: "/usr/bin/setpriv")
    process.arguments = user + command
    process.currentDirectoryURL = URL(filePath: "/")
    process.standardOutput = output
    process.standardError = errors
    try process.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    let complaint = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { throw Failure(description: "\(command.first ?? ""): \(complaint)") }
    return text.trimmingCharacters(in: .whitespacesAndNewlines)
  }

  /// Not every kernel lists them.
  private static func children(of pid: Int32) -> [Int32] {
    let all = ((try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []).compactMap { Int32($0) }
    return all.filter { parent(of: $0) == pid }
  }

  private static func parent(of pid: Int32) -> Int32? {
    let text = (try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)) ?? ""
    // The name before it may have any character.
    let fields = text.split(separator: ")").last?.split(separator: " ") ?? []
    return fields.count > 1 ? Int32(fields[1]) : nil
  }

  private static func isZombie(_ pid: Int32) -> Bool {
    let text = (try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)) ?? ""
    return text.split(separator: ")").last?.hasPrefix(" Z") ?? true
  }
}
