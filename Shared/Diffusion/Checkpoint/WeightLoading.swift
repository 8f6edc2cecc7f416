import Foundation
import Hashing
import Kernels
import Weights

/// How the weights of the large networks come into memory.
public struct WeightLoading: Sendable {
  /// Where packed weights are kept between runs.
  public enum CacheLocation: Sendable, Equatable {
    /// Nowhere: they are packed in memory at every start.
    case none
    /// `.packed-weights` beside the model, for components of more than 256 MiB, if that can be written.
    case besideModel
    /// A directory of the user's choice.
    case directory(String)

    /// `none`, `auto`, or a directory.
    public init(_ text: String) {
      switch text {
      case "none": self = .none
      case "auto", "": self = .besideModel
      default: self = .directory(text)
      }
    }
  }

  /// The compute mode.
  public var precision: PrecisionChoice
  /// The cache.
  public var cache: CacheLocation
  /// Whether a cached component is read whole and compared with its checksums before it is used.
  public var verifiesCache: Bool
  /// Bytes of a network's mapped weights that may stay in memory; nil: what the machine or the container has available
  /// when they are loaded, less `reservedBytes`. What is beyond is read from the files in every pass.
  public var residentMax: Int?
  /// Gets a sentence about what is done and what is wrong.
  public var report: @Sendable (String) -> Void

  /// See the properties.
  public init(
    precision: PrecisionChoice = .auto, cache: CacheLocation = .none, verifiesCache: Bool = false,
    residentMax: Int? = nil,
    report: @escaping @Sendable (String) -> Void = { _ in }
  ) {
    self.precision = precision
    self.cache = cache
    self.verifiesCache = verifiesCache
    self.residentMax = residentMax
    self.report = report
  }

  /// For activations, and for the stages beside this one.
  package static let reservedBytes = 2 << 30

  /// How many bytes of mapped weights may stay in memory now; nil: unknown.
  package var residentLimit: Int? { residentMax ?? AvailableMemory.byteCount().map { max($0 - Self.reservedBytes, 0) } }

  /// Smaller components are packed in a moment.
  static let smallestCachedBytes = 256 << 20
}

extension ModelDirectory {
  /// Opens a component for computing: in the mode asked for, and with packed weights from the cache, which is filled
  /// first if need be. A cache that cannot be used is reported and left out.
  ///
  /// - Returns: the weights, and the arithmetic in their mode.
  public func open(
    _ component: ModelComponent, pool: ThreadPool, _ loading: WeightLoading
  ) throws(WeightsError) -> (weights: ComponentWeights, compute: Compute) {
    let weights = try weights(of: component)
    let compute = Compute(precision: try loading.precision.precision(for: weights), pool: pool)
    // Quantised components need no cache: they are packed already. fp32 is for comparisons only.
    guard weights.packedPrecision == nil, compute.precision != .fp32, let cache = cache(for: weights, loading) else {
      return (weights, compute)
    }
    do {
      let key = try cacheKey(component, weights, compute.precision)
      let plan = cachePlan(component, weights, compute.precision), byteCount = plan.reduce(0) { $0 + $1.packedBytes }
      let cached = try cache.component(key, tensorsMax: plan.count, byteCount: byteCount, report: loading.report) {
        writer in
        loading.report(
          "packing \(component.rawValue) for \(compute.precision.rawValue) in \(cache.directory.path), "
            + "about \(byteCount >> 20) MiB"
        )
        _ = try WeightPacker(compute: compute, packsKeptLayers: true).write(plan, from: weights, to: writer) { _ in }
      }
      return (weights.overlaid(by: cached), compute)
    } catch {
      loading.report("no cache of packed weights: \(error); continuing without it")
      return (weights, compute)
    }
  }

  private func cache(for weights: ComponentWeights, _ loading: WeightLoading) -> WeightCache? {
    switch loading.cache {
    case .none: nil
    case .directory(let path): WeightCache(URL(filePath: path), verifiesContents: loading.verifiesCache)
    case .besideModel:
      weights.fileByteCount < WeightLoading.smallestCachedBytes || !FileManager.default.isWritableFile(atPath: url.path)
        ? nil : WeightCache(url.appending(path: ".packed-weights"), verifiesContents: loading.verifiesCache)
    }
  }

  /// The content's fingerprint samples large tensors; sizes and times of the files catch the edits that it misses.
  private func cacheKey(
    _ component: ModelComponent, _ weights: ComponentWeights, _ precision: Precision
  ) throws(WeightsError) -> WeightCache.Key {
    let files = weights.files.map {
      "\(URL(filePath: $0.path).lastPathComponent) \($0.fileByteCount) \($0.modificationTimeNs)"
    }
    let text = ([try componentFingerprint(component)] + files).joined(separator: "\n")
    let digest = hexadecimal(SHA256.hash(text.utf8))
    return WeightCache.Key(
      component: component.rawValue, precision: precision.rawValue, source: url.standardizedFileURL.path,
      fingerprint: digest,
      rules: "layers \(type(of: family).layers.version), layout \(Linear.layoutVersion(precision))")
  }

  /// The layers that are worth packing beforehand: those that run, of the modulations only what is quantised.
  private func cachePlan(
    _ component: ModelComponent, _ weights: ComponentWeights, _ mode: Precision
  ) -> [PlannedTensor] {
    let layers = type(of: family).layers
    return family.inventory(of: component).parameters.compactMap { parameter in
      let stored = weights.quantisation(of: parameter.name)
      let precision = layers.precision(of: parameter.name, in: mode, stored: stored?.precision)
      let runs = parameter.isLinear && !family.isUnused(parameter.name, in: component)
      guard runs, precision != .bf16 || !layers.isModulation(parameter.name) else { return nil }
      let rotates = layers.rotates(at: precision, stored: stored?.format)
      return PlannedTensor(parameter.name, parameter.shape, .packed(precision, rotates: rotates))
    }
  }
}

extension PlannedTensor {
  /// About the bytes that the tensor takes when it is written; plain tensors as bf16.
  var packedBytes: Int {
    switch treatment {
    case .copied, .packed(.bf16, _): 2 * shape.elementCount
    case .packed(.fp32, _): 4 * shape.elementCount
    case .packed(.int8, _): shape.elementCount
    case .packed(.q4, _): shape.elementCount / 16 * 9
    }
  }
}
