import ClusterCore
import Diffusion
import Foundation
import Kernels
import Settings
import Weights

/// Measures a machine for some models, and draws conclusions.
struct Tuning {
  let models: [(name: String, model: ModelDirectory)]
  /// Numbers of threads to try; nil: those that the processors suggest.
  let threadCounts: [Int]?
  let seconds: Double

  /// The image and the prompt of the estimates.
  private static let size = ImageSize(widthPx: 1024, heightPx: 1024)
  private static let textTokens = 128

  private func work(_ model: ModelDirectory) -> DenoisingWork {
    model.family.denoisingWork(size: Self.size, textTokens: Self.textTokens)
  }

  private func isRotated(_ model: ModelDirectory) -> Bool { type(of: model.family).layers.rotatesInputs }

  func report(progress: @escaping (_ done: Int, _ total: Int) -> Void) throws -> TuneReport {
    let start = ContinuousClock.now, memory = AvailableMemory.byteCount()
    let processors = AvailableProcessors.current, nodes = MemoryNode.all(of: processors)
    let denoisers = min(nodes.count, processors.threadCount)
    let counts = threadCounts ?? TuneReport.candidates(max(processors.threadCount / denoisers, 1))
    let layers = Set(
      models.flatMap { entry in
        work(entry.model).products.map {
          MachineRates.Layer(
            inFeatures: $0.inFeatures, outFeatures: $0.outFeatures, isRotated: isRotated(entry.model))
        }
      })
    let heads = Set(
      models.flatMap { entry in
        work(entry.model).attention.map { MachineRates.Heads(keys: $0.keys, count: $0.heads, dim: $0.headDim) }
      })
    let modes = Precision.allCases
    var measurement = MachineMeasurement(
      seconds: seconds, measurements: 1 + 2 * counts.count + modes.count * (layers.count + heads.count) - heads.count,
      progress: progress)

    let rates = counts.map { count in
      let rates = measurement.threadRates(count)
      return (threads: count, long: rates.long, short: rates.short)
    }
    let threads = TuneReport.bestThreads(rates.map { ($0.threads, $0.long) })
    let busy = Double(min(threads, processors.threadCount)), limit = processors.quota.map { min($0, busy) } ?? busy
    var machine = MachineRates()
    machine.memoryBytesPerSecond = measurement.memoryRate(
      threads: threads, byteCount: min(512 << 20, (memory ?? 4 << 30) / 8))
    _ = measurement.takeProcessorShare(processors: 1)
    measure(&machine, layers, heads, ThreadPool(threads: threads), &measurement)
    let processorShare = measurement.takeProcessorShare(processors: max(limit, 0.01))

    let estimates = models.map { estimate($0.name, $0.model, machine, memory) }
    return TuneReport(
      version: SoftwareVersion.current, machine: Self.describe(processors, nodes, memory),
      memoryBytesPerSecond: machine.memoryBytesPerSecond, threads: Self.threads(rates),
      kernels: Self.kernels(machine), models: estimates,
      recommendation: TuneReport.Recommendation(
        mode: estimates.first?.bestMode ?? Precision.bf16.rawValue,
        // How threads scale does not show while others take the processors.
        threads: threadCounts == nil && processorShare < TuneReport.calmShare ? counts[counts.count - 1] : threads,
        denoisers: denoisers),
      processorShare: processorShare, seconds: (ContinuousClock.now - start) / .seconds(1))
  }

  private func measure(
    _ rates: inout MachineRates, _ layers: Set<MachineRates.Layer>, _ heads: Set<MachineRates.Heads>,
    _ pool: ThreadPool, _ measurement: inout MachineMeasurement
  ) {
    for mode in Precision.allCases {
      let compute = Compute(precision: mode, pool: pool)
      for layer in layers { rates.layers[mode, default: [:]][layer] = measurement.rate(of: layer, compute) }
      // Attention of q4 is that of int8.
      guard mode != .q4 else { continue }
      for head in heads { rates.attention[mode, default: [:]][head] = measurement.rate(of: head, compute) }
    }
    rates.attention[.q4] = rates.attention[.int8]
  }

  private func estimate(
    _ name: String, _ model: ModelDirectory, _ rates: MachineRates, _ memory: Int?
  ) -> TuneReport.Model {
    let work = work(model)
    let modes = Precision.allCases.compactMap { mode -> TuneReport.Model.Mode? in
      let weights = model.residentWeightBytes(of: .transformer, in: mode)
      guard let seconds = rates.stepSeconds(work, mode, isRotated: isRotated(model), weightBytes: weights) else {
        return nil
      }
      return TuneReport.Model.Mode(
        mode: mode.rawValue, stepSeconds: seconds, denoiserBytes: weights + work.activationBytes,
        textEncoderBytes: model.residentWeightBytes(of: .textEncoder, in: mode),
        streamedBytes: memory.map { max(weights - max($0 - WeightLoading.reservedBytes, 0), 0) })
    }
    return TuneReport.Model(
      model: name, width: Self.size.widthPx, height: Self.size.heightPx, textTokens: Self.textTokens, modes: modes,
      bestMode: TuneReport.bestMode(modes))
  }

  private static func describe(
    _ processors: AvailableProcessors, _ nodes: [MemoryNode], _ memory: Int?
  ) -> TuneReport.Machine {
    let name = SystemFile.lines(of: "/proc/cpuinfo").first { $0.hasPrefix("model name") }?
      .split(separator: ":", maxSplits: 1).last
    return TuneReport.Machine(
      processor: name.map { $0.trimmingCharacters(in: .whitespaces) }, processors: processors.numbers.count,
      quota: processors.quota, instructionSet: InstructionSet.best.rawValue,
      memoryNodes: nodes.map { .init(number: $0.number, processors: $0.processorList) },
      availableMemoryBytes: memory)
  }

  private static func threads(_ rates: [(threads: Int, long: Double, short: Double)]) -> [TuneReport.Threads] {
    let long = rates.map(\.long).max() ?? 1, short = rates.map(\.short).max() ?? 1
    return rates.map {
      TuneReport.Threads(
        threads: $0.threads, operationsPerSecond: $0.long, ofBest: $0.long / long, shortOfBest: $0.short / short)
    }
  }

  private static func kernels(_ rates: MachineRates) -> [TuneReport.Kernel] {
    Precision.allCases.flatMap { mode in
      let layers = (rates.layers[mode] ?? [:]).map {
        TuneReport.Kernel(
          mode: mode.rawValue, kind: "layer",
          shape: "\($0.inFeatures)×\($0.outFeatures)\($0.isRotated ? ", rotated" : "")", operationsPerSecond: $1)
      }
      let attention = (rates.attention[mode] ?? [:]).map {
        TuneReport.Kernel(
          mode: mode.rawValue, kind: "attention", shape: "\($0.keys)×\($0.count)×\($0.dim)", operationsPerSecond: $1)
      }
      return layers.sorted { $0.shape < $1.shape } + attention.sorted { $0.shape < $1.shape }
    }
  }
}
