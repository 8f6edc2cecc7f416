/// What the checks let pass, each with its reason. Every list may only become shorter.
enum Allowances {
  /// Files of more than 500 lines.
  static let longFiles = [
    "Tests/Golden/make_reference.py": "one script that is copied to wherever the reference implementation is installed"
  ]

  /// Functions of more than 70 lines.
  static let longFunctions = [
    "Tests/Golden/make_reference.py build": "a list of configurations",
    "Tests/Golden/make_reference.py attach": "a list of hooks, one for each recorded tensor",
    "Tests/Golden/make_reference.py cases": "a list of cases",
  ]

  /// Tests that read a clock.
  static let clocks = [
    "Tests/ObservabilityTests/LogTests.swift": "a record's time lies between readings of the clock before and after",
    "Tests/QwenImageCLITests/GatewayAddressTests.swift":
      "counts what a process with a clock of its own sends in two seconds; a slow machine sends less",
    "Tests/SimulationTests/SimulationTests.swift": "prints how fast the simulation is, and checks nothing about it",
  ]

  /// Dependencies that no file imports.
  static let unimported = [
    "GatewayTests GatewayMain": "the executable is built for the tests that start it",
    "QwenImageCLITests QwenImageCLI": "the executable is built for the tests that start it",
  ]

  /// Names that two modules give to types of their own.
  static let typeNames: [String: String] = [
    "Output": "of an operation in Kernels, of a task in Scheduling; neither module shows it"
  ]
}
