// swift-tools-version: 6.1
import PackageDescription

// The parsers of untrusted bytes, built for libFuzzer. `modules` holds links to those modules, or files of them, that
// the parsers need: with all of the gateway every build would take many minutes. Run with ./run.sh.

extension Target.Dependency {
  static let heap = product(name: "HeapModule", package: "swift-collections")
  static let httpTypes = product(name: "HTTPTypes", package: "swift-http-types")
  static let orderedCollections = product(name: "OrderedCollections", package: "swift-collections")
}

func module(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, path: "modules/\(name)")
}

let package = Package(
  name: "fuzzing",
  platforms: [.macOS(.v15)],
  dependencies: [
    .package(url: "https://github.com/apple/swift-collections", exact: "1.6.0"),
    .package(url: "https://github.com/apple/swift-http-types", exact: "1.8.0"),
  ],
  targets: [
    .systemLibrary(name: "CJPEG", path: "modules/CJPEG"),
    .systemLibrary(name: "COpenSSL", path: "modules/COpenSSL"),
    .systemLibrary(name: "CPNG", path: "modules/CPNG"),
    .systemLibrary(name: "CProtobufC", path: "modules/CProtobufC"),
    .systemLibrary(name: "CWebP", path: "modules/CWebP"),
    .systemLibrary(name: "CZlib", path: "modules/CZlib"),
    .target(
      name: "CImageCodec", dependencies: ["CJPEG", "CPNG", "CWebP"], path: "modules/CImageCodec",
      linkerSettings: ["jpeg", "png", "webp"].map { .linkedLibrary($0) }),
    .target(
      name: "CWire", dependencies: ["CProtobufC"], path: "modules/CWire", cSettings: [.headerSearchPath("include")],
      linkerSettings: [.linkedLibrary("protobuf-c")]),
    module("ClusterCore", [.heap]),
    module("GatewayAPI", ["ClusterCore", "StrictJSON", .httpTypes]),
    module(
      "GatewayPipelines",
      [
        "ClusterCore", "GatewayAPI", "ImageCodec", "Journal", "Provenance", "Scheduling", "Settings", "StrictJSON",
        "Wire",
      ]),
    module("Hashing", ["COpenSSL"]),
    module("ImageCodec", ["CImageCodec", "ClusterCore", "Hashing"]),
    module("Journal", ["ClusterCore"]),
    module("Provenance", ["COpenSSL", "CZlib", "Hashing", "ImageCodec"]),
    module("Scheduling", ["ClusterCore", .heap, .orderedCollections]),
    module("Settings"),
    module("StrictJSON", [.orderedCollections]),
    module("Templates", ["StrictJSON"]),
    module("TensorCore"),
    module("Weights", ["StrictJSON", "TensorCore"]),
    module("Wire", ["ClusterCore", "CWire", "CZlib", "TensorCore"]),
    .target(
      name: "FuzzTargets",
      dependencies: [
        "ClusterCore", "GatewayAPI", "GatewayPipelines", "ImageCodec", "Scheduling", "Templates", "TensorCore",
        "Weights", "Wire",
      ],
      path: "Targets"),
    // libFuzzer brings main.
    .executableTarget(
      name: "fuzz", dependencies: ["FuzzTargets"], path: "Main", swiftSettings: [.unsafeFlags(["-parse-as-library"])]),
  ]
)
