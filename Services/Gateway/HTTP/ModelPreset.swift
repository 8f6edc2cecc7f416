import ClusterCore

/// Values of a request that belong together, under a name: how a distilled model, or an adapter that distils one, is
/// meant to be sampled.
package struct ModelPreset: Encodable, Equatable {
  package struct Adapter: Encodable, Equatable {
    package var name: String
    package var scale: Double

    package init(name: String, scale: Double) { (self.name, self.scale) = (name, scale) }
  }
  /// `lightning-4-v2.0`: unique among the presets of a model.
  package var name: String
  /// For people: "Lightning · 4 steps · V2.0".
  package var title: String
  package var steps: Int
  package var trueCfgScale = 1.0
  /// The fields that are to be sent besides; absent: as requests are without them.
  package var schedule: String?
  package var loras: [Adapter] = []

  package init(name: String, title: String, steps: Int, schedule: String? = nil, loras: [Adapter] = []) {
    (self.name, self.title, self.steps, self.schedule, self.loras) = (name, title, steps, schedule, loras)
  }

  /// The presets of a model: of its own schedule, and of the adapters that its denoisers have.
  ///
  /// - Parameter adapters: their names, as files of the Lightning distillations are called:
  ///   `Qwen-Image-Lightning-8steps-V2.0-bf16`, `Qwen-Image-Edit-2509-Lightning-4steps-V1.0`. A name without a number
  ///   of steps is of one with four.
  package static func presets(of card: ModelCard, adapters: [String]) -> [ModelPreset] {
    var presets: [ModelPreset] = []
    if let steps = card.limits.scheduleSteps {
      presets.append(ModelPreset(name: "turbo", title: "Turbo · \(steps) steps", steps: steps))
    }
    guard card.schedules.contains(.lightning) else { return presets }
    var counts: [String: Int] = [:]
    for adapter in adapters {
      guard var preset = lightning(adapter) else { continue }
      let count = counts[preset.name, default: 0] + 1
      counts[preset.name] = count
      // Several files of one release differ in their precision, or in the model that they were made for.
      if count > 1 {
        preset.name += ".\(count)"
        preset.title += " · \(adapter)"
      }
      presets.append(preset)
    }
    return presets
  }

  /// The preset of an adapter; nil: its name is not that of a Lightning distillation.
  private static func lightning(_ adapter: String) -> ModelPreset? {
    let words = adapter.lowercased().split { "-_ ".contains($0) }
    guard words.contains("lightning") else { return nil }
    let steps = words.lazy.compactMap { Self.steps(String($0)) }.first ?? 4
    let version = words.first { word in
      word.first == "v" && word.dropFirst().first?.isNumber == true
        && word.dropFirst().allSatisfy { $0.isNumber || $0 == "." }
    }
    let label = version.map { $0.uppercased() }
    return ModelPreset(
      name: ["lightning", "\(steps)", version.map(String.init)].compactMap { $0 }.joined(separator: "-"),
      title: ["Lightning", "\(steps) steps", label].compactMap { $0 }.joined(separator: " · "), steps: steps,
      schedule: ScheduleName.lightning.rawValue, loras: [Adapter(name: adapter, scale: 1)])
  }

  /// The number in "8steps" or "4step", from 1 to 99.
  private static func steps(_ word: String) -> Int? {
    for suffix in ["steps", "step"] where word.hasSuffix(suffix) {
      let digits = word.dropLast(suffix.count)
      guard (1...2).contains(digits.count), let number = Int(digits), number > 0 else { continue }
      return number
    }
    return nil
  }
}
