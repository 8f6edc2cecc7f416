/// What A1111's web UI calls samplers and schedules, by their names in this software's requests.
public enum SamplerTitle {
  /// Titles of samplers; A1111 has no title of its own for some.
  public static let samplers = [
    "euler": "Euler", "heun": "Heun", "dpmpp_2m": "DPM++ 2M", "dpmpp_2m_sde": "DPM++ 2M SDE", "er_sde": "ER SDE",
    "res_multistep": "RES Multistep", "unipc": "UniPC",
  ]
  /// Titles of schedules.
  public static let schedules = [
    "simple": "Simple", "beta": "Beta", "sgm_uniform": "SGM Uniform", "linear": "Linear", "lightning": "Lightning",
  ]

  /// The title of a sampler; nil is Euler's method.
  public static func sampler(_ name: String?) -> String { name.map { samplers[$0] ?? $0 } ?? "Euler" }

  /// The title of a schedule.
  public static func schedule(_ name: String) -> String { schedules[name] ?? name }
}
