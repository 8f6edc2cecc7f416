// swift-tools-version: 6.1
import PackageDescription

// The readers of bytes from outside, built for libFuzzer. `rooms` holds links to those rooms of the house, or files of them, that the
// readers need: with all of the gateway below them every build would take many minutes. Run with ./run.sh.

extension Target.Dependency {
  static let httpTypes = product(name: "HTTPTypes", package: "swift-http-types")
  static let orderedCollections = product(name: "OrderedCollections", package: "swift-collections")
}

func room(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, path: "rooms/\(name)")
}

let package = Package(
  name: "fuzzing",
  platforms: [.macOS(.v15)],
  dependencies: [
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
  ],
  targets: [
    .systemLibrary(name: "CPNG", path: "rooms/CPNG"),
    .systemLibrary(name: "CProtobufC", path: "rooms/CProtobufC"),
    .systemLibrary(name: "CZlib", path: "rooms/CZlib"),
    .target(name: "CImageCodec", dependencies: ["CPNG"], path: "rooms/CImageCodec", linkerSettings: [.linkedLibrary("png")]),
    .target(
      name: "CWire", dependencies: ["CProtobufC"], path: "rooms/CWire", cSettings: [.headerSearchPath("include")],
      linkerSettings: [.linkedLibrary("protobuf-c")]),
    room("Gateway", ["Journal", "Scheduling", "StrictJSON", "Wire", .httpTypes]),
    room("ImageCodec", ["CImageCodec"]),
    room("Journal"),
    room("Scheduling", [.orderedCollections]),
    room("StrictJSON", [.orderedCollections]),
    room("TensorCore"),
    room("Weights", ["StrictJSON", "TensorCore"]),
    room("Wire", ["CWire", "CZlib"]),
    .target(name: "FuzzTargets", dependencies: ["Gateway", "ImageCodec", "Scheduling", "TensorCore", "Weights", "Wire"], path: "Targets"),
    // libFuzzer brings main.
    .executableTarget(name: "fuzz", dependencies: ["FuzzTargets"], path: "Main", swiftSettings: [.unsafeFlags(["-parse-as-library"])]),
  ]
)
