import Diffusion
import Foundation
import Kernels
import TensorCore
import Weights

/// A control network: a few blocks like the transformer's that see a control image beside the latents, and whose image
/// streams are added to the transformer's (diffusers `QwenImageControlNetModel`).
public struct ControlNetwork: Sendable {
  /// The configuration of its checkpoint.
  public let configuration: ControlNetworkConfiguration
  let trunk: TransformerTrunk
  private let conditionIn: Linear
  private let outputs: [Linear]

  /// Reads and prepares the weights.
  ///
  /// - Throws: `WeightsError` naming the file and tensor that is missing, misshapen or unexpected.
  public init(
    _ weights: ComponentWeights, configuration: ControlNetworkConfiguration, compute: Compute
  ) throws(WeightsError) {
    let reader = ModuleReader(weights, compute: compute, layers: QwenImageFamily.layers)
    let dim = configuration.transformer.innerDim
    self.configuration = configuration
    trunk = try TransformerTrunk(reader, configuration.transformer, hasOutputNorm: false)
    conditionIn = try reader.linear(
      "controlnet_x_embedder", input: configuration.conditionChannels, output: dim)
    var outputs: [Linear] = []
    for index in 0..<configuration.transformer.layerCount {
      outputs.append(try reader.linear("controlnet_blocks.\(index)", input: dim, output: dim))
    }
    self.outputs = outputs
    try reader.finish()
  }

  /// Loads a directory in the diffusers layout: `config.json`, and `diffusion_pytorch_model.safetensors` or its shards.
  ///
  /// - Parameter transformer: the network that the residuals are for, whose width they must have.
  /// - Throws: `ConfigurationError` or `WeightsError`, naming the file at fault.
  public init(directory: URL, for transformer: TransformerConfiguration, compute: Compute) throws {
    let configuration = try ControlNetworkConfiguration(contentsOf: directory.appending(path: "config.json"))
    try configuration.requireFit(transformer, file: directory.appending(path: "config.json").path)
    try self.init(
      ComponentWeights(directory: directory, baseName: ModelComponent.transformer.weightsBaseName),
      configuration: configuration, compute: compute)
  }

  /// Control latents [N, conditionChannels] → what they add to the image tokens [N, inner], fp32.
  func conditionTokens(_ latents: Tensor) -> Tensor {
    trunk.compute.linear(latents, conditionIn, output: .fp32)
  }

  /// What samples are computed from.
  struct Branch {
    /// Packed latents [N, inChannels], fp32.
    let latents: Tensor
    let image: ControlledImage.Part
    let step: Int

    var tokenCount: Int { latents.shape[0] + image.text.shape[0] }
  }

  /// Computes the samples of several images, of any steps and sizes, in one pass.
  ///
  /// - Returns: per branch, for each block of this network [N, inner], fp32, scaled; the same bytes as alone.
  func callAsFunction(_ branches: [Branch]) -> [[Tensor]] {
    if branches.isEmpty { return [] }
    let compute = trunk.compute, rows = consecutiveRows(branches.map { $0.latents.shape[0] })
    var streams = MMDiT.Streams(
      image: Tensor.stacking(branches.map(\.image.tokens)), text: Tensor.stacking(branches.map(\.image.text)))
    trunk.add(Tensor.stacking(branches.map(\.latents)), to: &streams.image)
    let scales = zip(branches, rows).map { branch, rows in (rows, branch.image.scales) }
    var samples: [[Tensor]] = branches.map { _ in [] }
    let parts = branches.map { branch in
      TransformerTrunk.Branch(
        imageTokens: branch.latents.shape[0], firstImageTokens: branch.latents.shape[0],
        textTokens: branch.image.text.shape[0], rotary: branch.image.rotary, modulation: branch.image.modulation,
        step: branch.step)
    }
    trunk.run(&streams, parts, range: 0..<trunk.blockCount, updatesLastText: false, probe: .none) { index, image in
      var sample = Tensor.zeros(image.shape)
      compute.linear(image, outputs[index], addingTo: &sample, gates: scales)
      for (branch, rows) in rows.enumerated() { samples[branch].append(sample.rows(rows)) }
    }
    return samples
  }
}

/// An image's control images, prepared for all steps. The branches of the image's guidance share one, as they share the
/// residuals, which are computed from the prompt.
final class ControlledImage: Sendable {
  /// A control image.
  struct Part: Sendable {
    /// The network that reads it.
    let network: Int
    /// The control image after `controlnet_x_embedder` [N, inner], fp32.
    let tokens: Tensor
    /// The prompt after the network's `txt_in` [L, inner], fp32.
    let text: Tensor
    let rotary: RotaryTable
    let modulation: ModulationTable
    /// [inner]: what samples are multiplied with.
    let scales: Tensor
    /// The part of the steps in which it acts.
    let range: ClosedRange<Double>

    /// Whether it acts at `step`: steps that lie in the range with their beginning and their end do.
    func acts(at step: Int) -> Bool {
      let steps = Double(modulation.stepCount)
      return Double(step) / steps >= range.lowerBound && Double(step + 1) / steps <= range.upperBound
    }
  }

  let parts: [Part]

  init(_ parts: [Part]) { self.parts = parts }
}

/// What control networks add to the image stream of an image at one step.
package struct ControlResiduals: Sendable {
  /// The samples of each control image that acts at the step, for each block of its network [N, inner], fp32.
  let samples: [[Tensor]]

  /// Adds what follows the block `index` of `blockCount` to rows of the image stream. The blocks share the samples in
  /// runs of equal length.
  func add(after index: Int, of blockCount: Int, to image: inout Tensor, rows: Range<Int>, _ compute: Compute) {
    for samples in samples {
      compute.add(&image, rows: rows, samples[Self.sample(after: index, of: blockCount, count: samples.count)])
    }
  }

  /// Which of `count` samples follows the block `index` of `blockCount`.
  package static func sample(after index: Int, of blockCount: Int, count: Int) -> Int {
    index / ((blockCount + count - 1) / count)
  }
}
