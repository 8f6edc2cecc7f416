import ClusterCore
import ImageCodec
import StrictJSON

/// The names of samplers and schedules in A1111's API, and what they are here.
enum WebUISampler {
  /// The schedule of requests that choose none: the model's own.
  static let automatic = "Automatic"

  /// The samplers of A1111 and of its relatives that this server has, in small letters, without the schedule that older
  /// versions had behind them.
  private static let served: [String: SamplerName] = {
    var names: [String: SamplerName] = [
      "k_euler": .euler, "k_heun": .heun, "k_dpmpp_2m": .dpmpp2M, "k_dpmpp_2m_sde": .dpmpp2MSDE,
    ]
    for sampler in SamplerName.allCases {
      names[sampler.rawValue] = sampler
      names[title(sampler).lowercased()] = sampler
    }
    return names
  }()
  /// Those for which Euler's method stands.
  private static let replaced: Set = [
    "dpm++ sde", "dpm++ 2m sde heun", "dpm++ 2s a", "dpm++ 3m sde", "euler a", "lms", "dpm2", "dpm2 a", "dpm fast",
    "dpm adaptive", "restart", "ddim", "ddim cfg++", "plms", "lcm", "k_euler_a", "k_lms", "k_dpm_2", "k_dpm_2_a",
    "k_dpmpp_sde", "k_dpmpp_2s_a", "k_dpmpp_3m_sde", "k_dpm_fast", "k_dpm_ad",
  ]
  private static let suffixes: [(text: String, schedule: ScheduleName?)] = [
    (" karras", nil), (" exponential", nil), (" polyexponential", nil), (" sgm uniform", .sgmUniform),
    (" simple", .simple), (" beta", .beta),
  ]

  /// What a sampler's name says.
  struct Choice: Equatable {
    /// nil: A1111 has it, but this server has not.
    var sampler: SamplerName?
    /// The schedule behind the name.
    var schedule: ScheduleName?
  }

  /// What `name` stands for; nil: A1111 has no sampler of that name.
  static func choice(_ name: String) -> Choice? {
    let name = name.lowercased()
    if let sampler = served[name] { return Choice(sampler: sampler) }
    let suffix = suffixes.first { name.hasSuffix($0.text) }
    let base = String(name.dropLast(suffix?.text.count ?? 0))
    if let sampler = served[base] { return Choice(sampler: sampler, schedule: suffix?.schedule) }
    return replaced.contains(base) ? Choice(schedule: suffix?.schedule) : nil
  }

  /// The schedule of a name or a label; nil: this server has none of that name.
  static func schedule(_ name: String) -> ScheduleName? {
    let name = name.lowercased()
    return ScheduleName.allCases.first { $0.rawValue == name || title($0).lowercased() == name }
  }

  /// Whether the name of a schedule asks for the model's own.
  static func isOwn(_ schedule: String) -> Bool { ["automatic", ""].contains(schedule.lowercased()) }

  /// A sampler as A1111 calls it.
  static func title(_ sampler: SamplerName) -> String { SamplerTitle.sampler(sampler.rawValue) }

  /// A schedule as A1111 calls it.
  static func title(_ schedule: ScheduleName) -> String { SamplerTitle.schedule(schedule.rawValue) }

  /// The list of samplers.
  static let samplers = JSON.array(
    SamplerName.allCases.map { sampler in
      let aliases = served.filter { $0.value == sampler }.map(\.key).filter { $0 != title(sampler).lowercased() }
      return [
        "name": .string(title(sampler)),
        "aliases": .array((aliases.isEmpty ? [sampler.rawValue] : aliases.sorted()).map { .string($0) }),
        "options": [:],
      ]
    })

  /// The list of schedules.
  static let schedulers = JSON.array(
    ([("automatic", automatic)] + ScheduleName.allCases.map { ($0.rawValue, title($0)) }).map { name, label in
      [
        "name": .string(name), "label": .string(label), "aliases": .null, "default_rho": -1, "need_inner_model": false,
      ]
    })
}
