import Foundation
import Synchronization

/// What the kernel says of a process.
struct Usage {
  var cpuSeconds = 0.0
  var residentBytes = 0
  var descriptors = 0
  /// Handed to the disk, of files alone.
  var writtenBytes = 0

  /// Usage of process `id`; zeros when it is gone.
  init(of id: Int32) {
    func text(_ name: String) -> String { (try? String(contentsOfFile: "/proc/\(id)/\(name)", encoding: .utf8)) ?? "" }
    // After the name in parentheses, which may hold anything: utime and stime are fields 14 and 15.
    let fields = text("stat").split(separator: ")").last?.split(separator: " ") ?? []
    if fields.count > 21 {
      let ticks = (Double(fields[11]) ?? 0) + (Double(fields[12]) ?? 0)
      cpuSeconds = ticks / Double(sysconf(Int32(_SC_CLK_TCK)))
      residentBytes = (Int(fields[21]) ?? 0) * sysconf(Int32(_SC_PAGESIZE))
    }
    descriptors = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(id)/fd").count) ?? 0
    for line in text("io").split(separator: "\n") where line.hasPrefix("write_bytes: ") {
      writtenBytes = Int(line.dropFirst("write_bytes: ".count)) ?? 0
    }
  }

  init() {}

  /// The sum over several processes.
  static func total(_ usages: [Usage]) -> Usage {
    usages.reduce(into: Usage()) { sum, usage in
      sum.cpuSeconds += usage.cpuSeconds
      sum.residentBytes += usage.residentBytes
      sum.descriptors += usage.descriptors
      sum.writtenBytes += usage.writtenBytes
    }
  }
}

/// A gateway that this program has started.
final class GatewayProcess {
  let httpPort: UInt16
  let endpoint: String
  private let folder: URL
  private let arguments: [String]
  private let executable: URL
  private var process: Process?

  /// - Parameters:
  ///   - number: tells it from the others of this run.
  ///   - folder: where its log is written, and its journal unless `options` name another.
  ///   - keys: what `qwen-image keygen` has made; nil: plaintext.
  init(_ number: Int, _ options: Options, folder: URL, keys: URL?) {
    self.folder = folder
    httpPort = Self.freePort()
    let workerPort = Self.freePort()
    endpoint = "tcp://127.0.0.1:\(workerPort)"
    executable = URL(filePath: options.binaries).appending(path: "gateway")
    var settings: [(String, String)] = [
      ("http-port", "\(httpPort)"), ("cluster-endpoints", endpoint), ("jobs-max-count", "100000"),
      ("http-max-connections", "100000"), ("http-max-connections-per-address", "100000"), ("log-level", "error"),
      ("http-idle-timeout-seconds", "600"), ("shutdown-grace-seconds", "1"),
    ]
    // Every prompt is new: the cache of encoded ones must be full long before memory is judged.
    if options.soakMinutes > 0 { settings.append(("jobs-prompt-cache-bytes", "\(8 << 20)")) }
    if let url = options.journalURL {
      settings.append(("journal-url", url))
    } else {
      let parent = options.journalFolder.map { URL(filePath: $0) } ?? folder
      settings.append(("journal-path", parent.appending(path: "capacity-\(getpid())-\(number).journal").path()))
    }
    if let keys {
      settings.append(("cluster-secret-key-file", keys.appending(path: "gateway/gateway.secret").path()))
      settings.append(("cluster-allowed-keys-directory", keys.appending(path: "gateway/workers").path()))
    }
    arguments = settings.flatMap { ["--\($0.0)", $0.1] }
  }

  var id: Int32 { process?.processIdentifier ?? 0 }
  var usage: Usage { process.map { Usage(of: $0.processIdentifier) } ?? Usage() }
  var isRunning: Bool { process?.isRunning ?? false }

  /// Starts it and waits until it answers; returns the seconds that took.
  func start(patienceSeconds: Double = 600) throws -> Double {
    let log = folder.appending(path: "gateway-\(httpPort).log").path()
    if !FileManager.default.fileExists(atPath: log) { _ = FileManager.default.createFile(atPath: log, contents: nil) }
    let handle = FileHandle(forWritingAtPath: log)
    _ = try? handle?.seekToEnd()
    let process = Process()
    process.executableURL = executable
    process.arguments = arguments
    (process.standardOutput, process.standardError) = (handle, handle)
    process.standardInput = FileHandle.nullDevice
    let began = nowNs()
    try process.run()
    self.process = process
    Self.running.withLock { _ = $0.insert(process.processIdentifier) }
    while SimpleHTTP.status(port: httpPort, path: "/healthz") != 200 {
      guard process.isRunning, Double(nowNs() - began) / 1e9 < patienceSeconds else {
        let text = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
        throw Failure("the gateway does not serve: \(text.suffix(2000))")
      }
      usleep(10_000)
    }
    return Double(nowNs() - began) / 1e9
  }

  /// Ends it with signal `number`, and waits.
  func stop(_ number: Int32) {
    guard let process, process.isRunning else { return }
    kill(process.processIdentifier, number)
    process.waitUntilExit()
    Self.running.withLock { _ = $0.remove(process.processIdentifier) }
  }

  private static let running = Mutex<Set<Int32>>([])

  /// Ends those that run: this program is about to end in the middle.
  static func killAll() {
    for id in running.withLock({ $0 }) { kill(id, SIGKILL) }
  }

  /// Bytes of the journal's files.
  var journalBytes: Int {
    guard let index = arguments.firstIndex(of: "--journal-path") else { return 0 }
    return ["", "-wal"].reduce(0) { sum, suffix in
      let attributes = try? FileManager.default.attributesOfItem(atPath: arguments[index + 1] + suffix)
      return sum + ((attributes?[.size] as? NSNumber)?.intValue ?? 0)
    }
  }

  /// Removes what it has left outside its folder.
  func removeJournal() {
    guard let index = arguments.firstIndex(of: "--journal-path") else { return }
    for suffix in ["", "-wal", "-shm", ".lock", ".reserve"] {
      try? FileManager.default.removeItem(atPath: arguments[index + 1] + suffix)
    }
  }

  /// The sum of a metric over its labels.
  func metric(_ name: String) -> Double {
    let text = SimpleHTTP.get(port: httpPort, path: "/metrics")?.body ?? ""
    return text.split(separator: "\n").filter { $0.hasPrefix(name + " ") || $0.hasPrefix(name + "{") }
      .reduce(0) { $0 + (Double($1.split(separator: " ").last ?? "") ?? 0) }
  }

  private static func freePort() -> UInt16 {
    let socket = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(socket) }
    var address = loopback(port: 0)
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        _ = bind(socket, address, length)
        _ = getsockname(socket, address, &length)
      }
    }
    return UInt16(bigEndian: address.sin_port)
  }
}

/// 127.0.0.1.
func loopback(port: UInt16) -> sockaddr_in {
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_port = port.bigEndian
  address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
  return address
}

/// Why nothing can be measured.
struct Failure: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}
