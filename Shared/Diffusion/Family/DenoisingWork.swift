import ClusterCore
import Foundation
import Kernels

/// What a denoising network computes in one step of one image, without guidance (which is the same once more): the
/// products that take nearly all of the time. Speed and memory of a machine are estimated by it.
public struct DenoisingWork: Sendable, Equatable {
  /// Products of `rows` tokens with weights [outFeatures, inFeatures].
  public struct Product: Sendable, Hashable {
    /// Tokens.
    public var rows: Int
    /// Width of the input.
    public var inFeatures: Int
    /// Width of the output.
    public var outFeatures: Int
    /// How often it occurs in a step.
    public var count: Int

    /// See the properties.
    public init(rows: Int, inFeatures: Int, outFeatures: Int, count: Int) {
      (self.rows, self.inFeatures, self.outFeatures, self.count) = (rows, inFeatures, outFeatures, count)
    }

    /// Multiplications and additions of all of them.
    public var operations: Double { 2 * Double(rows) * Double(inFeatures) * Double(outFeatures) * Double(count) }
  }

  /// Attention of `queries` tokens to `keys` tokens.
  public struct Attention: Sendable, Hashable {
    /// Tokens that look.
    public var queries: Int
    /// Tokens that are looked at.
    public var keys: Int
    /// Heads, each with keys of its own.
    public var heads: Int
    /// Width of a head.
    public var headDim: Int
    /// How often it occurs in a step.
    public var count: Int

    /// See the properties.
    public init(queries: Int, keys: Int, heads: Int, headDim: Int, count: Int) {
      (self.queries, self.keys, self.heads, self.headDim, self.count) = (queries, keys, heads, headDim, count)
    }

    /// Multiplications and additions of all of them, scores and weighted values.
    public var operations: Double {
      4 * Double(queries) * Double(keys) * Double(heads) * Double(headDim) * Double(count)
    }
  }

  /// Products with weights.
  public var products: [Product]
  /// Attention.
  public var attention: [Attention]
  /// About the bytes that a step takes beside the weights.
  public var activationBytes: Int

  /// See the properties.
  public init(products: [Product], attention: [Attention], activationBytes: Int) {
    (self.products, self.attention, self.activationBytes) = (products, attention, activationBytes)
  }

  /// Multiplications and additions of a step.
  public var operations: Double {
    products.reduce(0) { $0 + $1.operations } + attention.reduce(0) { $0 + $1.operations }
  }

  /// About the bytes of the activations of `tokens` tokens in a network of the given width: the residual stream in
  /// fp32, queries, keys, values and what attention makes of them, and a hidden layer of four widths, of which not all
  /// live at once. Measured with 4096 to 16,384 tokens; it includes what a process takes for itself.
  public static func activationBytes(tokens: Int, width: Int) -> Int { processBytes + 20 * width * tokens }

  private static let processBytes = 400_000_000
}

extension ModelDirectory {
  /// About the bytes of memory that the weights of a component take while it runs in a mode. What runs once per
  /// schedule and is given up then (modulations) is not counted, nor is what no pipeline needs.
  public func residentWeightBytes(of component: ModelComponent, in mode: Precision) -> Int {
    let layers = type(of: family).layers
    return family.inventory(of: component).parameters.reduce(0) { sum, parameter in
      guard !layers.isModulation(parameter.name), !family.isUnused(parameter.name, in: component) else { return sum }
      return sum + parameter.planned(for: mode, layers).packedBytes
    }
  }
}

extension ModelFamilies {
  /// Of each family its first release, without weights and tokenizer: the configurations are written to folders of
  /// `directory` and read from there.
  ///
  /// - Throws: what the file system says, or `ConfigurationError`.
  public func publishedModels(in directory: URL) throws -> [(name: String, model: ModelDirectory)] {
    try families.map { family in
      let folder = directory.appending(path: family.name)
      try CheckpointFiles.write(family.syntheticFiles(.published, withTokenizer: false), to: folder)
      return (family.name, try ModelDirectory(folder, families: self))
    }
  }
}
