import CWire
import ClusterCore

extension SamplingChoice: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__Sampling>) {
    qwenimage__v1__sampling__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    if let cfgSteps { try fields.range("cfg_steps", cfgSteps, 0...FieldCheck.maxSteps) }
  }

  /// What depends on the request that it is in, too.
  func check(_ fields: FieldCheck, steps: Int, hasSigmas: Bool) throws(WireError) {
    if let cfgSteps { try fields.range("cfg_steps", cfgSteps, 0...steps) }
    guard schedule == nil || !hasSigmas else {
      throw .outOfRange(
        field: fields.name("schedule"), value: schedule?.rawValue ?? "", allowed: "nothing beside sigmas")
    }
  }

  func fill(_ message: inout Qwenimage__V1__Sampling, _ arena: CArena) {
    message.sampler = arena.text(sampler.rawValue)
    message.schedule = arena.text(schedule?.rawValue ?? "")
    message.has_cfg_steps = cfgSteps == nil ? 0 : 1
    message.cfg_steps = UInt32(cfgSteps ?? 0)
  }

  init(_ message: Qwenimage__V1__Sampling, _ fields: FieldCheck) throws(WireError) {
    let schedule = String(field: message.schedule)
    self.init(
      sampler: try Self.name(String(field: message.sampler), "sampler", fields),
      schedule: schedule.isEmpty ? nil : try Self.name(schedule, "schedule", fields),
      cfgSteps: message.has_cfg_steps == 0 ? nil : Int(message.cfg_steps))
  }

  private static func name<Name: RawRepresentable<String> & CaseIterable>(
    _ text: String, _ field: String, _ fields: FieldCheck
  ) throws(WireError) -> Name {
    guard let name = Name(rawValue: text) else {
      throw .outOfRange(
        field: fields.name(field), value: "\"\(text.prefix(80))\"",
        allowed: Name.allCases.map { $0.rawValue }.joined(separator: ", "))
    }
    return name
  }
}

extension ModelCard {
  /// Names that this program does not know are those of newer workers, which have others too.
  mutating func readSampling(_ message: Qwenimage__V1__ModelCard) {
    let names = (0..<message.n_samplers).compactMap { SamplerName(rawValue: String(field: message.samplers[$0])) }
    samplers = names.isEmpty ? [.euler] : names
    schedules = (0..<message.n_schedules).compactMap { ScheduleName(rawValue: String(field: message.schedules[$0])) }
  }
}
