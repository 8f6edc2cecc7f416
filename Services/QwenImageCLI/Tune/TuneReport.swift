import Foundation
import Kernels

/// What `qwen-image tune` has found out.
package struct TuneReport: Encodable, Equatable, Sendable {
  /// What there is.
  package struct Machine: Encodable, Equatable, Sendable {
    package struct Node: Encodable, Equatable, Sendable {
      package var number: Int
      /// As `0-3,8`.
      package var processors: String
    }
    /// As the processor calls itself.
    package var processor: String?
    /// Those that this process may use.
    package var processors: Int
    /// Processors' time that its control group leaves it; nil: all.
    package var quota: Double?
    package var instructionSet: String
    package var memoryNodes: [Node]
    package var availableMemoryBytes: Int?
  }

  /// How many threads fare.
  package struct Threads: Encodable, Equatable, Sendable {
    package var threads: Int
    package var operationsPerSecond: Double
    /// Of the greatest rate.
    package var ofBest: Double
    /// The same of products so short that what is between them counts.
    package var shortOfBest: Double
  }

  /// The rate of one product.
  package struct Kernel: Encodable, Equatable, Sendable {
    package var mode: String
    /// `layer` (inputs × outputs) or `attention` (keys × heads × width of a head).
    package var kind: String
    package var shape: String
    package var operationsPerSecond: Double
  }

  /// What is to be expected of a model.
  package struct Model: Encodable, Equatable, Sendable {
    package struct Mode: Encodable, Equatable, Sendable {
      package var mode: String
      package var stepSeconds: Double
      package var denoiserBytes: Int
      package var textEncoderBytes: Int
      /// What does not fit into the memory that is available, and is read in every step; nil: unknown.
      package var streamedBytes: Int?

      package init(
        mode: String, stepSeconds: Double, denoiserBytes: Int, textEncoderBytes: Int, streamedBytes: Int?
      ) {
        (self.mode, self.stepSeconds) = (mode, stepSeconds)
        (self.denoiserBytes, self.textEncoderBytes) = (denoiserBytes, textEncoderBytes)
        self.streamedBytes = streamedBytes
      }
    }
    package var model: String
    package var width: Int
    package var height: Int
    package var textTokens: Int
    package var modes: [Mode]
    package var bestMode: String
  }

  /// What to set.
  package struct Recommendation: Encodable, Equatable, Sendable {
    /// Of the first model.
    package var mode: String
    /// Of each denoiser.
    package var threads: Int
    package var denoisers: Int
  }

  package var version: String
  package var machine: Machine
  package var memoryBytesPerSecond: Double
  package var threads: [Threads]
  package var kernels: [Kernel]
  package var models: [Model]
  package var recommendation: Recommendation
  /// The part of the processors' time that this process had while it measured.
  package var processorShare: Double
  /// How long it took.
  package var seconds: Double

  /// With less of the processors' time, what was measured is called too low.
  package static let calmShare = 0.85

  /// Modes that are recommended, the most exact first.
  private static let preference: [Precision] = [.bf16, .int8, .q4]

  /// The mode to use: the fastest of those that fit into memory; of those that are about as fast the most exact. Where
  /// none fits, the one of which the least is read in every step.
  package static func bestMode(_ modes: [Model.Mode]) -> String {
    let candidates = preference.compactMap { mode in modes.first { $0.mode == mode.rawValue } }
    let fitting = candidates.filter { ($0.streamedBytes ?? 0) == 0 }
    guard let least = fitting.map(\.stepSeconds).min() else {
      return candidates.min { ($0.streamedBytes ?? 0) < ($1.streamedBytes ?? 0) }?.mode ?? Precision.bf16.rawValue
    }
    return fitting.first { $0.stepSeconds <= 1.05 * least }?.mode ?? Precision.bf16.rawValue
  }

  /// The number of threads to use: the fewest that are about as fast as any.
  package static func bestThreads(_ rates: [(threads: Int, long: Double)]) -> Int {
    let greatest = rates.map(\.long).max() ?? 0
    return rates.filter { $0.long >= 0.97 * greatest }.map(\.threads).min() ?? 1
  }

  /// Numbers of threads worth trying where `threads` can have a processor each: powers of two below it, half of it
  /// (processors may be two to a core), and itself.
  package static func candidates(_ threads: Int) -> [Int] {
    let powers = sequence(first: 1) { 2 * $0 }.prefix { $0 < threads }
    return Set(Array(powers) + [max(threads / 2, 1), threads]).sorted()
  }
}

