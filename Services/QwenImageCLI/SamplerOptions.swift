import ArgumentParser
import ClusterCore

/// The flags that say how the steps of an image are taken.
struct SamplerOptions: ParsableArguments {
  @Option(
    help: """
      How one step leads to the next: \(SamplerName.allCases.map(\.rawValue).joined(separator: ", ")). heun takes \
      twice the time. Default: euler.
      """)
  var sampler: SamplerName?

  @Option(
    help: """
      Noise levels of the steps, before the shift: \
      \(ScheduleName.allCases.map(\.rawValue).joined(separator: ", ")). Default: the model's own.
      """)
  var schedule: ScheduleName?

  @Option(
    parsing: .unconditional,
    help: "Guidance acts in so many steps from the first only; later ones take half the time. Default: in all.")
  var cfgSteps: Int?

  func validate() throws {
    if let cfgSteps, cfgSteps < 0 { throw ValidationError("--cfg-steps is \(cfgSteps); it must be at least 0") }
  }

  /// What the flags choose.
  var choice: SamplingChoice { SamplingChoice(sampler: sampler ?? .euler, schedule: schedule, cfgSteps: cfgSteps) }

  /// Adds the fields to a request; those that are not given stay absent, since an older gateway may not know them.
  func add(to body: inout GatewayClient.Body) {
    (body.sampler, body.schedule, body.cfgSteps) = (sampler?.rawValue, schedule?.rawValue, cfgSteps)
  }

  /// The same for a form.
  func add(to form: inout UploadForm) {
    form.add("sampler", sampler?.rawValue)
    form.add("schedule", schedule?.rawValue)
    form.add("cfg_steps", cfgSteps)
  }
}

extension SamplerName: ExpressibleByArgument {}
extension ScheduleName: ExpressibleByArgument {}
