import ClusterCore
import Gateway
import Testing

@Suite struct ModelPresetTests {
  private static func presets(_ adapters: [String], change: (inout ModelCard) -> Void = { _ in }) -> [ModelPreset] {
    var card = Toy.card
    change(&card)
    return ModelPreset.presets(of: card, adapters: adapters)
  }

  /// Names as the distillations' authors publish their files.
  @Test(arguments: [
    ("Qwen-Image-Lightning-4steps-V1.0", "lightning-4-v1.0", 4),
    ("Qwen-Image-Lightning-8steps-V1.1-bf16", "lightning-8-v1.1", 8),
    ("Qwen-Image-Lightning-4steps-V2.0-bf16", "lightning-4-v2.0", 4),
    ("Qwen-Image-Edit-2509-Lightning-8steps-V1.0-fp32", "lightning-8-v1.0", 8),
    ("Qwen-Image-2.1-Lightning", "lightning-4", 4), ("my_lightning_2step", "lightning-2", 2),
  ])
  func adaptersThatDistil(_ adapter: String, name: String, steps: Int) throws {
    let preset = try #require(Self.presets(["style", adapter]).first)
    #expect((preset.name, preset.steps, preset.trueCfgScale, preset.schedule) == (name, steps, 1, "lightning"))
    #expect(preset.loras == [.init(name: adapter, scale: 1)])
  }

  @Test func titlesAreForPeople() {
    let names = ["Qwen-Image-Edit-Lightning-4steps-V1.0", "Qwen-Image-Lightning-4steps-V1.0"]
    let presets = Self.presets(names)
    #expect(presets.map(\.name) == ["lightning-4-v1.0", "lightning-4-v1.0.2"])
    #expect(presets[0].title == "Lightning · 4 steps · V1.0")
    #expect(presets[1].title == "Lightning · 4 steps · V1.0 · Qwen-Image-Lightning-4steps-V1.0")
  }

  @Test func othersHaveNone() {
    #expect(Self.presets(["style", "lightnings", "4steps", "V2.0", ""]) == [])
    // Denoisers of an earlier release do not know the schedule.
    #expect(Self.presets(["Qwen-Image-Lightning-4steps-V1.0"]) { $0.schedules = [.simple] } == [])
  }

  @Test func aDistilledModelHasItsOwn() {
    let presets = Self.presets([]) { $0.limits.scheduleSteps = 8 }
    #expect(presets == [ModelPreset(name: "turbo", title: "Turbo · 8 steps", steps: 8)])
  }
}
