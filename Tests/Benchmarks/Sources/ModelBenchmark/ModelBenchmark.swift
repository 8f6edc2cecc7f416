import Foundation
import Kernels
import Measuring
import QwenImage
import TensorCore

/// Usage: ModelBenchmark [--threads N]
///
/// Measures modules at their full size for `reference/compare.py`, which asks by lines on standard input and gets lines
/// of JSON:
///
///     case KEY KIND SIZE PRECISION [MODEL]    makes a case; kinds are in Cases.swift
///     run KEY                                 {"wall": seconds, "processor": seconds of all threads / threads}
///     error KEY REFERENCE                     {"error": relative error of KEY's last result against that of REFERENCE}
///     keep KEY PATH                           writes KEY's last result to a file, as fp32
///     drop KEY                                frees a case
///     ceiling NAME                            {"rate": units per second, "processorRate": likewise by processor time}
///     memory                                  {"peak": peak RSS in bytes since the last `memory`}
@main
struct ModelBenchmark {
  let pool: ThreadPool
  private var cases: [String: BenchmarkCase] = [:]
  private var results: [String: [Float]] = [:]

  static func main() throws {
    let arguments = CommandLine.arguments
    let threads = arguments.firstIndex(of: "--threads").flatMap {
      $0 + 1 < arguments.count ? Int(arguments[$0 + 1]) : nil
    }
    var benchmark = ModelBenchmark(pool: ThreadPool(threads: threads ?? AvailableProcessors.current.threadCount))
    benchmark.answer(["instructions": InstructionSet.best.rawValue, "threads": benchmark.pool.threadCount])
    while let line = readLine() {
      let words = line.split(separator: " ").map(String.init)
      do { try benchmark.obey(words) } catch { benchmark.answer(["failed": "\(line): \(error)"]) }
    }
  }

  init(pool: ThreadPool) { self.pool = pool }

  private struct UnknownCommand: Error {}

  private mutating func obey(_ words: [String]) throws {
    switch (words.first, words.count) {
    case ("case", 5...): try makeCase(words)
    case ("run", 2):
      guard let body = cases[words[1]] else { throw UnknownCommand() }
      var result: [Float] = []
      var output: Tensor?
      let cost = try cost(threads: pool.threadCount) { output = try body.run() }
      if let output, body.isCompared { result = output.floats() }
      results[words[1]] = result
      answer(["wall": cost.wall, "processor": cost.processor])
    case ("error", 3): answer(["error": Self.relativeError(results[words[1]] ?? [], results[words[2]] ?? [])])
    case ("keep", 3):
      try (results[words[1]] ?? []).withUnsafeBytes { try Data($0).write(to: URL(filePath: words[2])) }
      answer([:])
    case ("drop", 2):
      cases[words[1]] = nil
      BlockRecycler.shared.releaseIdleBlocks()
      answer([:])
    case ("ceiling", 2):
      guard let ceiling = Ceiling(rawValue: words[1]) else { throw UnknownCommand() }
      let rate = ceiling.measure(pool: pool)
      answer(["rate": rate.perWall, "processorRate": rate.perProcessor])
    case ("memory", 1): answer(["peak": Self.peakResidentBytes()])
    default: throw UnknownCommand()
    }
  }

  private mutating func makeCase(_ words: [String]) throws {
    guard let size = Int(words[3]), let precision = Precision(rawValue: words[4]) else { throw UnknownCommand() }
    cases[words[1]] = try BenchmarkCase(
      kind: words[2], size: size, precision: precision, model: words.count > 5 ? words[5] : nil, pool: pool)
    answer([:])
  }

  private func answer(_ members: [String: Any]) {
    let data = (try? JSONSerialization.data(withJSONObject: members, options: .sortedKeys)) ?? Data("{}".utf8)
    FileHandle.standardOutput.write(data + Data("\n".utf8))
  }

  /// ‖a − b‖ / ‖b‖; -1 where there is nothing to compare.
  private static func relativeError(_ a: [Float], _ b: [Float]) -> Double {
    guard a.count == b.count, !a.isEmpty else { return -1 }
    var (difference, norm) = (0.0, 0.0)
    for (x, y) in zip(a, b) {
      difference += (Double(x) - Double(y)) * (Double(x) - Double(y))
      norm += Double(y) * Double(y)
    }
    return (difference / norm).squareRoot()
  }

  /// `VmHWM`, which is then set back to what is resident now.
  private static func peakResidentBytes() -> Int {
    let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
    let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") } ?? ""
    let kibibytes = line.split(whereSeparator: { !$0.isNumber }).first.flatMap { Int($0) } ?? 0
    if let file = FileHandle(forWritingAtPath: "/proc/self/clear_refs") { try? file.write(contentsOf: Data("5".utf8)) }
    return kibibytes << 10
  }
}
