import Foundation

/// See ``Options/help``.
@main
struct CapacityBenchmark {
  static func main() {
    let arguments = Array(CommandLine.arguments.dropFirst())
    if arguments.contains("--help") { return print(Options.help) }
    guard let options = Options(arguments) else { exit(64) }
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    limit.rlim_cur = limit.rlim_max
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    signal(SIGPIPE, SIG_IGN)
    let interruptions = [SIGINT, SIGTERM].map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        GatewayProcess.killAll()
        exit(128 + number)
      }
      source.resume()
      return source
    }
    defer { withExtendedLifetime(interruptions) {} }
    do {
      let run = try Run(options)
      defer { run.end() }
      let report = try run.measure()
      print(report.table)
      if let output = options.output {
        try JSONSerialization.data(withJSONObject: report.values, options: [.prettyPrinted, .sortedKeys])
          .write(to: URL(filePath: output))
      }
      if !report.failures.isEmpty {
        run.end()
        exit(1)
      }
    } catch {
      FileHandle.standardError.write(Data("\(error)\n".utf8))
      exit(1)
    }
  }
}