extension TuneReport {
  /// What is said to people, a line each.
  package var lines: [String] {
    let parts = [machineLines, rateLines] + models.map(lines(of:)) + [recommendationLines]
    return Array(parts.joined(separator: [""]))
  }

  private var machineLines: [String] {
    let quota = machine.quota.map { String(format: ", a quota of %.2f", $0) } ?? ""
    let memory = machine.availableMemoryBytes.map { ", \(Self.gigabytes($0)) of memory available" } ?? ""
    return [
      "\(machine.processor ?? "processor"): \(machine.processors) processors\(quota), "
        + "\(machine.instructionSet)\(memory)"
    ] + machine.memoryNodes.map { "memory node \($0.number): processors \($0.processors)" }
  }

  private var rateLines: [String] {
    let modes = Precision.allCases.map(\.rawValue).compactMap { mode -> String? in
      func range(_ kind: String) -> String? {
        let rates = kernels.filter { $0.mode == mode && $0.kind == kind }.map { $0.operationsPerSecond / 1e9 }
        guard let least = rates.min(), let most = rates.max() else { return nil }
        return String(format: "%.0f–%.0f", least, most)
      }
      guard let layers = range("layer") else { return nil }
      return "  \(mode.padded(to: 6))\(layers.padded(to: 16))\(range("attention") ?? "as int8")"
    }
    return ["memory: \(Self.gigabytes(Int(memoryBytesPerSecond))) a second", "threads, and rates of the best:"]
      + threads.map {
        "  \("\($0.threads)".padded(to: 6))"
          + String(format: "%.2f, of short operations %.2f", $0.ofBest, $0.shortOfBest)
      }
      + ["mode    layers, G/s     attention, G/s"] + modes
  }

  private func lines(of model: Model) -> [String] {
    ["\(model.model), \(model.width)×\(model.height), estimated (a step without guidance; with it twice that):"]
      + model.modes.map { mode in
        let notes = [
          mode.mode == model.bestMode ? "best here" : nil,
          mode.streamedBytes.flatMap { $0 > 0 ? "\(Self.gigabytes($0)) too large, read in every step" : nil },
          mode.mode == Precision.fp32.rawValue ? "for comparison" : nil,
        ].compactMap { $0 }.joined(separator: "; ")
        let columns = [
          "  \(mode.mode.padded(to: 6))", "\(Self.text(mode.stepSeconds)) s".padded(to: 10),
          "denoiser \(Self.gigabytes(mode.denoiserBytes))".padded(to: 20),
          "text encoder \(Self.gigabytes(mode.textEncoderBytes))",
        ]
        return columns.joined() + (notes.isEmpty ? "" : "  \(notes)")
      }
  }

  private var recommendationLines: [String] {
    let count = recommendation.denoisers, plural = count == 1 ? "denoiser" : "denoisers, each on its memory node,"
    var lines = [
      "recommended: --compute-precision \(recommendation.mode), \(count) \(plural) with --compute-threads "
        + "\(recommendation.threads)",
      "Modes differ in accuracy as well: qwen-image accuracy --model DIRECTORY measures it.",
    ]
    if processorShare < Self.calmShare {
      lines.append(
        String(
          format: "Only %.0f %% of the processors' time was to be had: other programs ran, and the rates are too low.",
          100 * processorShare))
    }
    return lines
  }

  private static func gigabytes(_ bytes: Int) -> String { String(format: "%.1f GB", Double(bytes) / 1e9) }

  private static func text(_ seconds: Double) -> String {
    String(format: seconds < 10 ? "%.2f" : seconds < 100 ? "%.1f" : "%.0f", seconds)
  }
}
