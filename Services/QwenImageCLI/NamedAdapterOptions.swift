import ArgumentParser
import ClusterCore
import Foundation
import StrictJSON

/// The flag for adapters that a gateway's workers have.
struct NamedAdapterOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      """
      An adapter (LoRA, LoHa, LoKr) that the denoisers have, as `qwen-image models` lists it, and how much of it acts, \
      1 if nothing is said. Repeat it for several.
      """, valueName: "name[:scale]"),
    transform: NamedAdapter.init(text:))
  var lora: [NamedAdapter] = []

  func validate() throws {
    guard lora.count <= ChosenAdapter.maxCount else {
      throw ValidationError("--lora is there \(lora.count) times; the limit is \(ChosenAdapter.maxCount)")
    }
    var names: Set<String> = []
    for adapter in lora where !names.insert(adapter.name).inserted {
      throw ValidationError("--lora has the adapter \(adapter.name) twice")
    }
  }

  /// Adds the field to a request; without adapters it stays absent, since an older gateway may not know it.
  func add(to body: inout GatewayClient.Body) {
    if !lora.isEmpty { body.loras = lora }
  }

  /// The same for a form.
  func add(to form: inout UploadForm) {
    guard !lora.isEmpty else { return }
    form.add("loras", JSON.array(lora.map { ["name": .string($0.name), "scale": JSON($0.scale)] }))
  }
}

/// An adapter by its name, and how much of it acts.
struct NamedAdapter: Encodable, Equatable, Sendable {
  let name: String
  let scale: Double

  /// Reads `NAME` or `NAME:SCALE`.
  ///
  /// - Throws: `ValidationError` naming what is wrong.
  init(text: String) throws {
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    name = String(parts[0])
    guard AdapterName.isValid(name) else {
      throw ValidationError("\"\(name.prefix(80))\" is no name of an adapter, which is \(AdapterName.rule)")
    }
    guard parts.count == 2 else {
      scale = 1
      return
    }
    let limits = ChosenAdapter.scales
    guard let scale = Double(parts[1]), limits.contains(scale) else {
      throw ValidationError(
        "the scale is \(parts[1].prefix(40)); it must be from \(limits.lowerBound) to \(limits.upperBound)")
    }
    self.scale = scale
  }
}
