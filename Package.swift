// swift-tools-version: 6.1
import PackageDescription

// The rooms of the house, bottom to top. Dependencies point one way (Tests/ArchitectureTests checks it):
//   compute:    C* → TensorCore → Kernels → Weights → QwenImage
//   messaging:  CWire → Wire → Transport → StageRuntime
// The two meet only in Services/.

/// Kernels are unusable at -O0 (about 19 times slower), so C is optimised in debug builds too.
let optimisedC: [CSetting] = [.unsafeFlags(["-O2", "-fno-math-errno", "-ffp-contract=off"])]

func shared(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, path: "Shared/\(name)")
}
func system(_ name: String, apt: [String]) -> Target {
  .systemLibrary(name: name, path: "Shared/\(name)", providers: [.apt(apt)])
}
func service(_ name: String, path: String, _ dependencies: [Target.Dependency]) -> Target {
  .executableTarget(name: name, dependencies: dependencies, path: "Services/\(path)")
}
func test(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(name: "\(name)Tests", dependencies: dependencies, path: "Tests/\(name)Tests")
}

let package = Package(
  name: "qwen-image-cluster",
  platforms: [.macOS(.v15)],
  dependencies: [
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
  ],
  targets: [
    system("CZeroMQ", apt: ["libzmq3-dev"]),
    system("CProtobufC", apt: ["libprotobuf-c-dev"]),
    system("COpenBLAS", apt: ["libopenblas-dev"]),
    system("CPNG", apt: ["libpng-dev"]),
    system("CZlib", apt: ["zlib1g-dev"]),

    .target(name: "CKernels", path: "Shared/CKernels", cSettings: optimisedC),
    shared("TensorCore"),
    shared("Kernels", ["TensorCore", "CKernels", "COpenBLAS"]),
    shared("Weights", ["TensorCore", "Kernels"]),
    shared("QwenImage", ["TensorCore", "Kernels", "Weights"]),
    shared("ImageCodec", ["CPNG"]),

    .target(
      name: "CWire", dependencies: ["CProtobufC"], path: "Shared/CWire",
      cSettings: [.headerSearchPath("include")], linkerSettings: [.linkedLibrary("protobuf-c")]),
    shared("Wire", ["CWire", "CZlib"]),
    shared(
      "Observability",
      [.product(name: "Logging", package: "swift-log"), .product(name: "CoreMetrics", package: "swift-metrics")]),
    shared(
      "Transport",
      ["Wire", "CZeroMQ", .product(name: "Logging", package: "swift-log"), .product(name: "Metrics", package: "swift-metrics")]),

    .testTarget(name: "WireTests", dependencies: ["Wire"], path: "Tests/WireTests", resources: [.copy("Golden")]),
    shared(
      "StageRuntime",
      [
        "Wire", "Transport", "Observability", .product(name: "Logging", package: "swift-log"),
        .product(name: "Metrics", package: "swift-metrics"), .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
      ]),

    test(
      "Observability",
      ["Observability", .product(name: "Logging", package: "swift-log"), .product(name: "CoreMetrics", package: "swift-metrics")]),
    test("StageRuntime", ["StageRuntime", .product(name: "ServiceLifecycle", package: "swift-service-lifecycle")]),
    test("Transport", ["Transport", "CZeroMQ"]),
    test("Kernels", ["Kernels"]),
    test("Weights", ["Weights"]),
    test("QwenImage", ["QwenImage"]),
  ]
)
